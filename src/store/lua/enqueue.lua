-- KEYS: fence, marker, list, the marker's message, [result]
local refusal = fenced()
if refusal then return refusal end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'already', marker(KEYS[2])} end
if KEYS[5] and redis.call('EXISTS', KEYS[5]) == 1 then return {'result', {}} end
return forbidden(publishing()) or publish()
