-- KEYS: fence, marker. ARGV: epoch, generation, [the message]
local refusal = fenced()
if refusal then return refusal end
local seen = redis.call('HMGET', KEYS[2], 'gen', 'state', 'list')
if seen[1] ~= ARGV[2] then return {'absent', {}} end
if seen[2] == 'withdrawn' then return {'removed', {}} end
local message = ARGV[3] or redis.call('GET', KEYS[2] .. ':message')
if not message then return {'large', {seen[3]}} end
-- The oldest messages are at the tail.
if redis.call('LREM', seen[3], -1, message) == 0 then return {'absent', {}} end
redis.call('HSET', KEYS[2], 'state', 'withdrawn')
redis.call('DEL', KEYS[2] .. ':message')
return {'removed', {}}
