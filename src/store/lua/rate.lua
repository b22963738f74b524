-- KEYS: what a caller has used. ARGV: microseconds that one request takes up, requests at once. The twin of core::gateway::rate.
-- Answers whether the request may be made, how many more may be, and, in microseconds, when the next one may and when all are free.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local room = interval * count
local found = redis.pcall('GET', KEYS[1])
-- A value of another type, or no number, is none that this script has written.
local before = type(found) == 'string' and tonumber(found) or now
if not (before >= now) then before = now end
if before > now + room then before = now + room end
local function whole(number) return string.format('%.0f', number) end
local after, allowed = before + interval, 1
if after > now + room then after, allowed = before, 0 end
-- Also where nothing is taken: what was found may be a planted number that would never expire.
redis.call('SET', KEYS[1], whole(after), 'PX', math.ceil((after - now) / 1000) + 1000)
return {allowed, whole(math.floor((room - (after - now)) / interval)), whole(math.max(0, after + interval - now - room)), whole(after - now)}
