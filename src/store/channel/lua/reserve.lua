-- KEYS: unacked, unacked_index, quarantine, note of the asker, lists in the order in which they are looked through.
-- ARGV: how many elements the quarantine keeps, seconds that the note is kept, the tag of the last message the asker got
-- Takes the oldest message of the first list that has one, off the list and in flight in one step: no crash loses it.
-- What could not be acknowledged is no message; it goes into quarantine. An asker that did not get the last answer gets
-- the same message again, as it stands in flight.
local function text(value) return type(value) == 'string' and value or '' end

local function address(element)
  local ok, message = pcall(cjson.decode, element)
  local properties = ok and type(message) == 'table' and message.properties
  if type(properties) ~= 'table' or text(properties.delivery_tag) == '' then return nil end
  local info = type(properties.delivery_info) == 'table' and properties.delivery_info or {}
  return properties.delivery_tag, text(info.exchange), text(info.routing_key)
end

local function noted(exchange, routing_key)
  return ', ' .. cjson.encode(exchange) .. ', ' .. cjson.encode(routing_key) .. ']'
end

local given = redis.call('GET', KEYS[4])
if given and given ~= ARGV[3] then
  local value = redis.call('HGET', KEYS[1], given)
  local ok, unacked = pcall(cjson.decode, value or '')
  local rest = ok and noted(unacked[2], unacked[3]) or ''
  -- A worker that has taken it since has noted it in another way.
  if rest ~= '' and string.sub(value, -#rest) == rest then
    return {-2, given, string.sub(value, 2, -#rest - 1), 0}
  end
end

local refused = 0
for i = 5, #KEYS do
  local element = redis.call('RPOP', KEYS[i])
  while element do
    local tag, exchange, routing_key = address(element)
    if tag then
      local now = redis.call('TIME')
      redis.call('ZADD', KEYS[2], now[1] .. '.' .. string.format('%06d', now[2]), tag)
      redis.call('HSET', KEYS[1], tag, '[' .. element .. noted(exchange, routing_key))
      redis.call('SETEX', KEYS[4], ARGV[2], tag)
      return {i - 5, tag, element, refused}
    end
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[1], '*', 'list', KEYS[i], 'element', element)
    refused = refused + 1
    element = redis.call('RPOP', KEYS[i])
  end
end
return {-1, '', '', refused}
