//! The answers that are worth a type.

use std::time::Duration;

use crate::wire::json::{Number, Object, Value};

/// A task as workers describe it in answers to `active`, `reserved` and `query_task`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// The task id.
    pub id: String,
    /// The registered name.
    pub name: Option<String>,
    /// The node name of the worker.
    pub hostname: Option<String>,
    /// When it was started, in seconds since the epoch.
    pub time_start: Option<Number>,
    /// Whether its message has been acknowledged: then nothing in Redis brings it back.
    pub acknowledged: Option<bool>,
    /// The process it runs in.
    pub worker_pid: Option<i64>,
    /// The routing key it came with.
    pub routing_key: Option<String>,
    /// Whether its message had been put back before.
    pub redelivered: Option<bool>,
    /// Everything that was said.
    pub fields: Object,
}

impl TaskInfo {
    /// Reads one description.
    pub fn decode(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let delivery = |key: &str| value.get("delivery_info").and_then(|info| info.get(key));
        Some(Self {
            id: text("id")?,
            name: text("name"),
            hostname: text("hostname"),
            time_start: value.get("time_start").and_then(Value::as_number).cloned(),
            acknowledged: value.get("acknowledged").and_then(Value::as_bool),
            worker_pid: value.get("worker_pid").and_then(Value::as_i64),
            routing_key: delivery("routing_key").and_then(Value::as_str).map(str::to_owned),
            redelivered: delivery("redelivered").and_then(Value::as_bool),
            fields: value.as_object()?.clone(),
        })
    }

    /// Reads an answer to `active`, `reserved` or `scheduled`. What is no description is left out.
    pub fn list(answer: &Value) -> Vec<Self> {
        let elements = answer.as_array().unwrap_or_default();
        elements.iter().filter_map(|element| Self::decode(element.get("request").unwrap_or(element))).collect()
    }

    /// Reads an answer to `query_task`: `{id: [state, description]}`, state being `active`, `reserved`, `scheduled` or
    /// `ready`.
    pub fn query(answer: &Value) -> Vec<(String, Self)> {
        let found = answer.as_object().into_iter().flat_map(Object::iter);
        let pair = |value: &Value| match value.as_array()? {
            [state, info] => Some((state.as_str()?.to_owned(), Self::decode(info)?)),
            _ => None,
        };
        found.filter_map(|(_, value)| pair(value)).collect()
    }
}

/// What an answer to `stats` says about how a worker takes and runs tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerStats {
    /// The main process.
    pub pid: Option<i64>,
    /// Messages it holds at most at this moment; 0 is unlimited. Every message that waits for its time raises it by one.
    pub prefetch_count: Option<i64>,
    /// Tasks it runs at once.
    pub max_concurrency: Option<i64>,
    /// Tasks it runs at once at most, where it changes that with the load (`--autoscale`).
    pub autoscales_to: Option<i64>,
    /// The pool, `celery.concurrency.prefork:TaskPool` for example.
    pub implementation: Option<String>,
    /// The processes of the pool.
    pub processes: Vec<i64>,
    /// How it reaches the broker.
    pub broker: BrokerInfo,
}

/// How a worker reaches the broker: kombu's `Connection.info()`. Unlike an answer to `conf` it shows names of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokerInfo {
    /// The host, as the worker names it.
    pub hostname: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// `priority_steps`, where they are set.
    pub priority_steps: Option<Vec<i64>>,
    /// `sep`, where it is set.
    pub separator: Option<String>,
    /// `unacked_key`, where it is set.
    pub unacked_key: Option<String>,
}

impl BrokerInfo {
    fn decode(info: &Value) -> Self {
        let option = |key: &str| info.get("transport_options").and_then(|options| options.get(key));
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let steps = |value: &Value| Some(value.as_array()?.iter().filter_map(Value::as_i64).collect());
        Self {
            hostname: text(info.get("hostname")),
            port: info.get("port").and_then(Value::as_i64).and_then(|port| u16::try_from(port).ok()),
            priority_steps: option("priority_steps").and_then(steps),
            separator: text(option("sep")),
            unacked_key: text(option("unacked_key")),
        }
    }
}

impl WorkerStats {
    /// Reads an answer.
    pub fn decode(answer: &Value) -> Self {
        let pool = |key: &str| answer.get("pool").and_then(|pool| pool.get(key));
        let processes = pool("processes").and_then(Value::as_array).unwrap_or_default();
        Self {
            pid: answer.get("pid").and_then(Value::as_i64),
            prefetch_count: answer.get("prefetch_count").and_then(Value::as_i64),
            autoscales_to: answer.get("autoscaler").and_then(|it| it.get("max")).and_then(Value::as_i64),
            max_concurrency: pool("max-concurrency").and_then(Value::as_i64),
            implementation: pool("implementation").and_then(Value::as_str).map(str::to_owned),
            processes: processes.iter().filter_map(Value::as_i64).collect(),
            broker: answer.get("broker").map(BrokerInfo::decode).unwrap_or_default(),
        }
    }
}

