-- KEYS: list. ARGV: position, how many elements, task id. Answers how many there were, and the message if it is here.
-- The id of a task's message. Finding plain text is many times faster than matching a pattern at every position.
local function id_of(message)
  local at = string.find(message, '"id":', 1, true)
  return at and string.match(message, '^"id":%s*"([^"]+)"', at)
end

local elements = redis.call('LRANGE', KEYS[1], ARGV[1], ARGV[1] + ARGV[2] - 1)
for _, element in ipairs(elements) do
  if id_of(element) == ARGV[3] then return {#elements, element} end
end
return {#elements, false}
