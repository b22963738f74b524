-- KEYS: the watcher of each queue, then the lists from which idle workers of each are woken. ARGV: watcher, milliseconds
-- that these lists are kept
-- Ends this worker's watch, and has an idle worker take it over.
local queues = #KEYS / 2
for i = 1, queues do
  if redis.call('GET', KEYS[i]) == ARGV[1] then
    redis.call('DEL', KEYS[i])
    redis.call('LPUSH', KEYS[queues + i], '')
    redis.call('PEXPIRE', KEYS[queues + i], ARGV[2])
  end
end
return queues
