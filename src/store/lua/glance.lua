-- KEYS: lists. ARGV: bytes of an element's end that are looked at. Of each list: its length, and which elements are its
-- ends. The delivery tag, which no two messages share, is written near the end of a message.
local function of(element)
  return element and #element .. ':' .. redis.sha1hex(string.sub(element, -tonumber(ARGV[1]))) or ''
end

local seen = {}
for i, list in ipairs(KEYS) do
  seen[i] = {redis.call('LLEN', list), of(redis.call('LINDEX', list, 0)), of(redis.call('LINDEX', list, -1))}
end
return seen
