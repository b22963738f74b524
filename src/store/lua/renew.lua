-- KEYS: unacked_index. ARGV: delivery tags. Their holders live: their messages count as just taken.
local now = redis.call('TIME')
local score = now[1] .. '.' .. string.format('%06d', now[2])
local renewed = 0
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('ZREM', KEYS[1], '')
for _, tag in ipairs(ARGV) do
  renewed = renewed + redis.call('ZADD', KEYS[1], 'XX', 'GT', 'CH', score, tag)
end
return renewed
