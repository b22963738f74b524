-- KEYS: fence, marker, list, [result]
local refusal = fenced()
if refusal then return refusal end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'already', marker(KEYS[2])} end
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 then return {'result', {}} end
return forbidden(publishing()) or publish()
