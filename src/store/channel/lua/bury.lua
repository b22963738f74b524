-- KEYS: workers, the tags that this one had. ARGV: the worker, when it last said that it lives
-- Forgets a worker that has died, unless it has said since that it lives.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
