-- KEYS: results. ARGV: seconds they are kept (0: for good), documents, how many compressed results the caller has read,
-- those and their statuses in turns
-- Stores how tasks have ended. A success is final, as in Celery, and a retry that has ended by now is not hidden by what
-- the run before it left.
told = #KEYS + 2
local question = unread(1, #KEYS)
if question then return question end

local function ended(status) return status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' end

for i, key in ipairs(KEYS) do
  local before, document = status(key), ARGV[i + 1]
  local is_retry = string.find(document, '^%s*{%s*"status"%s*:%s*"RETRY"')
  local is_stored = redis.call('STRLEN', key) == #document and redis.call('GET', key) == document
  if before ~= 'SUCCESS' and not (is_retry and ended(before)) and not is_stored then
    store(key, ARGV[1], document)
    redis.call('PUBLISH', key, document)
  end
end
return #KEYS
