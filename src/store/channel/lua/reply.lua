-- KEYS: binding, list. ARGV: member of the binding, reply
-- Answers a caller that still waits. A list without a reader would stay for ever.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
