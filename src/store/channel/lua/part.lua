-- KEYS: what Celery keeps of a chord's parts: records, further parts, size, counted parts, group, claim.
-- ARGV: task, its record, its position, seconds that all of it is kept (0: for good), name of the caller, seconds that its
-- claim is kept
-- Counts a part of a chord once, as CHORD_PART_RETURN_LUA of Celery 5.7 does. Answers 'complete' to the one caller that is
-- to send the body, 'claimed' while another one does that, else 'going'.
local claim = redis.call('GET', KEYS[6])
if claim == 'done' then return 'going' end
if redis.call('SADD', KEYS[4], ARGV[1] .. ':' .. ARGV[3]) == 1 then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2]) end
if ARGV[4] ~= '0' then
  for i = 1, 5 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
end
local size = redis.call('GET', KEYS[3])
local ended = redis.call('ZCOUNT', KEYS[1], '-inf', '+inf')
if not size or ended ~= tonumber(size) + tonumber(redis.call('GET', KEYS[2]) or 0) then return 'going' end
if claim == ARGV[5] or redis.call('SET', KEYS[6], ARGV[5], 'NX', 'EX', ARGV[6]) then return 'complete' end
return 'claimed'
