-- KEYS: unacked, unacked_index, quarantine. ARGV: tag, how many elements the quarantine keeps
-- Moves an unreadable element in flight into quarantine.
redis.call('ZREM', KEYS[2], ARGV[1])
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'list', KEYS[1], 'element', value)
return 1
