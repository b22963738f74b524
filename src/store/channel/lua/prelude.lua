-- What scripts of this folder share.

-- The status of a result, as far as its beginning tells.
local function status(key)
  return string.match(redis.call('GETRANGE', key, 0, 255), '^%s*{%s*"status"%s*:%s*"([^"]*)"')
end

-- Stores a result for so many seconds (0: for good), and publishes it to the clients that wait for it.
local function store(key, seconds, document)
  if seconds == '0' then
    redis.call('SET', key, document)
  else
    redis.call('SETEX', key, seconds, document)
  end
  redis.call('PUBLISH', key, document)
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

