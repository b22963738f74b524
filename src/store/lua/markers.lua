-- KEYS: markers. ARGV: largest value of a field, then the fields
-- Answers for each marker its fields, or false where there is none, or something that no operator has written.
local answer = {}
for i, key in ipairs(KEYS) do
  local values = redis.pcall('HMGET', key, unpack(ARGV, 2))
  if values.err then
    if not string.find(values.err, '^WRONGTYPE') then return values end
    values = false
  else
    local is_there = false
    for _, value in ipairs(values) do
      if value and #value > tonumber(ARGV[1]) then is_there = false break end
      is_there = is_there or value
    end
    values = is_there and values
  end
  answer[i] = values
end
return answer
