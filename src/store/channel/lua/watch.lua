-- KEYS: the workers that live, the watcher of each queue, lists of the queues. ARGV: watcher, milliseconds, how many
-- queues
-- Makes this worker the one that watches the queues that no other worker watches, for so long. Answers how many workers
-- there are, for each queue whether this one watches it, and whether a message waits.
local queues, mine = tonumber(ARGV[3]), {}
for i = 1, queues do
  local key = KEYS[1 + i]
  local watcher = redis.call('GET', key)
  mine[i] = (not watcher or watcher == ARGV[1]) and 1 or 0
  if mine[i] == 1 then
    -- After this a full Redis does not refuse what follows.
    redis.call('DEL', key)
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  end
end
local waits = 0
for i = 2 + queues, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then waits = 1 end
end
return {redis.call('ZCOUNT', KEYS[1], '-inf', '+inf'), mine, waits}
