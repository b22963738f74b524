-- KEYS: unacked, unacked_index, lease, mark, result, results of others, lists of what is published, then those of `take`.
-- ARGV: tag, holder of the lease, id of this end, seconds results are kept (0: for good), '1' for a success, document
-- ('' for none), how many others, how many are published, how many compressed results the caller has read, those and
-- their statuses in turns, documents of others, messages in the order of the lists, then those of `take` where another
-- message is wanted
-- The end of a run in one step: publishes what follows, stores the result, acknowledges, gives the lease up, and takes
-- the next message, unless Redis is full and more is stored than before. May be repeated. Answers whether the outcome was
-- taken, whether the message was acknowledged, whether Redis is full and more is stored, and what `take` answers.
local mine, decides = position(KEYS[1], KEYS[3], ARGV[1], ARGV[2])
local document, others, published = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
told = 9
local base = told + 2 * tonumber(ARGV[told])

-- A success counts whichever run has the lease by now, and is final, as in Celery.
local function counts()
  if document == '' then return decides end
  return (decides or ARGV[5] == '1') and status(KEYS[5]) ~= 'SUCCESS'
end

local before = marked(KEYS[4], ARGV[3])
local is_done = before == '1' or before == '0'
local question = not is_done and unread(5, 5 + others)
if question then return question end
local taken = not is_done and (before or counts())
local stored = {}
-- A full Redis refuses what takes memory, unless the script has written before. Neither of these changes anything.
local is_full = type(redis.pcall('ZADD', KEYS[2], 'XX', 0, '')) == 'table'
redis.call('HDEL', KEYS[1], '')
local more = 0
if taken then
  local refusal = publish(published, 6 + others, base + 1 + others, KEYS[4], ARGV[3], before)
  if refusal then return refusal end
  for i = 1, published do more = more + #ARGV[base + others + i] end
  for i = 1, others do
    if status(KEYS[5 + i]) ~= 'SUCCESS' then stored[#stored + 1] = {KEYS[5 + i], ARGV[base + i]} end
  end
  if document ~= '' then stored[#stored + 1] = {KEYS[5], document} end
  for _, result in ipairs(stored) do
    store(result[1], ARGV[4], result[2])
    more = more + #result[2]
  end
end
if not is_done then note_end(KEYS[4], ARGV[3], taken and '1' or '0') end
if mine then
  more = more - redis.call('HSTRLEN', KEYS[1], ARGV[1])
  acknowledge(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
end
-- At last: it may be refused, and what was done must be marked by then.
for _, result in ipairs(stored) do redis.call('PUBLISH', result[1], result[2]) end
local fills, next = is_full and more > 0, false
if not fills and ARGV[base + 1 + others + published] then
  next = take(KEYS[1], KEYS[2], rest(KEYS, 6 + others + published), rest(ARGV, base + 1 + others + published))
end
return {(taken or before == '1') and 1 or 0, mine and 1 or 0, fills and 1 or 0, next}
