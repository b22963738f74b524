-- KEYS: fence, marker, unacked, unacked_index, the marker's message
-- ARGV: epoch, generation to leave, its tag, whether that tag is in flight: 'in', 'out' or 'any', generation to stand at, its tag
local refusal = fenced()
if refusal then return refusal end
if redis.call('HGET', KEYS[2], 'gen') ~= ARGV[2] then return {'changed', {}} end
if ARGV[4] ~= 'any' and (redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1) ~= (ARGV[4] == 'in') then
  return {'changed', {}}
end
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[3])
redis.call('HSET', KEYS[2], 'gen', ARGV[5], 'tag', ARGV[6], 'state', 'withdrawn')
redis.call('DEL', KEYS[2] .. ':message')
return {'retired', {}}
