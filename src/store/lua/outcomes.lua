-- KEYS: results. ARGV: largest document to send, most bytes to send at once
-- Answers for as many keys as fit: false where there is none, the document, or {size, its beginning}.
local answer, total = {}, 0
for i, key in ipairs(KEYS) do
  local size = redis.call('STRLEN', key)
  if size == 0 then
    answer[i] = false
  elseif size > tonumber(ARGV[1]) then
    answer[i] = {size, redis.call('GETRANGE', key, 0, 255)}
  else
    total = total + size
    if total > tonumber(ARGV[2]) and i > 1 then break end
    answer[i] = redis.call('GET', key)
  end
end
return answer
