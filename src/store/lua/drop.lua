-- KEYS: fence, marker, unacked, unacked_index. ARGV: epoch, generation, tag to leave
-- Takes one copy of a message out of what is in flight, as long as the attempt is at this generation.
local refusal = fenced()
if refusal then return refusal end
local gen = redis.call('HGET', KEYS[2], 'gen')
if gen and gen ~= ARGV[2] then return {'changed', {}} end
redis.call('ZREM', KEYS[4], ARGV[3])
redis.call('HDEL', KEYS[3], ARGV[3])
return {'dropped', {}}
