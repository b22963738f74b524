-- KEYS: fence, marker, list, the marker's message, unacked, unacked_index, [result]
-- ARGV: those of publish(), 12 generation to leave or '' for no marker, 13 whether to clear a failure, 14 tag to leave,
-- 15 whether that tag is in flight: 'in', 'out' or 'any', [16 the result where it is compressed, 17 its status]
local refusal = fenced()
if refusal then return refusal end
local gen = redis.call('HGET', KEYS[2], 'gen') or ''
-- Redis may have been emptied after a worker took the message and before it noted that it has it.
local unmarked = gen == '' and ARGV[15] == 'in'
if gen ~= ARGV[12] and not unmarked then
  return gen == '' and {'changed', {}} or {'superseded', marker(KEYS[2])}
end
if ARGV[15] ~= 'any' and (redis.call('HEXISTS', KEYS[5], ARGV[14]) == 1) ~= (ARGV[15] == 'in') then
  return {'changed', {}}
end
local needed = publishing()
needed[#needed + 1] = {'zrem', KEYS[6], ''}
needed[#needed + 1] = {'hdel', KEYS[5], ''}
if KEYS[7] then needed[#needed + 1] = {'del', KEYS[7]} end
local missing = forbidden(needed)
if missing then return missing end
if KEYS[7] and not clear(KEYS[7], ARGV[13], ARGV[16], ARGV[17]) then return {'ended', {}} end
redis.call('ZREM', KEYS[6], ARGV[14])
redis.call('HDEL', KEYS[5], ARGV[14])
return publish()
