-- KEYS: result. ARGV: seconds it is kept (0: for good), document, then those of `told`
-- Stores a state that is not an end. What has ended, or is to end, is left alone.
told = 3
local question = unread(1, 1)
if question then return question end
local before = status(KEYS[1])
if before == 'SUCCESS' or before == 'FAILURE' or before == 'REVOKED' then return 0 end
store(KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
