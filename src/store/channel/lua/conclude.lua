-- KEYS: unacked, lease, note, mark, lists of what is published.
-- ARGV: tag, holder of the lease, id of this end, '1' for a success, seconds the note is kept, how many results, their
-- keys and documents in turns, messages in the order of the lists
-- Where results are kept elsewhere: publishes what follows a run, and notes its results, in one step. Answers whether
-- the outcome counts, and what is noted, now or by an earlier run.
local noted = redis.call('HGETALL', KEYS[3])
if #noted > 0 then return {1, noted} end
local before = marked(KEYS[4], ARGV[3])
if before == '1' then return {1, {}} end
local _, decides = position(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if not before and not decides and ARGV[4] ~= '1' then return {0, {}} end
local results = tonumber(ARGV[6])
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('HDEL', KEYS[1], '')
local refusal = publish(#KEYS - 4, 5, 7 + 2 * results, KEYS[4], ARGV[3], before)
if refusal then return refusal end
for i = 1, results do redis.call('HSET', KEYS[3], ARGV[5 + 2 * i], ARGV[6 + 2 * i]) end
redis.call('EXPIRE', KEYS[3], ARGV[5])
note_end(KEYS[4], ARGV[3], '1')
return {1, redis.call('HGETALL', KEYS[3])}
