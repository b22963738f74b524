"""Keeps a Celery worker from running one task twice at once, or once more after it has ended.

Turn it on with one line, `app = Celery(..., include=["crewjob.guard"])`, or import it in the module of the app. It
needs Redis as the broker; with any other it says so in the log and does nothing. This file needs nothing else of the
package: copied beside an application as `crewjob_guard.py`, it is `include=["crewjob_guard"]`.

Why: Redis has no acknowledgements; kombu emulates them. When a worker's connection breaks, kombu puts the messages of
late-acknowledged tasks that still run back in the queue, and after `visibility_timeout` those of tasks that take
longer. Celery then runs the copy beside the first run or after it.

How: a run holds a lease on its task id, in the broker's Redis. Every guard on the same queues must follow this
protocol:

    key      <global_keyprefix>crewjob-lease:<task id>
    value    <node name>/<process id>/<uuid>: the holder, a new one for every run
    take     SET key value NX PX 6000, before anything is stored about the run
    renew    every 2 s: set it again with PX 6000 if it has our value or does not exist (Redis lost its data)
    give up  after the result has been stored: delete it if it has our value

A copy that gets the lease looks at the result first. If the task has ended (SUCCESS, FAILURE, REVOKED), or if this is
a redelivered copy of an attempt after which the task retried (which `result_extended` shows), it is acknowledged and
does not run. Otherwise it runs: a task that was never started, Celery's own retry, or one whose worker was killed.

A copy that was put back, and finds neither a lease nor a result, first waits as long as a lease lasts: a worker that
was disconnected for longer than that puts its running tasks back as soon as it can reach Redis again, shortly before
it renews their leases. The copy waits again whenever it finds a lease after all, or Redis does not answer.

A copy that does not get the lease is put aside, not dropped: it stays unacknowledged, as a task with a countdown
does, takes no place in the pool, and is tried again when the lease would expire. It must not be acknowledged: kombu
gives a copy the delivery tag of the original, so the acknowledgement would remove the message of the other run from
Redis, and the task would be lost if the worker of that run were killed. A killed worker delays the next run by 6 s at
most.

When Redis does not answer, the task is put aside, too, until Redis answers: it is neither lost nor run twice. When
Redis answers with an error (no permission, out of memory), the task runs without a lease: a guard that cannot work
stops no task.

A message is never left where only this worker knows of it. Kombu asks Redis for a message while the worker has room for
one. When a countdown that ends takes that room, kombu leaves what Redis hands out unread until there is room again: it
is in no queue and not yet unacknowledged, and would be lost with the worker. The guard puts it back at once.

The guard does less where no result shows that a task has ended: tasks with `ignore_result` do not run twice at once,
but may run again after their end. A process that is stopped, or that holds the interpreter's lock in C code, for
longer than a lease lasts loses its lease. A task with a `Request` class of its own must derive it from
`GuardedRequest`.
"""

import os
import threading
import uuid
from functools import cache, wraps

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import signals, states
from celery.app.task import Task
from celery.app.trace import TraceInfo, trace_ok_t
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded
from celery.utils.log import get_logger
from celery.worker.request import Request
from celery.worker.state import active_requests, requests, task_ready, task_reserved
from kombu.exceptions import OperationalError
from kombu.transport.redis import MultiChannelPoller
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis import Redis
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError

logger = get_logger(__name__)

LEASE_SECONDS = 6.0
LEASE_MILLISECONDS = int(LEASE_SECONDS * 1000)
RENEW_SECONDS = 2.0
# The lease of the attempt before is often given up a moment after its retry has been sent.
FIRST_WAIT_SECONDS = 0.5
# Kombu's own connections wait for ever; a lease must not.
TRANSPORT_OPTIONS = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "max_connections": 1000}
UNREACHABLE = (ConnectionError, TimeoutError, ReadOnlyError, OperationalError, OSError)

TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
return redis.call('PTTL', KEYS[1])
"""
RENEW = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
"""
GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class PutAside(Ignore):
    """The task must not run now, for a reason; try again in so many seconds."""

    reason = property(lambda self: self.args[0])
    seconds = property(lambda self: self.args[1])


class PutBack(PutAside):
    """The task may be running where its lease could not be renewed; give that worker time."""


class Ended(Ignore):
    """The task has ended before; acknowledge this copy."""


