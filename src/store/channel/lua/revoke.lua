-- KEYS: result, [lease]. ARGV: seconds it is kept (0: for good), document, then those of `told`
-- Stores that a task is revoked, unless a worker has begun it, as far as its result and its lease tell.
told = 3
local question = unread(1, 1)
if question then return question end
local before = status(KEYS[1])
if before and before ~= 'RECEIVED' and before ~= 'RETRY' and before ~= 'REJECTED' then return 0 end
if not before and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
store(KEYS[1], ARGV[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
