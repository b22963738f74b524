-- KEYS: state. ARGV: run
-- Deletes the state, unless a later run has begun.
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
