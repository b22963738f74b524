-- Taking the next message, for reserve.lua and settle.lua.
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

-- Whether it is a text in UTF-8, and not empty.
local function is_text(value)
  if type(value) ~= 'string' or value == '' then return false end
  if not string.find(value, '[\128-\255]') then return true end
  local next = '[\128-\191]'
  local rest = string.gsub(value, '[\240-\244]' .. next .. next .. next, '')
  rest = string.gsub(rest, '[\224-\239]' .. next .. next, '')
  rest = string.gsub(rest, '[\194-\223]' .. next, '')
  return not string.find(rest, '[\128-\255]')
end

-- The delivery tag of a message, what is noted behind the message: exchange and routing key, and its properties where they
-- are written as kombu does.
local function address(element)
  if not string.find(element, '^%s*{') then return nil end
  local tail, at = near_the_end(element)
  -- As kombu and this project write them: with one object in them, at the very end. What cjson refuses is read below.
  local usual = at and string.match(tail, '^"properties": ?({[^{}]*{[^{}]*}[^{}]*})}$', at)
  local ok, read = pcall(cjson.decode, usual)
  local info = ok and read.delivery_info
  if type(info) == 'table' and is_text(read.delivery_tag) and
    type(info.exchange) == 'string' and type(info.routing_key) == 'string' then
    return read.delivery_tag, ', ' .. cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key) .. ']', read
  end
  local text, found = properties(element, tail, at)
  local readable, tag = pcall(cjson.decode, '[' .. quoted(text, found, 'delivery_tag') .. ']')
  if not readable or not is_text(tag[1]) then return nil end
  info = found.delivery_info and members(text, found.delivery_info[1])
  return tag[1], ', ' .. quoted(text, info, 'exchange') .. ', ' .. quoted(text, info, 'routing_key') .. ']'
end

-- Takes the oldest message of the first list that has one, off the list and in flight in one step: no crash loses it.
-- What could not be acknowledged is no message; it goes into quarantine. An asker that did not get the last answer gets
-- the same message again, as it stands in flight.
--
-- `keys` are the quarantine, the note of the asker, the set of the messages that its worker has, the lists in the order in
-- which they are looked through: by band, then by queue; then the list from which idle workers of each queue are woken. The
-- lease and the result of the task are keys, too, which only its message names. `args` are how many elements the quarantine
-- keeps, seconds that the note is kept, the tag of the last message the asker got, how many queues there are, milliseconds
-- that a wake-up is kept, the holder of a lease ('' to take none), its milliseconds, how much of a result is of interest,
-- and what goes before a task's id in the keys of its lease and its result.
--
-- Answers the position of the list (-1: no message, -2: one that was given before), tag, message, how many elements were
-- refused, and where the task may begin and its lease was free: its id, and the beginning of its result.
local function take(unacked, unacked_index, keys, args)
  local quarantine, note, held, queues = keys[1], keys[2], keys[3], tonumber(args[4])
  local lists = #keys - queues

  -- The lease of a task that may begin at once, as far as can be told from its message. Its worker looks closer.
  local function begin(element, properties)
    local id = properties and properties.correlation_id
    if args[6] == '' or not is_text(id) or properties.delivery_info.redelivered == true
      or not (string.find(element, '"eta": null', 1, true) or string.find(element, '"eta":null', 1, true)) then
      return '', ''
    end
    local lease = args[9] .. id
    local holder, head = redis.pcall('GET', lease), redis.pcall('GETRANGE', args[10] .. id, 0, args[8])
    if (holder and holder ~= args[6]) or type(head) ~= 'string' then return '', '' end
    redis.call('SET', lease, args[6], 'PX', args[7])
    return id, head
  end

  -- Wakes one idle worker if there is another message, which wakes the next one.
  local function wake(from)
    for i = from, lists do
      if redis.call('EXISTS', keys[i]) == 1 then
        local list = keys[lists + 1 + (i - 4) % queues]
        if redis.call('EXISTS', list) == 0 then
          redis.call('LPUSH', list, '')
          redis.call('PEXPIRE', list, args[5])
        end
        return
      end
    end
  end

  -- Of a message that the asker was given: when, how many bytes it has, and its tag. A worker that has taken it since has
  -- done so at another time.
  local at, size, given = string.match(redis.call('GET', note) or '', '^(%S+) (%d+) (.*)$')
  if given and given ~= args[3] and tonumber(redis.call('ZSCORE', unacked_index, given)) == tonumber(at) then
    local value = redis.call('HGET', unacked, given)
    if value then
      local element = string.sub(value, 2, 1 + size)
      local _, _, properties = address(element)
      return {-2, given, element, 0, begin(element, properties)}
    end
  end

  local refused = 0
  for i = 4, lists do
    local element = redis.call('RPOP', keys[i])
    while element do
      local tag, rest, properties = address(element)
      if tag then
        local now = redis.call('TIME')
        local score = now[1] .. '.' .. string.format('%06d', now[2])
        redis.call('ZADD', unacked_index, score, tag)
        redis.call('HSET', unacked, tag, '[' .. element .. rest)
        redis.call('SADD', held, tag)
        redis.call('SETEX', note, args[2], score .. ' ' .. #element .. ' ' .. tag)
        wake(i)
        return {i - 4, tag, element, refused, begin(element, properties)}
      end
      redis.call('XADD', quarantine, 'MAXLEN', '~', args[1], '*', 'list', keys[i], 'element', element)
      refused = refused + 1
      element = redis.call('RPOP', keys[i])
    end
  end
  return {-1, '', '', refused, '', ''}
end

-- What `take` is given, of the keys and arguments from these positions on.
local function rest(values, from)
  local found = {}
  for i = from, #values do found[i - from + 1] = values[i] end
  return found
end

