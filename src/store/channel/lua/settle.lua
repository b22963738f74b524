-- KEYS: unacked, unacked_index, lease, result, lists of what is published.
-- ARGV: tag, holder of the lease, seconds a result is kept (0: for good), '1' where the outcome counts whoever holds the
-- lease, document ('' for none), messages in the order of the lists
-- The end of a run in one step: publishes what follows, stores the result, acknowledges, gives the lease up. May be
-- repeated. Answers whether the outcome was taken and whether the message was acknowledged.
local holder = redis.call('GET', KEYS[3])
local mine = not holder or holder == ARGV[2]
local document = ARGV[5]

-- A success is final, as in Celery. Where somebody else has the lease by now, their run decides.
local function counts()
  if document == '' then return holder == ARGV[2] or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 end
  if not mine and ARGV[4] ~= '1' then return false end
  return not string.match(redis.call('GETRANGE', KEYS[4], 0, 255), '^%s*{%s*"status"%s*:%s*"SUCCESS"')
end

-- The very document lies there when this is repeated because the answer was lost.
local done = document ~= '' and redis.call('STRLEN', KEYS[4]) == #document and redis.call('GET', KEYS[4]) == document
local taken = not done and counts()
if taken then
  for i = 5, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[i + 1]) end
  if document ~= '' then
    if ARGV[3] == '0' then
      redis.call('SET', KEYS[4], document)
    else
      redis.call('SETEX', KEYS[4], ARGV[3], document)
    end
    redis.call('PUBLISH', KEYS[4], document)
  end
end
if mine then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
end
return {(taken or done) and 1 or 0, mine and 1 or 0}
