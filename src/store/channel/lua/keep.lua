-- KEYS: leases. ARGV: milliseconds, the holder of each
-- Renews leases, also those that Redis has lost. Answers which other holder has each one, '' for none.
local others = {}
for i, key in ipairs(KEYS) do
  local holder = redis.call('GET', key)
  if holder and holder ~= ARGV[i + 1] then
    others[i] = holder
  else
    -- After its deletion, which a full Redis does not refuse, it does not refuse the rest either.
    redis.call('DEL', key)
    redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
    others[i] = ''
  end
end
return others
