-- KEYS: unacked, unacked_index, lease, mark, result, results of others, lists of what is published.
-- ARGV: tag, holder of the lease, id of this end, seconds results are kept (0: for good), '1' for a success, document
-- ('' for none), how many others, their documents, messages in the order of the lists
-- The end of a run in one step: publishes what follows, stores the result, acknowledges, gives the lease up. May be
-- repeated. Answers whether the outcome was taken and whether the message was acknowledged.
local mine, decides = position(KEYS[1], KEYS[3], ARGV[1], ARGV[2])
local document, others = ARGV[6], tonumber(ARGV[7])

-- A success counts whichever run has the lease by now, and is final, as in Celery.
local function counts()
  if document == '' then return decides end
  return (decides or ARGV[5] == '1') and status(KEYS[5]) ~= 'SUCCESS'
end

local before = marked(KEYS[4], ARGV[3])
local is_done = before == '1' or before == '0'
local taken = not is_done and (before or counts())
local stored = {}
if taken then
  local refusal = publish(6 + others, 8 + others, KEYS[4], ARGV[3], before)
  if refusal then return refusal end
  for i = 1, others do
    if status(KEYS[5 + i]) ~= 'SUCCESS' then stored[#stored + 1] = {KEYS[5 + i], ARGV[7 + i]} end
  end
  if document ~= '' then stored[#stored + 1] = {KEYS[5], document} end
  for _, result in ipairs(stored) do store(result[1], ARGV[4], result[2]) end
end
if not is_done then note_end(KEYS[4], ARGV[3], taken and '1' or '0') end
if mine then acknowledge(KEYS[1], KEYS[2], KEYS[3], ARGV[1]) end
-- At last: it may be refused, and what was done must be marked by then.
for _, result in ipairs(stored) do redis.call('PUBLISH', result[1], result[2]) end
return {(taken or before == '1') and 1 or 0, mine and 1 or 0}
