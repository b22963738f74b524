-- KEYS: fence, unacked, list, markers. ARGV: epoch, position, how many elements, task ids in the order of the markers
-- Removes every copy of these tasks from one stretch of a list. Answers how many elements were there, then for each
-- removed copy its task and whether a worker holds another one under the same tag.
-- The id of a task's message. Finding plain text is many times faster than matching a pattern at every position.
local function id_of(message)
  local at = string.find(message, '"id":', 1, true)
  return at and string.match(message, '^"id":%s*"([^"]+)"', at)
end

local refusal = fenced()
if refusal then return refusal end
local elements = redis.call('LRANGE', KEYS[3], ARGV[2], ARGV[2] + ARGV[3] - 1)
local wanted = {}
for i = 4, #ARGV do wanted[ARGV[i]] = KEYS[i] end
local gone, answer = 0, {tostring(#elements)}
for i, element in ipairs(elements) do
  local id = id_of(element)
  local key = id and wanted[id]
  if key then
    local tag = string.match(element, '"delivery_tag":%s*"([^"]+)"')
    local held = tag and redis.call('HEXISTS', KEYS[2], tag) == 1
    if not held and redis.call('EXISTS', key) == 1 then
      redis.call('HSET', key, 'state', 'withdrawn')
      redis.call('DEL', key .. ':message')
    end
    redis.call('LSET', KEYS[3], ARGV[2] + i - 1, 'crewjob: withdrawn')
    gone = gone + 1
    answer[#answer + 1] = id
    answer[#answer + 1] = held and '1' or '0'
  end
end
if gone > 0 then redis.call('LREM', KEYS[3], gone, 'crewjob: withdrawn') end
return {'swept', answer}
