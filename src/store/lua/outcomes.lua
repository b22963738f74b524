-- KEYS: results. ARGV: largest document to send whole, most bytes to send at once
-- Answers for as many keys as fit: false where there is none, the document, or its size where it is larger.
local answer, total = {}, 0
for i, key in ipairs(KEYS) do
  local size = redis.call('STRLEN', key)
  if size == 0 then
    answer[i] = false
  elseif size > tonumber(ARGV[1]) then
    answer[i] = size
  else
    total = total + size
    if total > tonumber(ARGV[2]) and i > 1 then break end
    answer[i] = redis.call('GET', key)
  end
end
return answer
