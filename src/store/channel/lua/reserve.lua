-- KEYS: unacked, unacked_index, quarantine, note of the asker, lists in the order in which they are looked through.
-- ARGV: how many elements the quarantine keeps, seconds that the note is kept, the tag of the last message the asker got
-- Takes the oldest message of the first list that has one, off the list and in flight in one step: no crash loses it.
-- What could not be acknowledged is no message; it goes into quarantine. An asker that did not get the last answer gets
-- the same message again, as it stands in flight.
--
-- Redis serves nothing else meanwhile, so only the properties of a message are looked at, which kombu writes last, and
-- strings are stepped over from quote to quote.
local NEAR_THE_END = 16384

-- The position after the string that begins at `at`.
local function after_string(text, at)
  local before
  repeat
    at = string.find(text, '"', at + 1, true)
    if not at then return nil end
    before = at - 1
    while string.byte(text, before) == 92 do before = before - 1 end
  until (at - before) % 2 == 1
  return at + 1
end

-- The position after the value that begins at `at`.
local function after_value(text, at)
  local first, depth = string.byte(text, at), 0
  if first == 34 then return after_string(text, at) end
  if first ~= 123 and first ~= 91 then return string.find(text, '[,}%]%s]', at) end
  repeat
    at = string.find(text, '["{}%[%]]', at)
    local byte = at and string.byte(text, at)
    if byte == 34 then
      at = after_string(text, at)
    elseif byte then
      depth = depth + ((byte == 123 or byte == 91) and 1 or -1)
      at = at + 1
    end
  until depth == 0 or not at
  return at
end

-- Where the value of each member begins and ends of the object that begins at `at`, and the position after it.
local function members(text, at)
  local found = {}
  local empty = string.match(text, '^{%s*}()', at)
  if empty then return found, empty end
  at = string.match(text, '^{%s*()"', at)
  while at do
    local name_ends = after_string(text, at)
    local value = name_ends and string.match(text, '^%s*:%s*()', name_ends)
    local value_ends = value and after_value(text, value)
    if not value_ends then return nil end
    found[string.sub(text, at + 1, name_ends - 2)] = {value, value_ends - 1}
    at = string.match(text, '^%s*,%s*()"', value_ends)
    if not at then
      local ends = string.match(text, '^%s*}()', value_ends)
      return ends and found, ends
    end
  end
end

-- The last place where properties are named near the end of a message, and the text that it is in.
local function near_the_end(element)
  local tail, at, last = string.sub(element, -NEAR_THE_END), 0, nil
  repeat
    at = string.find(tail, '"properties"', at + 1, true)
    last = at or last
  until not at
  return tail, last
end

-- The properties of a message: the text that they are in, and their members.
local function properties(element, tail, at)
  local object = at and string.match(tail, '^"properties"%s*:%s*(){', at)
  if object then
    local found, ends = members(tail, object)
    -- Those of the message, not of something in it: only the end of the message follows.
    if found and string.find(tail, '^%s*}%s*$', ends) then return tail, found end
  end
  local all = members(element, string.find(element, '{', 1, true))
  object = all and all.properties
  return element, object and members(element, object[1])
end

-- The text of a member that is a string, quotes included.
local function quoted(text, found, name)
  local value = found and found[name]
  return value and string.byte(text, value[1]) == 34 and string.sub(text, value[1], value[2]) or '""'
end

-- The delivery tag of a message, and what is noted behind the message: exchange and routing key.
local function address(element)
  if not string.find(element, '^%s*{') then return nil end
  local tail, at = near_the_end(element)
  -- As kombu writes them: with one object in them, at the very end. What cjson refuses is read below.
  local usual = at and string.match(tail, '^"properties": ({[^{}]*{[^{}]*}[^{}]*})}$', at)
  local ok, read = pcall(cjson.decode, usual)
  local info = ok and read.delivery_info
  if type(info) == 'table' and type(read.delivery_tag) == 'string' and read.delivery_tag ~= '' and
    type(info.exchange) == 'string' and type(info.routing_key) == 'string' then
    return read.delivery_tag, ', ' .. cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key) .. ']'
  end
  local text, found = properties(element, tail, at)
  local readable, tag = pcall(cjson.decode, '[' .. quoted(text, found, 'delivery_tag') .. ']')
  if not readable or tag[1] == '' then return nil end
  info = found.delivery_info and members(text, found.delivery_info[1])
  return tag[1], ', ' .. quoted(text, info, 'exchange') .. ', ' .. quoted(text, info, 'routing_key') .. ']'
end

-- Of a message that the asker was given: when, how many bytes it has, and its tag. A worker that has taken it since has
-- done so at another time.
local at, size, given = string.match(redis.call('GET', KEYS[4]) or '', '^(%S+) (%d+) (.*)$')
if given and given ~= ARGV[3] and tonumber(redis.call('ZSCORE', KEYS[2], given)) == tonumber(at) then
  local value = redis.call('HGET', KEYS[1], given)
  if value then return {-2, given, string.sub(value, 2, 1 + size), 0} end
end

local refused = 0
for i = 5, #KEYS do
  local element = redis.call('RPOP', KEYS[i])
  while element do
    local tag, rest = address(element)
    if tag then
      local now = redis.call('TIME')
      local score = now[1] .. '.' .. string.format('%06d', now[2])
      redis.call('ZADD', KEYS[2], score, tag)
      redis.call('HSET', KEYS[1], tag, '[' .. element .. rest)
      redis.call('SETEX', KEYS[4], ARGV[2], score .. ' ' .. #element .. ' ' .. tag)
      return {i - 5, tag, element, refused}
    end
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*', 'list', KEYS[i], 'element', element)
    refused = refused + 1
    element = redis.call('RPOP', KEYS[i])
  end
end
return {-1, '', '', refused}
