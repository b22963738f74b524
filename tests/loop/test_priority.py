"""A priority that changes while a job waits."""

from waiting import holds, until


def bands(redis):
    """The lists that hold messages, by name."""
    return {name.decode(): redis.client.llen(name) for name in redis.client.keys("*") if redis.client.type(name) == b"list"}


def test_a_priority_that_changes_before_queued_is_recorded_moves_the_message_within_its_queue(bed):
    bed.a.pool(bed.redis)
    for number in range(20):
        bed.a.job(f"crew-{number}", priority=5)
        bed.a.change(f"crew-{number}", priority=9)
    until("all wait in the band of the new priority", lambda: bands(bed.redis) == {"crew_jobs": 20})
    for number in range(20):
        bed.a.in_phase(f"crew-{number}", "Queued")
    holds("none is lost or published again", lambda: bands(bed.redis) == {"crew_jobs": 20}, seconds=5)
    assert all("messageLosses" not in bed.a.status(f"crew-{number}") for number in range(20))


def test_large_messages_are_moved_and_taken_back_without_a_word_from_any_worker(bed):
    bed.a.pool(bed.redis)
    inputs = {"text": "x" * 30_000}
    for number in range(6):
        bed.a.job(f"large-{number}", inputs=inputs, priority=5)
    until("all wait", lambda: bands(bed.redis) == {"crew_jobs\x06\x163": 6})
    for number in range(6):
        bed.a.in_phase(f"large-{number}", "Queued")
    bed.a.change("large-0", priority=9)
    bed.a.change("large-1", suspend=True)
    bed.a.change("large-2", cancel=True)
    bed.a.in_phase("large-1", "Pending")
    bed.a.in_phase("large-2", "Cancelled")
    until("one is moved, two are gone", lambda: bands(bed.redis) == {"crew_jobs": 1, "crew_jobs\x06\x163": 3})
    assert bed.redis.messages("crew_jobs")[0]["headers"]["id"] == bed.a.task("large-0")
