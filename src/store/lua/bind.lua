-- KEYS: bindings of exchanges. ARGV: the member that each gets
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('SREM', KEYS[1], '')
for i, key in ipairs(KEYS) do redis.call('SADD', key, ARGV[i]) end
return #KEYS
