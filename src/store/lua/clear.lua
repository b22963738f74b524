-- KEYS: fence (unused), result. ARGV: epoch (unused), whether to clear a failure
return clear(KEYS[2], ARGV[2]) and 0 or 1