/// The settings in an answer to `conf` that decide what happens to a task. Nothing means Celery's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerConf {
    /// Messages taken per process of the pool, 4 by default. `--prefetch-multiplier` on the command line does not show
    /// here, but in [`WorkerStats::prefetch_count`].
    pub prefetch_multiplier: Option<i64>,
    /// Whether messages are acknowledged after the run, not before it; false by default.
    pub acks_late: Option<bool>,
    /// Whether task events are sent; false by default.
    pub send_task_events: Option<bool>,
    /// Seconds until an unacknowledged message is taken for lost, 3600 by default.
    pub visibility_timeout: Option<i64>,
    /// The format of results, `json` by default.
    pub result_serializer: Option<String>,
    /// How results are compressed, not by default; without effect before Celery 5.7.
    pub result_compression: Option<String>,
    /// Whether `result_backend_transport_options` have a `global_keyprefix`. Its value is shown as stars, even an empty one.
    pub has_result_prefix: Option<bool>,
    /// Whether the state `STARTED` is stored; false by default.
    pub track_started: Option<bool>,
    /// Whether a result waits while its backend is away; false by default.
    pub always_retry: Option<bool>,
}

impl WorkerConf {
    /// Reads an answer.
    pub fn decode(answer: &Value) -> Self {
        let flag = |key: &str| answer.get(key).and_then(Value::as_bool);
        let text = |key: &str| answer.get(key).and_then(Value::as_str).map(str::to_owned);
        let transport = answer.get("broker_transport_options");
        Self {
            prefetch_multiplier: answer.get("worker_prefetch_multiplier").and_then(Value::as_i64),
            acks_late: flag("task_acks_late"),
            send_task_events: flag("worker_send_task_events"),
            visibility_timeout: transport
                .and_then(|options| options.get("visibility_timeout"))
                .and_then(Value::as_number)
                .and_then(Number::truncated),
            result_serializer: text("result_serializer"),
            result_compression: text("result_compression"),
            has_result_prefix: answer
                .get("result_backend_transport_options")
                .and_then(Value::as_object)
                .map(|options| options.get("global_keyprefix").is_some()),
            track_started: flag("task_track_started"),
            always_retry: flag("result_backend_always_retry"),
        }
    }
}

/// What an answer to `report` says, the text for bug reports: only there is the version of Celery, and a result backend from
/// the environment (`CELERY_RESULT_BACKEND`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerReport {
    /// Major and minor version of Celery; `None` of another program.
    pub celery: Option<(u32, u32)>,
    /// The result backend, `redis://user:**@host:6379/1` or `disabled`.
    pub results: Option<String>,
}

impl WorkerReport {
    /// Reads an answer.
    pub fn decode(answer: &Value) -> Self {
        let text = answer.get("ok").and_then(Value::as_str).unwrap_or_default();
        let word = |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key));
        let version = |text: &str| {
            let mut parts = text.split('.').map_while(|part| part.parse().ok());
            Some((parts.next()?, parts.next()?))
        };
        Self { celery: word("celery:").and_then(version), results: word("results:").map(str::to_owned) }
    }
}

/// What an answer to `registered` says of one task: its name and the attributes that were asked for and that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredTask {
    /// The registered name.
    pub name: String,
    /// `ignore_result`: whether its results are not stored.
    pub ignore_result: Option<bool>,
    /// `acks_late`: whether its messages are acknowledged after the run.
    pub acks_late: Option<bool>,
    /// `rate_limit`: how long one run keeps the next one waiting in the same worker.
    pub every: Option<Duration>,
}

impl RegisteredTask {
    /// Reads an answer: names, each with `[attribute=value ...]` behind it.
    pub fn list(answer: &Value) -> Vec<Self> {
        let texts = answer.as_array().unwrap_or_default().iter().filter_map(Value::as_str);
        texts
            .map(|text| {
                let (name, attributes) = text.split_once(" [").unwrap_or((text, ""));
                let value = |key: &str| {
                    let attributes = attributes.trim_end_matches(']').split(' ');
                    Some(attributes.filter_map(|it| it.split_once('=')).find(|(name, _)| *name == key)?.1)
                };
                let flag = |key: &str| match value(key) {
                    Some("True") => Some(true),
                    Some("False") => Some(false),
                    _ => None,
                };
                Self {
                    name: name.to_owned(),
                    ignore_result: flag("ignore_result"),
                    acks_late: flag("acks_late"),
                    every: value("rate_limit").and_then(every),
                }
            })
            .collect()
    }
}

/// The time from one run to the next that a rate limit such as `10`, `10/s`, `0.5/m` or `2/h` asks for, as
/// `celery.utils.time.rate` reads it. `None` where it limits nothing.
fn every(rate_limit: &str) -> Option<Duration> {
    let (runs, per) = rate_limit.split_once('/').unwrap_or((rate_limit, "s"));
    let seconds = match per {
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let runs: f64 = runs.trim().parse().ok().filter(|runs| *runs > 0.0)?;
    Duration::try_from_secs_f64(seconds / runs).ok()
}
