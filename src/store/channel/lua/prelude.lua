-- What scripts of this folder share.

-- Which argument says how many results the caller has read because they are compressed. They follow it, each with its
-- status.
local told = 0

-- The status of a compressed result, if the caller has read it.
local function known(document)
  for i = told + 1, told + 2 * tonumber(ARGV[told]), 2 do
    if ARGV[i] == document then return ARGV[i + 1] end
  end
end

local COMPRESSED = '\0celery-compressed\0'

-- The status of a result, as far as its beginning tells.
local function status(key)
  local head = redis.call('GETRANGE', key, 0, 255)
  if string.sub(head, 1, #COMPRESSED) == COMPRESSED then return known(redis.call('GET', key)) end
  return string.match(head, '^%s*{%s*"status"%s*:%s*"([^"]*)"')
end

-- Says that one of these results is compressed and the caller has not read it. Asked before anything is changed.
local function unread(first, last)
  for i = first, last do
    if redis.call('GETRANGE', KEYS[i], 0, #COMPRESSED - 1) == COMPRESSED and not known(redis.call('GET', KEYS[i])) then
      return redis.error_reply('COMPRESSED a result that was not read')
    end
  end
end

-- Stores a result for so many seconds (0: for good).
local function store(key, seconds, document)
  -- A full Redis refuses what takes memory, unless the script has written before.
  redis.call('PERSIST', key)
  if seconds == '0' then
    redis.call('SET', key, document)
  else
    redis.call('SETEX', key, seconds, document)
  end
end

-- Whether no other run has the lease, and whether this run decides on its task: it has the lease, or no run has it and
-- the message is in flight. What is settled has neither, nor has what was lost with Redis.
local function position(unacked, lease, tag, holder)
  local has = redis.call('GET', lease)
  return not has or has == holder, has == holder or (not has and redis.call('HEXISTS', unacked, tag) == 1)
end

local function acknowledge(unacked, unacked_index, lease, tag)
  redis.call('ZREM', unacked_index, tag)
  redis.call('HDEL', unacked, tag)
  redis.call('DEL', lease)
end

-- What is marked of the end of a run with this id: '1' or '0' where it was brought about, and was taken or not, and 'p'
-- with a number where so many messages were published and then one was refused. Nil on the first try.
local function marked(mark, id)
  local what, of = string.match(redis.call('GET', mark) or '', '^(%S+) (.*)$')
  return of == id and what or nil
end

-- Marks how far an end has come. A mark serves one end after the other, each until its answer was heard.
local function note_end(mark, id, what) redis.call('SETEX', mark, 86400, what .. ' ' .. id) end

-- Publishes what follows: so many arguments from that one on to the keys from this one on, without what was published before.
-- Answers the error where a list cannot take its message; what is half done goes on from there when it is repeated.
local function publish(count, first_key, first_message, mark, id, before)
  for i = tonumber(string.match(before or '', '^p(%d+)$') or 0), count - 1 do
    local answer = redis.pcall('LPUSH', KEYS[first_key + i], ARGV[first_message + i])
    if type(answer) == 'table' and answer.err then
      if i > 0 then note_end(mark, id, 'p' .. i) end
      return answer
    end
  end
end

