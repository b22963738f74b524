-- KEYS: fence, marker. ARGV: epoch, then fields and values of the marker
local refusal = fenced()
if refusal then return refusal end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'kept', {}} end
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return {'carried', {}}
