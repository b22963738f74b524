-- KEYS: state. ARGV: run, seconds, version, archive
-- Saves a whole state in place of the one before, unless a later run has begun. Answers when, in milliseconds, or nil.
local run = redis.call('HGET', KEYS[1], 'run')
if run and run ~= ARGV[1] then return false end
local time = redis.call('TIME')
local saved = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'version', ARGV[3], 'saved', saved, 'archive', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return tonumber(saved)
