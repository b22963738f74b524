-- KEYS: fence, marker, list, unacked, unacked_index, [result]
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
if ARGV[15] ~= 'any' and (redis.call('HEXISTS', KEYS[4], ARGV[14]) == 1) ~= (ARGV[15] == 'in') then
  return {'changed', {}}
end
local needed = publishing()
needed[#needed + 1] = {'zrem', KEYS[5], ''}
needed[#needed + 1] = {'hdel', KEYS[4], ''}
if KEYS[6] then needed[#needed + 1] = {'del', KEYS[6]} end
local missing = forbidden(needed)
if missing then return missing end
if KEYS[6] and not clear(KEYS[6], ARGV[13], ARGV[16], ARGV[17]) then return {'ended', {}} end
redis.call('ZREM', KEYS[5], ARGV[14])
redis.call('HDEL', KEYS[4], ARGV[14])
return publish()
