-- KEYS: unacked, unacked_index, then a marker and its message for each attempt that is over.
-- What is left of the message in flight goes too: kombu would restore it after the visibility timeout.
for i = 3, #KEYS, 2 do
  local tag = redis.call('HGET', KEYS[i], 'tag')
  if tag then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[1], tag)
  end
  redis.call('DEL', KEYS[i], KEYS[i + 1])
end
return 0
