//! What is said about tasks, queues and the worker, in the words of Celery.

use std::time::Duration;

use jiff::Timestamp;

use super::transport::transport_options;
use super::view::{Broker, Task, Usage, View};
use crate::store::Queue;
use crate::wire::{Number, Object, TimeLimit, Value, time};

/// Celery's timer knows priorities; its own for tasks is 6, and clients expect one.
const TIMER_PRIORITY: i64 = 6;

/// A task as in `active`, `reserved` and `query_task`. `safe` shows the arguments as text.
pub(super) fn task(task: &Task, node: &str, safe: bool) -> Object {
    let Task { message, properties, started, pid, acknowledged } = *task;
    let headers = &message.headers;
    let (args, kwargs) = if safe {
        (headers.argsrepr.as_deref().into(), headers.kwargsrepr.as_deref().into())
    } else {
        (message.args.clone().into(), message.kwargs.clone().into())
    };
    let delivery = &properties.delivery_info;
    let delivery_info = Object::new()
        .with("exchange", delivery.exchange.as_str())
        .with("routing_key", delivery.routing_key.as_str())
        .with("priority", properties.priority)
        .with("redelivered", delivery.redelivered.unwrap_or(false));
    let fields: [(&str, Value); 10] = [
        ("id", headers.id.as_str().into()),
        ("name", headers.task.as_str().into()),
        ("args", args),
        ("kwargs", kwargs),
        ("type", headers.task.as_str().into()),
        ("hostname", node.into()),
        ("time_start", started.map(epoch).into()),
        ("acknowledged", acknowledged.into()),
        ("delivery_info", delivery_info.into()),
        ("worker_pid", pid.into()),
    ];
    fields.into_iter().collect()
}

/// A task as in `scheduled`.
pub(super) fn scheduled(waiting: &Task, node: &str) -> Object {
    Object::new()
        .with("eta", waiting.message.headers.eta_at().map(time::format))
        .with("priority", TIMER_PRIORITY)
        .with("request", task(waiting, node, false))
}

/// A queue as in `active_queues`: a direct, durable one.
pub(super) fn queue(queue: &Queue) -> Object {
    let Queue { name, exchange, routing_key } = queue;
    let exchange: [(&str, Value); 8] = [
        ("name", (&**exchange).into()),
        ("type", "direct".into()),
        ("arguments", Value::Null),
        ("durable", true.into()),
        ("passive", false.into()),
        ("auto_delete", false.into()),
        ("delivery_mode", Value::Null),
        ("no_declare", false.into()),
    ];
    let fields: [(&str, Value); 18] = [
        ("name", (&**name).into()),
        ("exchange", exchange.into_iter().collect::<Object>().into()),
        ("routing_key", (&**routing_key).into()),
        ("queue_arguments", Value::Null),
        ("binding_arguments", Value::Null),
        ("consumer_arguments", Value::Null),
        ("durable", true.into()),
        ("exclusive", false.into()),
        ("auto_delete", false.into()),
        ("no_ack", false.into()),
        ("alias", Value::Null),
        ("bindings", Value::Array(Vec::new())),
        ("no_declare", Value::Null),
        ("expires", Value::Null),
        ("message_ttl", Value::Null),
        ("max_length", Value::Null),
        ("max_length_bytes", Value::Null),
        ("max_priority", Value::Null),
    ];
    fields.into_iter().collect()
}

/// What `stats` says.
pub(super) fn stats(view: &View) -> Object {
    let total: Object = view.totals.iter().map(|(task, total)| (task.as_str(), *total)).collect();
    let uptime = i64::try_from(view.uptime.as_secs()).unwrap_or(i64::MAX);
    Object::new()
        .with("total", total)
        .with("pid", view.pid)
        .with("clock", view.clock.to_string())
        .with("uptime", uptime)
        .with("pool", pool(view))
        .with("broker", broker(view))
        .with("prefetch_count", view.prefetch_count)
        .with("rusage", view.usage.as_ref().map_or_else(|| "N/A".into(), |usage| Value::from(rusage(usage))))
}

/// Each task has a process of its own, which ends with it.
fn pool(view: &View) -> Object {
    let processes: Vec<u32> = view.running.iter().filter_map(|task| task.pid).collect();
    let TimeLimit { hard, soft } = view.time_limit;
    let limit = |limit: &Option<Number>| limit.clone().unwrap_or_else(|| 0.into());
    Object::new()
        .with("implementation", concat!("crewjob:", env!("CARGO_PKG_VERSION"), ":CommandPool"))
        .with("max-concurrency", view.concurrency)
        .with("processes", processes)
        .with("max-tasks-per-child", 1)
        .with("put-guarded-by-semaphore", true)
        .with("timeouts", vec![limit(soft), limit(hard)])
        .with("writes", "N/A")
}

fn broker(view: &View) -> Object {
    let Broker { hostname, port, database, userid, tls } = view.broker;
    let options = transport_options(view.config, str::to_owned);
    let fields: [(&str, Value); 15] = [
        ("hostname", hostname.as_str().into()),
        ("userid", userid.as_deref().into()),
        ("virtual_host", database.to_string().into()),
        ("port", i64::from(*port).into()),
        ("insist", false.into()),
        ("ssl", (*tls).into()),
        ("transport", "redis".into()),
        ("connect_timeout", 4.into()),
        ("transport_options", options.into()),
        ("login_method", Value::Null),
        ("uri_prefix", Value::Null),
        ("heartbeat", 0.0.into()),
        ("failover_strategy", "round-robin".into()),
        ("alternates", Value::Array(Vec::new())),
        ("credential_provider", Value::Null),
    ];
    fields.into_iter().collect()
}

/// In the order of Python's `resource`. Linux does not count what is 0 here.
fn rusage(usage: &Usage) -> Object {
    let Usage {
        user,
        system,
        max_memory,
        minor_faults,
        major_faults,
        blocks_in,
        blocks_out,
        voluntary_switches,
        involuntary_switches,
    } = usage;
    let seconds = |time: &Duration| Value::from(time.as_secs_f64());
    let fields: [(&str, Value); 16] = [
        ("utime", seconds(user)),
        ("stime", seconds(system)),
        ("maxrss", (*max_memory).into()),
        ("ixrss", 0.into()),
        ("idrss", 0.into()),
        ("isrss", 0.into()),
        ("minflt", (*minor_faults).into()),
        ("majflt", (*major_faults).into()),
        ("nswap", 0.into()),
        ("inblock", (*blocks_in).into()),
        ("oublock", (*blocks_out).into()),
        ("msgsnd", 0.into()),
        ("msgrcv", 0.into()),
        ("nsignals", 0.into()),
        ("nvcsw", (*voluntary_switches).into()),
        ("nivcsw", (*involuntary_switches).into()),
    ];
    fields.into_iter().collect()
}

/// Seconds since the epoch, as Python's `time()`.
fn epoch(time: Timestamp) -> f64 {
    Duration::try_from(time.duration_since(Timestamp::UNIX_EPOCH)).map_or(0.0, |since| since.as_secs_f64())
}
