-- Runs before every transition. KEYS[1] is the fence, ARGV[1] the caller's term: creation of the Lease '/' its transitions.
-- The message of a marker, `KEYS[2] .. ':message'`, is among the keys of each that touches it. Not among them is the list that
-- a marker names, which only a script knows.

-- What keeps the caller out, or nil. Terms are compared by the creation of the Lease first. A fence that is missing is
-- made: `born` tells an emptied Redis from the one that was there before. One that no operator has written keeps all
-- operators out: 15 digits are exact in a double. core::claims::fence judges the same way.
local function fenced()
  local created, epoch = string.match(ARGV[1], '^(%d+)/(%d+)$')
  local function number(text) return #text <= 15 and string.find(text, '^%d+$') and tonumber(text) end
  local held = redis.pcall('HMGET', KEYS[1], 'created', 'epoch')
  if held.err then
    if string.find(held.err, '^WRONGTYPE') then return {'fenced', {}} end
    return held
  end
  if not held[2] then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'created', created, 'epoch', epoch, 'born', now[1] .. string.format('%06d', now[2]))
    return nil
  end
  local held_created, held_epoch = number(held[1] or '0'), number(held[2])
  if not held_created or not held_epoch then return {'fenced', {}} end
  local ours = tonumber(created)
  if ours < held_created or ours == held_created and tonumber(epoch) < held_epoch then return {'fenced', {}} end
  if created ~= held[1] or epoch ~= held[2] then redis.call('HSET', KEYS[1], 'created', created, 'epoch', epoch) end
  return nil
end

local function marker(key)
  local values =
    redis.call('HMGET', key, 'uid', 'name', 'attempt', 'gen', 'tag', 'queue', 'priority', 'state', 'at', 'spec')
  -- No operator writes longer ones.
  for i, value in ipairs(values) do values[i] = value and string.sub(value, 1, 512) end
  return values
end

local COMPRESSED = '\0celery-compressed\0'

-- The status of a result document, '' when there is none, '?' when it cannot be told. A compressed one is read by the
-- caller: what it was, and its status.
local function status(key, known, known_status)
  local head = redis.call('GETRANGE', key, 0, 255)
  if head == '' then return '' end
  if string.sub(head, 1, #COMPRESSED) == COMPRESSED then
    return redis.call('GET', key) == known and known_status or '?'
  end
  local found = string.match(head, '^%s*{%s*"status"%s*:%s*"([^"]*)"')
  if found then return found end
  local ok, document = pcall(cjson.decode, redis.call('GET', key))
  return ok and type(document) == 'table' and document.status or '?'
end

-- Remembers or forgets the bytes of the message that the marker belongs to. They have a key of their own because a
-- value of this size would cost the hash its compact form.
local function keep(key, message, limit)
  if #message <= tonumber(limit) then
    redis.call('SET', key .. ':message', message)
  else
    redis.call('DEL', key .. ':message')
  end
end

-- Whether a REVOKED was written by the worker that had the task: the revoke command of others leaves
-- neither `children` nor `worker`.
local function revoked_by_its_worker(key)
  local ok, document = pcall(cjson.decode, redis.call('GET', key))
  local function lacks(field) return document[field] == nil or document[field] == cjson.null end
  return not (ok and lacks('children') and lacks('worker'))
end

-- Removes what a lost run has left as its result: a failure only when told to, an end never. Whether nothing is left.
-- A STARTED of a dead worker would be read as the holder of the next delivery.
local function clear(key, failures, known, known_status)
  local state = status(key, known, known_status)
  if state == 'SUCCESS' or state == '?' or (state == 'FAILURE' and failures ~= '1') then return false end
  if state == 'REVOKED' and revoked_by_its_worker(key) then return false end
  redis.call('DEL', key)
  return true
end

-- Says, before anything is changed, which of these commands would be refused half-way: a marker without its message is a
-- lost one. Redis before 7 cannot tell.
local function forbidden(commands)
  if not redis.acl_check_cmd then return nil end
  for _, command in ipairs(commands) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply("NOPERM the user has no permissions to run '" .. command[1] .. "' on " .. command[2])
    end
  end
end

-- What publish() needs.
local function publishing()
  local copy = KEYS[2] .. ':message'
  return {{'lpush', KEYS[3], ''}, {'hset', KEYS[2], '', ''}, {'hsetnx', KEYS[2], '', ''}, {'set', copy, ''}, {'del', copy}}
end

-- Publishes ARGV[2] on KEYS[3] and writes the marker KEYS[2] from ARGV[3] to ARGV[11].
local function publish()
  local now = redis.call('TIME')
  redis.call('HSETNX', KEYS[2], 'at', now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
  redis.call('HSET', KEYS[2], 'uid', ARGV[4], 'name', ARGV[5], 'attempt', ARGV[6], 'gen', ARGV[7], 'tag', ARGV[8],
    'queue', ARGV[9], 'priority', ARGV[10], 'spec', ARGV[11], 'state', 'queued', 'list', KEYS[3])
  keep(KEYS[2], ARGV[2], ARGV[3])
  redis.call('LPUSH', KEYS[3], ARGV[2])
  return {'published', {}}
end

