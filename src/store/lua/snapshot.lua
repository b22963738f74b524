-- KEYS: fence, unacked, lists. ARGV: in-flight entries, and bytes of them, to count one by one
local now = redis.call('TIME')

-- Whether a message may run already: it has no time to wait for, or that time has come.
local function due(message)
  -- Finding plain text is many times faster than matching a pattern at every position.
  local at = string.find(message, '"eta":', 1, true)
  local eta = at and string.match(message, '^"eta":%s*"([^"]+)"', at)
  if not eta then return true end
  local y, mo, d, h, mi, s, rest = string.match(eta, '^(%d+)-(%d+)-(%d+)[T ](%d+):(%d+):(%d+)(.*)$')
  if not y then return true end
  y, mo = tonumber(y), tonumber(mo)
  if mo <= 2 then y, mo = y - 1, mo + 12 end
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
    + math.floor((153 * (mo - 3) + 2) / 5) + d - 719469
  local seconds = days * 86400 + h * 3600 + mi * 60 + s
  local sign, oh, om = string.match(rest, '([+-])(%d%d):?(%d%d)$')
  if sign then seconds = seconds - (sign == '-' and -1 or 1) * (oh * 3600 + om * 60) end
  return seconds <= tonumber(now[1])
end

local lengths = {}
for i = 3, #KEYS do lengths[i - 2] = redis.call('LLEN', KEYS[i]) end

-- Some or all of the messages in flight.
local function sample(count)
  local pairs, messages = redis.call('HRANDFIELD', KEYS[2], count, 'WITHVALUES'), {}
  for i = 2, #pairs, 2 do messages[i / 2] = pairs[i] end
  return messages
end

local all = redis.call('HLEN', KEYS[2])
local messages = sample(20)
if all > #messages then
  local bytes = 0
  for _, message in ipairs(messages) do bytes = bytes + #message end
  local affordable = math.floor(tonumber(ARGV[2]) * #messages / bytes)
  messages = sample(math.max(#messages, math.min(tonumber(ARGV[1]), affordable)))
end
local counts, future = {}, 0
for _, message in ipairs(messages) do
  if due(message) then
    -- The value is [envelope, exchange, routing key].
    local key = string.match(string.sub(message, -300), '^.*"([^"]*)"%s*%]%s*$') or ''
    counts[key] = (counts[key] or 0) + 1
  else
    future = future + 1
  end
end
local scale = #messages > 0 and all / #messages or 1
local in_flight = {}
for key, count in pairs(counts) do in_flight[#in_flight + 1] = {key, math.floor(count * scale + 0.5)} end

local fence = redis.pcall('HMGET', KEYS[1], 'created', 'epoch', 'born')
if fence.err then
  if not string.find(fence.err, '^WRONGTYPE') then return fence end
  fence = {false, 'no hash', false}
end
for i, value in ipairs(fence) do fence[i] = value and string.sub(value, 1, 64) end
local memory = redis.call('INFO', 'memory')
local bound = string.match(memory, 'maxmemory:%d+') or ''
local policy = string.match(memory, 'maxmemory_policy:[^\r\n]*') or ''
return {fence, string.format('%d%06d', now[1], now[2]),
  redis.call('INFO', 'server') .. redis.call('INFO', 'replication') .. bound .. '\n' .. policy, lengths, in_flight, math.floor(future * scale + 0.5)}
