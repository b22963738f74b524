"""Messages that are lost are found by looking for them: no event tells of them."""

from servers import until


def test_a_message_that_a_worker_popped_and_lost_is_published_again_though_the_queues_look_as_before(bed):
    """A worker that dies between the pop and the note of it leaves the queues as they were before the job came."""
    bed.a.pool(bed.redis)
    bed.a.job("crew")
    task = bed.a.task("crew")
    until("its message waits", lambda: bed.redis.queued(task))
    bed.a.in_phase("crew", "Queued")
    bed.redis.acknowledge(bed.redis.take(task))
    until("it waits again", lambda: bed.redis.queued(task), seconds=12)
