-- KEYS: unacked, unacked_index, lease, lists. ARGV: tag, message, latest time of receipt ('' for any), holder of lease
-- Puts a message back so that it is taken next, as kombu does: on the list of each queue that it goes to. Answers 1 if it
-- was in flight. It stays there where one of these is no list.
if ARGV[3] ~= '' then
  local received = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if not received or tonumber(received) > tonumber(ARGV[3]) then return 0 end
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 0
end
-- It was not there when the caller looked for its lists.
if not KEYS[4] then return 0 end
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('ZREM', KEYS[2], '')
for i = 4, #KEYS do
  local refusal = redis.pcall('RPUSH', KEYS[i], ARGV[2])
  if type(refusal) == 'table' then
    for before = 4, i - 1 do redis.call('RPOP', KEYS[before]) end
    return refusal
  end
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[4] ~= '' and redis.call('GET', KEYS[3]) == ARGV[4] then redis.call('DEL', KEYS[3]) end
return 1
