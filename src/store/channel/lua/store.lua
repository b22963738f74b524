-- KEYS: results. ARGV: seconds they are kept (0: for good), documents
-- Stores how tasks have ended. A success is final, as in Celery.
for i, key in ipairs(KEYS) do
  if status(key) ~= 'SUCCESS' then store(key, ARGV[1], ARGV[i + 1]) end
end
return #KEYS
