-- KEYS: unacked, unacked_index, lease, note. ARGV: tag, holder of the lease
-- Acknowledges a message whose results are kept elsewhere by now. If another run has the lease, that run does it.
local mine = position(KEYS[1], KEYS[3], ARGV[1], ARGV[2])
if mine then
  acknowledge(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
  redis.call('DEL', KEYS[4])
end
return mine and 1 or 0
