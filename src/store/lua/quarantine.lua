-- KEYS: list, stream. ARGV: the element, how many the stream keeps
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'list', KEYS[1], 'element', ARGV[1])
return 1
