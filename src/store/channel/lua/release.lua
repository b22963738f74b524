-- KEYS: unacked, unacked_index, the list of each message. ARGV: RPUSH to be taken next or LPUSH to be taken last, then
-- tag, exchange and routing key of each message
-- Puts messages that have not run back on the lists that they came from, as they were. Answers the tags of those that
-- are in flight in another form than this worker notes.
local others = {}
-- A full Redis refuses what takes memory, unless the script has written before: this changes nothing.
redis.call('ZREM', KEYS[2], '')
for i = 3, #KEYS do
  local at = 3 * i - 7
  local tag = ARGV[at]
  local value = redis.call('HGET', KEYS[1], tag)
  local noted = ', ' .. cjson.encode(ARGV[at + 1]) .. ', ' .. cjson.encode(ARGV[at + 2]) .. ']'
  if not value then
    redis.call('ZREM', KEYS[2], tag)
  elseif string.sub(value, -#noted) == noted then
    redis.call(ARGV[1], KEYS[i], string.sub(value, 2, -#noted - 1))
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[1], tag)
  else
    table.insert(others, tag)
  end
end
return others
