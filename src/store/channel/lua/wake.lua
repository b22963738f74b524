-- KEYS: the list from which idle workers of a queue are woken. ARGV: milliseconds that it is kept
-- Wakes one idle worker, or the next one that has nothing to do. One of them wakes another if there is more.
if redis.call('EXISTS', KEYS[1]) == 0 then
  -- After this a full Redis does not refuse what follows.
  redis.call('DEL', KEYS[1])
  redis.call('LPUSH', KEYS[1], '')
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 1
