-- KEYS: fence, marker, list, unacked, unacked_index, [result]
-- ARGV: those of publish(), 11 generation to leave or '' for no marker, 12 whether to clear a failure, 13 tag to leave,
-- 14 whether that tag is in flight: 'in', 'out' or 'any'
local refusal = fenced()
if refusal then return refusal end
local gen = redis.call('HGET', KEYS[2], 'gen') or ''
if gen ~= ARGV[11] then
  return gen == '' and {'changed', {}} or {'superseded', marker(KEYS[2])}
end
if ARGV[14] ~= 'any' and (redis.call('HEXISTS', KEYS[4], ARGV[13]) == 1) ~= (ARGV[14] == 'in') then
  return {'changed', {}}
end
if KEYS[6] and not clear(KEYS[6], ARGV[12]) then return {'ended', {}} end
redis.call('ZREM', KEYS[5], ARGV[13])
redis.call('HDEL', KEYS[4], ARGV[13])
return publish()
