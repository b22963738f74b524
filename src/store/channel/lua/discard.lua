-- KEYS: unacked, unacked_index, quarantine. ARGV: tag, how many elements the quarantine keeps, names and values of fields
-- that say where the element was found
-- Moves an element in flight into quarantine.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
  local fields = {}
  for i = 3, #ARGV do fields[i - 2] = ARGV[i] end
  fields[#fields + 1], fields[#fields + 2] = 'element', value
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', unpack(fields))
end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
