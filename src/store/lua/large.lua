-- KEYS: list, stream. ARGV: position, its size if it is to be moved to the stream, how many the stream keeps
-- Whether the element there, which is too large to be looked at elsewhere, is a message as far as its ends tell: 'message',
-- 'poison' or, when it was moved, 'moved'. False where there is none, or another one than the one to be moved.
local element = redis.call('LINDEX', KEYS[1], ARGV[1])
if not element then return false end
-- kombu writes the properties last.
local tail = string.sub(element, -65536)
if string.find(element, '^%s*{') and string.find(tail, '"delivery_tag"', 1, true) then return 'message' end
if not ARGV[2] then return 'poison' end
if #element ~= tonumber(ARGV[2]) then return false end
redis.call('LSET', KEYS[1], ARGV[1], 'crewjob: quarantined')
redis.call('LREM', KEYS[1], 1, 'crewjob: quarantined')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'list', KEYS[1], 'element', element)
return 'moved'
