-- KEYS: unacked, lease, note, lists of what is published.
-- ARGV: tag, holder of the lease, '1' for a success, seconds the note is kept, how many results, their keys and
-- documents in turns, messages in the order of the lists
-- Where results are kept elsewhere: publishes what follows a run, and notes its results, in one step. Answers whether
-- the outcome counts, and what is noted, now or by an earlier run.
local noted = redis.call('HGETALL', KEYS[3])
if #noted > 0 then return {1, noted} end
local _, decides = position(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if not decides and ARGV[3] ~= '1' then return {0, {}} end
local results = tonumber(ARGV[5])
for i = 1, results do redis.call('HSET', KEYS[3], ARGV[4 + 2 * i], ARGV[5 + 2 * i]) end
redis.call('EXPIRE', KEYS[3], ARGV[4])
for i = 4, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[2 + 2 * results + i]) end
return {1, redis.call('HGETALL', KEYS[3])}
