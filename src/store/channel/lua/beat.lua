-- KEYS: workers, the tags that this one has. ARGV: this worker, seconds that its tags are kept, how many tags it has no more,
-- these, tags that it has
-- Says that a worker lives, and which messages it has. What it has taken meanwhile is noted already, and stays so. Answers
-- whether any tag is noted.
local now = redis.call('TIME')
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('ZREM', KEYS[1], '')
redis.call('ZADD', KEYS[1], now[1] .. '.' .. string.format('%06d', now[2]), ARGV[1])
for i = 4, #ARGV do redis.call(i < 4 + ARGV[3] and 'SREM' or 'SADD', KEYS[2], ARGV[i]) end
return redis.call('EXPIRE', KEYS[2], ARGV[2])
