-- KEYS: lease, [result]. ARGV: holder ('' to look only), milliseconds, how much of the result is of interest
-- Takes the lease on a task, or only looks for it. Answers what is left of the lease of another run, in
-- milliseconds (never 0), or 0 and the beginning of the result.
local function taken()
  if ARGV[1] == '' then return redis.call('EXISTS', KEYS[1]) == 0 end
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('GET', KEYS[1]) == ARGV[1] end
  -- A full Redis refuses what takes memory, unless the script has written before. A task that ends frees its message.
  redis.call('DEL', KEYS[1])
  return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end

if not taken() then
  local remaining = redis.call('PTTL', KEYS[1])
  return {remaining == 0 and 1 or remaining, ''}
end
return {0, KEYS[2] and redis.call('GETRANGE', KEYS[2], 0, ARGV[3]) or ''}
