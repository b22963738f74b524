-- KEYS: fence (unused), result
-- ARGV: epoch (unused), whether to clear a failure, [the result where it is compressed, its status]
return clear(KEYS[2], ARGV[2], ARGV[3], ARGV[4]) and 0 or 1
