-- KEYS: result. ARGV: seconds it is kept (0: for good), document
-- Stores a state that is not an end. What has ended, or is to end, is left alone.
local state = string.match(redis.call('GETRANGE', KEYS[1], 0, 255), '^%s*{%s*"status"%s*:%s*"([^"]*)"')
if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then return 0 end
if ARGV[1] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
