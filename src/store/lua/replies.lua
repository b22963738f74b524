-- KEYS: list. ARGV: largest reply, how many bytes to take at once
-- Takes replies from a list; what no worker would say is thrown away.
local answer, total = {}, 0
while total < tonumber(ARGV[2]) do
  local reply = redis.call('RPOP', KEYS[1])
  if not reply then break end
  if #reply <= tonumber(ARGV[1]) then
    answer[#answer + 1] = reply
    total = total + #reply
  end
end
return answer
