-- KEYS: result, [lease]. ARGV: seconds it is kept (0: for good), document
-- Stores that a task is revoked that nobody has begun, as far as its result and its lease tell.
local state = string.match(redis.call('GETRANGE', KEYS[1], 0, 255), '^%s*{%s*"status"%s*:%s*"([^"]*)"')
if state and state ~= 'RECEIVED' and state ~= 'RETRY' and state ~= 'REJECTED' then return 0 end
if not state and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if ARGV[1] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