class Lease:
    """One run's lease on a task id, renewed from a thread until it is given up."""

    def __init__(self, redis, key, token):
        self.redis, self.key, self.token = redis, key, token
        self.over = threading.Event()
        self.renewing = threading.Thread(target=self.renew, name=f"renew {key}", daemon=True)

    def run(self, script, *args):
        return self.redis.eval(script, 1, self.key, self.token, *args)

    def take(self):
        """Takes the lease, or raises when to ask again."""
        remaining = self.run(TAKE, LEASE_MILLISECONDS)
        if remaining is not None:
            # A key without an expiry (-1) was not set by a guard of this protocol: try again every LEASE_SECONDS.
            raise PutAside("another run holds the lease", remaining / 1000 if remaining >= 0 else LEASE_SECONDS)
        self.renewing.start()

    def renew(self):
        lost = None
        while not self.over.wait(RENEW_SECONDS):
            try:
                holder = self.run(RENEW, LEASE_MILLISECONDS)
            except (RedisError, OSError) as error:
                logger.warning("%s is not renewed: %s", self.key, error)
                continue
            if holder and holder != lost:
                logger.error("%s was lost to %s: the task may run twice", self.key, holder.decode(errors="replace"))
            lost = holder

    def give_up(self):
        self.over.set()
        # A renewal on its way must not bring the key back after we have deleted it.
        self.renewing.join(2 * TRANSPORT_OPTIONS["socket_timeout"])
        try:
            self.run(GIVE_UP)
        except (RedisError, OSError) as error:
            logger.warning("%s is left to run out: %s", self.key, error)


@cache
def is_on(app):
    return app.connection_for_read().transport.driver_type == "redis"


@cache
def broker(app, pid):
    """Returns the broker's Redis and key prefix for this process; connections do not survive a fork."""
    with app.connection_for_read(transport_options=TRANSPORT_OPTIONS) as connection:
        # Not the channel's client: that one prefixes the keys of some commands only.
        return Redis(connection_pool=connection.default_channel.pool), connection.default_channel.global_keyprefix


def guarded(task, trace):
    """Returns Celery's `trace` of a task, which runs it and stores its result, under a lease."""

    @wraps(trace)
    def trace_under_lease(task_id, args, kwargs, request=None):
        if not is_on(task.app):
            return trace(task_id, args, kwargs, request)
        try:
            lease = lease_for(task, task_id, request or {})
        except Ignore as reason:
            # What Celery's own trace returns for a task that raises Ignore, before it has stored that it started.
            return trace_ok_t(ExceptionInfo(internal=True), TraceInfo(states.IGNORED, reason), 0.0, None)
        try:
            send_started(task, task_id, request or {})
            return trace(task_id, args, kwargs, request)
        finally:
            if lease:
                lease.give_up()

    return trace_under_lease


def lease_for(task, task_id, request):
    """Takes the lease, or raises why the task must not run now. Returns None where no lease can be had."""
    try:
        redis, prefix = broker(task.app, os.getpid())
        token = f"{request.get('hostname')}/{os.getpid()}/{uuid.uuid4()}"
        lease = Lease(redis, f"{prefix}crewjob-lease:{task_id}", token)
        if is_redelivered(request) and not request.get("crewjob_waited") and not redis.exists(lease.key):
            give_time(task, task_id, request)
        lease.take()
    except UNREACHABLE as error:
        raise PutAside(f"no lease from Redis: {error}", RENEW_SECONDS) from None
    except RedisError as error:
        logger.error("Task %s[%s] runs without a lease: %s", task.name, task_id, error)
        return None
    try:
        state = ended(task, task_id, request)
    except UNREACHABLE as error:
        lease.give_up()
        raise PutAside(f"nothing from the result backend: {error}", RENEW_SECONDS) from None
    except SoftTimeLimitExceeded:
        lease.give_up()
        raise
    except Exception as error:
        logger.error("Task %s[%s] runs: whether it has ended cannot be read: %s", task.name, task_id, error)
        return lease
    if state:
        lease.give_up()
        raise Ended(state)
    return lease


def give_time(task, task_id, request):
    """Raises how long a copy that was put back has to wait, unless its task has ended."""
    try:
        state = ended(task, task_id, request)
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        # Asked again once the lease is taken, when what follows depends on it.
        state = None
    if not state:
        raise PutBack("it was put back, and may be running still", LEASE_SECONDS)


def is_redelivered(request):
    return (request.get("delivery_info") or {}).get("redelivered")


def send_started(task, task_id, request):
    """Sends the event that Celery sends for a copy as well, as soon as the pool has it: it would count as a run."""
    if not request.get("crewjob_events"):
        return
    try:
        with task.app.events.default_dispatcher(hostname=request.get("hostname")) as dispatcher:
            dispatcher.send("task-started", uuid=task_id, retry=True, retry_policy={"max_retries": 1})
    except (*UNREACHABLE, RedisError) as error:
        logger.warning("Task %s[%s] has started, unannounced: %s", task.name, task_id, error)


def ended(task, task_id, request):
    """Returns how the run that this message asks for has ended, or None."""
    if isinstance(task.backend, (DisabledBackend, RPCBackend)):
        # There are no results, or they are sent to the caller only.
        return None
    meta = at_once(task.backend).get_task_meta(task_id, cache=False)
    if meta["status"] in states.READY_STATES:
        return meta["status"]
    if not is_redelivered(request):
        return None
    # A retry is a message of its own, and this one is used up. But a worker that cancels its tasks when the connection
    # is lost stores RETRY too, with an exception of its own, and leaves the rest to this message.
    mine, stored = request.get("retries") or 0, meta.get("retries") or 0
    retried = meta["status"] == states.RETRY and "retries" in meta and not isinstance(meta["result"], Retry)
    return f"retry {stored}" if stored > mine or (retried and stored == mine) else None


