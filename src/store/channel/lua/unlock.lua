-- KEYS: mutex. ARGV: its owner. The protocol of redis-py's locks.
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
