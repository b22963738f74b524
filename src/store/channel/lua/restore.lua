-- KEYS: unacked, unacked_index, list, lease. ARGV: tag, message, latest time of receipt ('' for any), holder of lease
-- Puts a message back so that it is taken next, as kombu does. Answers 1 if it was in flight.
if ARGV[3] ~= '' then
  local received = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not received or tonumber(received) > tonumber(ARGV[3]) then return 0 end
end
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[3], ARGV[2])
if ARGV[4] ~= '' and redis.call('GET', KEYS[4]) == ARGV[4] then redis.call('DEL', KEYS[4]) end
return 1