def at_once(backend):
    """Returns a backend that fails while Redis is away, although `result_backend_always_retry` has `backend` wait."""
    if not getattr(backend, "always_retry", False):
        return backend
    # With the connections of the first one. `copy.copy` would make a backend with connections of its own.
    twin = object.__new__(type(backend))
    twin.__dict__.update(backend.__dict__, always_retry=False)
    return twin


class GuardedRequest(Request):
    """A message's way through the worker: the part of the guard that runs in its main process."""

    consumer = None
    put_aside_before = False

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        reason = exc_info.exception
        if isinstance(reason, ExceptionWithTraceback):
            reason = reason.exc
        if isinstance(reason, PutAside):
            # Pools of threads call from theirs; timers and prefetch counts belong to the consumer's.
            self.consumer.call_soon(self.put_aside, reason)
            return
        if isinstance(reason, Ended):
            logger.info("Task %s[%s] is not run again: it has ended before (%s)", self.name, self.id, reason)
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def send_event(self, type, **fields):
        if type != "task-started" or not is_on(self.app):
            super().send_event(type, **fields)

    def put_aside(self, reason):
        task_ready(self)
        # Celery keeps one request per id: the one that runs, for `revoke(terminate=True)`, or else this one. Without
        # an entry, `query_task` would answer that this worker does not have the task, and it would count as lost.
        requests[self.id] = next((other for other in active_requests if other.id == self.id), self)
        self.time_start = self.worker_pid = None
        seconds = reason.seconds
        if not self.put_aside_before:
            self.put_aside_before = True
            logger.info("Task %s[%s] is put aside: %s", self.name, self.id, reason.reason)
            if not isinstance(reason, PutBack):
                seconds = min(seconds, FIRST_WAIT_SECONDS)
        self.request_dict["crewjob_waited"] = isinstance(reason, PutBack)
        self.consumer.qos.increment_eventually()
        self.consumer.timer.call_after(seconds, self.try_again)

    def try_again(self):
        if self.message.channel.closed:
            # The connection was lost: kombu has put the message back in the queue, from where a worker gets it again.
            if requests.get(self.id) is self:
                del requests[self.id]
            return
        self.consumer.qos.decrement_eventually()
        task_reserved(self)
        self.consumer.on_task_request(self)


def putting_back(on_readable):
    """Returns kombu's `on_readable` of the poller, which leaves no answer to BRPOP unread."""

    @wraps(on_readable)
    def read(poller, fileno):
        channel, command = poller._fd_to_chan.get(fileno, (None, None))
        if command == "BRPOP" and channel._in_poll and not channel.qos.can_consume():
            put_back(channel)
        else:
            on_readable(poller, fileno)

    return read


def put_back(channel):
    """Puts the message that Redis has handed out back where it comes from, to be taken next."""
    connection = channel.client.connection
    try:
        handed_out = channel.client.parse_response(connection, "BRPOP")
    except channel.connection_errors:
        connection.disconnect()  # as kombu does, so that the next turn connects again
        raise
    finally:
        channel._in_poll = None
        getattr(channel, "_flush_brpop_reauth", bool)()
    if not handed_out:
        return
    key, message = bytes_to_str(handed_out[0]), handed_out[1]
    try:
        with channel.conn_or_acquire() as client:
            client.rpush(key, message)
    except (RedisError, OSError):
        # It is this worker's then, beyond its room.
        channel.connection._deliver(loads(bytes_to_str(message)), key.rsplit(channel.sep, 1)[0])


@signals.task_received.connect
def prepare(sender, request, **_):
    request.consumer = sender
    events = sender.event_dispatcher
    request.request_dict["crewjob_events"] = bool(events and events.enabled and request.task.send_events)


@signals.worker_ready.connect
def say_whether_on(sender, **_):
    url = sender.app.connection_for_read().as_uri()
    if is_on(sender.app):
        logger.info("crewjob_guard is on: leases of %g s in %s", LEASE_SECONDS, url)
    else:
        logger.warning("crewjob_guard is off: the broker is not Redis but %s", url)


def set_trace(task, trace):
    task.__dict__["__trace__"] = trace and guarded(task, trace)


# On Celery's own class, for tasks of any base. Workers assign `__trace__` for every task at start and after every fork
# and reconnection; nothing else sees whatever a task does before Celery stores that it has started.
Task.__trace__ = property(lambda task: task.__dict__.get("__trace__"), set_trace)
Task.Request = GuardedRequest
MultiChannelPoller.on_readable = putting_back(MultiChannelPoller.on_readable)
# Since 5.7 kombu does not even look whether there is an answer while the worker has no room.
MultiChannelPoller._pause_brpop = lambda poller, channel, fileno: None
