-- KEYS: unacked, unacked_index, then those of `take`. ARGV: '1' to take nothing while Redis is full, then those of `take`
-- As the result of a task may be larger than its message, a worker that has seen this takes none while Redis is full.
if ARGV[1] == '1' then
  local refusal = redis.pcall('ZADD', KEYS[2], 'XX', 0, '')
  if type(refusal) == 'table' then return refusal end
end
return take(KEYS[1], KEYS[2], rest(KEYS, 3), rest(ARGV, 2))
