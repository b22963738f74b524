-- KEYS: state, [state of another job]. ARGV: run, seconds, '1' to begin without a state
-- Makes this run the only one that may save the state. Answers version, time and archive of what is saved, each empty
-- where nothing is; of the other job where this one has saved nothing.
local function read(key)
  local archive = redis.call('HGET', key, 'archive')
  return archive and {redis.call('HGET', key, 'version') or '', redis.call('HGET', key, 'saved') or '', archive}
end
-- A full Redis refuses what takes memory, unless the script has written before.
redis.call('HDEL', KEYS[1], 'run')
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'run', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return read(KEYS[1]) or (KEYS[2] and read(KEYS[2])) or {'', '', ''}
