-- KEYS: unacked, unacked_index, lease, note. ARGV: tag, holder of the lease ('' for none)
-- Acknowledges the message of a task that has ended, whichever run has the lease by now: it may be a retry of the task.
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[4])
if ARGV[2] ~= '' and redis.call('GET', KEYS[3]) == ARGV[2] then redis.call('DEL', KEYS[3]) end
return redis.call('HDEL', KEYS[1], ARGV[1])
