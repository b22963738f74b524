-- KEYS: fence, marker, its message. ARGV: epoch, generation
local refusal = fenced()
if refusal then return refusal end
local seen = redis.call('HMGET', KEYS[2], 'gen', 'state', 'list')
if seen[1] ~= ARGV[2] then return {'absent', {}} end
if seen[2] == 'withdrawn' then return {'removed', {}} end
local message = redis.call('GET', KEYS[2] .. ':message')
local missing = forbidden({{'lrem', seen[3], '0', ''}, {'hset', KEYS[2], '', ''}, {'del', KEYS[2] .. ':message'}})
if missing then return missing end
-- The oldest messages are at the tail.
if not message or redis.call('LREM', seen[3], -1, message) == 0 then return {'absent', {}} end
redis.call('HSET', KEYS[2], 'state', 'withdrawn')
redis.call('DEL', KEYS[2] .. ':message')
return {'removed', {}}
