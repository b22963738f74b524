-- KEYS: fence, marker, list to move to, the marker's message
-- ARGV: epoch, generation, priority, Celery's priority, size up to which a message is kept, queue of that list
local refusal = fenced()
if refusal then return refusal end
local seen = redis.call('HMGET', KEYS[2], 'gen', 'state', 'list', 'queue')
if seen[1] ~= ARGV[2] or seen[2] ~= 'queued' then return {'absent', {}} end
if seen[4] ~= ARGV[6] then return {'elsewhere', {seen[4]}} end
if seen[3] == KEYS[3] then
  -- Other bytes in the same band would cost the message its place.
  redis.call('HSET', KEYS[2], 'priority', ARGV[3])
  return {'moved', {}}
end
local message = redis.call('GET', KEYS[2] .. ':message')
if not message then return {'large', {}} end
if redis.call('LREM', seen[3], -1, message) == 0 then return {'absent', {}} end
-- kombu restores a message to the band of the priority that it carries.
message = string.gsub(message, '("priority":%s*)%-?%d+', '%1' .. ARGV[4], 1)
redis.call('LPUSH', KEYS[3], message)
redis.call('HSET', KEYS[2], 'priority', ARGV[3], 'list', KEYS[3])
keep(KEYS[2], message, ARGV[5])
return {'moved', {}}
