-- KEYS: result. ARGV: the document that was read
-- Deletes a result that is still the one that was read and still has no expiry.
if redis.call('TTL', KEYS[1]) ~= -1 or redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
