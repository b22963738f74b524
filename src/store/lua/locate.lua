-- KEYS: unacked, its index, then each marker and its message. Where the message of each marker is: 'flight' with its score, 'queued', or ''.
local places = {}
for i = 3, #KEYS, 2 do
  local seen = redis.call('HMGET', KEYS[i], 'tag', 'list')
  local place = {'', seen[1] or '', ''}
  if seen[1] and redis.call('HEXISTS', KEYS[1], seen[1]) == 1 then
    place = {'flight', seen[1], redis.call('ZMSCORE', KEYS[2], seen[1])[1] or ''}
  elseif seen[1] and seen[2] then
    local message = redis.call('GET', KEYS[i + 1])
    -- The exact bytes: kombu puts a message back with other ones, and then only a look at all messages finds it.
    if message and redis.call('LPOS', seen[2], message) then place = {'queued', seen[1], ''} end
  end
  places[#places + 1] = place
end
return places
