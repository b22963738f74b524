-- KEYS: what Celery keeps of a chord's parts: claim, records, further parts, size, counted parts.
-- ARGV: name of the caller, '1' if the body was sent, seconds that this is noted
-- Gives a claim up. As CHORD_CLEANUP_LUA of Celery 5.7 it removes what was counted when the body was sent.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', unpack(KEYS, 1, ARGV[2] == '1' and 5 or 1))
if ARGV[2] == '1' then redis.call('SETEX', KEYS[1], ARGV[3], 'done') end
return 1
