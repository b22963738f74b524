-- KEYS: unacked, markers, [the result for each]. ARGV: largest result to send whole, most bytes to send at once, a delivery
-- tag for each marker
-- Answers for each the generation in the marker, or '', whether a message of that tag is in flight, and where none is, the
-- result, or its size where it is too large.
local count, answer, total = #ARGV - 2, {}, 0
for i = 1, count do
  local gen = redis.pcall('HGET', KEYS[i + 1], 'gen')
  local in_flight, result, document = redis.call('HEXISTS', KEYS[1], ARGV[i + 2]), KEYS[count + i + 1], false
  local size = in_flight == 0 and result and redis.pcall('STRLEN', result)
  if type(size) == 'number' and size > 0 then
    total = total + size
    document = size
    if size <= tonumber(ARGV[1]) and total <= tonumber(ARGV[2]) then document = redis.call('GET', result) end
  end
  answer[i] = {type(gen) == 'string' and gen or '', in_flight, document}
end
return answer
