-- KEYS: fence, unacked, list, then for each task its marker, the list that its message goes to, and the message of the marker
-- ARGV: epoch, position, how many elements, size up to which a message is kept, then for each task its id, and the
-- priority and Celery's priority of the band that its message goes to, or '' and '' when every copy is to go
-- Answers how many elements have left the list, then for each copy that was taken off its task, its tag, and whether a worker holds another one under that tag.
-- The id of a task's message. Finding plain text is many times faster than matching a pattern at every position.
local function id_of(message)
  local at = string.find(message, '"id":', 1, true)
  return at and string.match(message, '^"id":%s*"([^"]+)"', at)
end

local refusal = fenced()
if refusal then return refusal end
local list = KEYS[3]
local elements = redis.call('LRANGE', list, ARGV[2], ARGV[2] + ARGV[3] - 1)
local wanted = {}
for i = 5, #ARGV, 3 do
  local at = i - 1
  wanted[ARGV[i]] = {marker = KEYS[at], target = KEYS[at + 1], priority = ARGV[i + 1], celery = ARGV[i + 2]}
end
local gone, answer, moved = 0, {}, {}
for i, element in ipairs(elements) do
  local id = id_of(element)
  local it = id and wanted[id]
  if it then
    local tag = string.match(element, '"delivery_tag":%s*"([^"]+)"') or ''
    local seen = redis.call('HMGET', it.marker, 'tag', 'state')
    local leaves = true
    if it.priority == '' then
      local held = redis.call('HEXISTS', KEYS[2], tag) == 1
      -- A copy that no operator has published stands for the delivery in the marker, unless a worker has that one.
      local is_foreign = string.sub(tag, 1, #id) ~= id
      local stands = seen[1] == tag or is_foreign and seen[1] and redis.call('HEXISTS', KEYS[2], seen[1]) == 0
      if not held and stands then
        redis.call('HSET', it.marker, 'state', 'withdrawn')
        redis.call('DEL', it.marker .. ':message')
      end
      answer[#answer + 1] = id
      answer[#answer + 1] = tag
      answer[#answer + 1] = held and '1' or '0'
    elseif seen[1] ~= tag or seen[2] ~= 'queued' then
      leaves = false -- a copy of an earlier delivery
    elseif it.target == list then
      redis.call('HSET', it.marker, 'priority', it.priority)
      leaves = false
    else
      moved[#moved + 1] = {it, element}
    end
    if leaves then
      redis.call('LSET', list, ARGV[2] + i - 1, 'crewjob: withdrawn')
      gone = gone + 1
    end
  end
end
if gone > 0 then redis.call('LREM', list, gone, 'crewjob: withdrawn') end
for _, pair in ipairs(moved) do
  local it, message = pair[1], pair[2]
  -- kombu restores a message to the band of the priority that it carries.
  message = string.gsub(message, '("priority":%s*)%-?%d+', '%1' .. it.celery, 1)
  redis.call('LPUSH', it.target, message)
  redis.call('HSET', it.marker, 'priority', it.priority, 'list', it.target)
  keep(it.marker, message, ARGV[4])
end
table.insert(answer, 1, tostring(gone))
return {'swept', answer}
