-- KEYS: unacked, unacked_index, lease, result, results of others, lists of what is published.
-- ARGV: tag, holder of the lease, seconds results are kept (0: for good), '1' for a success, document ('' for none), how
-- many others, their documents, messages in the order of the lists
-- The end of a run in one step: stores the result, publishes what follows, acknowledges, gives the lease up. May be
-- repeated. Answers whether the outcome was taken and whether the message was acknowledged.
local mine, decides = position(KEYS[1], KEYS[3], ARGV[1], ARGV[2])
local document, others = ARGV[5], tonumber(ARGV[6])

-- A success counts whichever run has the lease by now, and is final, as in Celery.
local function counts()
  if document == '' then return decides end
  return (decides or ARGV[4] == '1') and status(KEYS[4]) ~= 'SUCCESS'
end

-- The very document lies there when this is repeated because the answer was lost.
local done = document ~= '' and redis.call('STRLEN', KEYS[4]) == #document and redis.call('GET', KEYS[4]) == document
local taken = not done and counts()
if taken then
  for i = 1, others do
    if status(KEYS[4 + i]) ~= 'SUCCESS' then store(KEYS[4 + i], ARGV[3], ARGV[6 + i]) end
  end
  for i = 5 + others, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[i + 2]) end
  if document ~= '' then store(KEYS[4], ARGV[3], document) end
end
if mine then acknowledge(KEYS[1], KEYS[2], KEYS[3], ARGV[1]) end
return {(taken or done) and 1 or 0, mine and 1 or 0}
