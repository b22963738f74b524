//! What is wrong with one worker, and how to mend it: one function for each setting.
//!
//! What is no fault: `task_time_limit`, since each message has the job's own limits and those win; a `visibility_timeout`
//! below the hard limit, since the operator keeps messages of running tasks from being delivered again; and
//! `queue_order_strategy`, which does not change which bands a worker looks into. What cannot be asked: `accept_content`
//! without JSON, since such a worker refuses every question as well.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Compression, Declared, Fault, FaultKind, Loses, NodeSettings, Shell};
use crate::core::status::head;

/// kombu's `visibility_timeout` where none is set.
const VISIBILITY_TIMEOUT: Duration = Duration::from_hours(1);
/// What kombu and Celery call formats that are not JSON.
const NOT_JSON: [&str; 8] = [
    "pickle",
    "yaml",
    "msgpack",
    "auth",
    "application/x-python-serialize",
    "application/x-yaml",
    "application/x-msgpack",
    "application/data",
];

/// Everything that is wrong.
pub(super) fn of(node: &NodeSettings, declared: &Declared, shell: Option<Shell>) -> Vec<Fault> {
    let all = [
        backend(node, declared),
        keys(node, declared),
        serializer(node),
        compression(node),
        ignored(node),
        early(node),
        signals(node, shell),
        unacked(node, declared),
        priorities(node, declared),
        redelivery(node, declared),
        concurrency(node, declared),
        prefetch(node),
        retries(node),
    ];
    all.into_iter().flatten().collect()
}

/// What may be wrong, and is not known to be.
pub(super) fn hint(nodes: &[&NodeSettings], declared: &Declared) -> Option<String> {
    if let Some(node) = nodes.iter().find(|node| node.has_result_prefix == Some(true) && !declared.names_prefix) {
        return Some(format!(
            "{}: its result_backend_transport_options have a global_keyprefix, and workers do not tell which; unless it is \
             empty, set the pool's celery.resultKeyPrefix to it",
            head(&node.name, 128)
        ));
    }
    let quiet = nodes.iter().find(|node| node.is_quiet)?;
    Some(format!(
        "{}: task_track_started and worker_send_task_events are off; unless it was started with -E, the begin of a run may be \
         noticed a minute late",
        head(&quiet.name, 128)
    ))
}

fn fault(kind: FaultKind, loses: Loses, text: impl Into<String>) -> Fault {
    Fault { kind, text: text.into(), loses }
}

fn warning(kind: FaultKind, text: impl Into<String>) -> Fault {
    fault(kind, Loses::Nothing, text)
}

fn backend(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let (host, port, number) = &declared.results;
    let kind = FaultKind::ResultBackendDiffers;
    match node.results.as_ref()? {
        Backend::Disabled => {
            let text =
                "it has no result_backend, so results are lost; set result_backend to the Redis of the pool's Secret";
            Some(fault(kind, Loses::Everything, text))
        }
        Backend::Other(name) => {
            let text = format!(
                "its result_backend is {:?}, where results are not read; set it to the Redis of the pool's Secret",
                head(name, 32)
            );
            Some(fault(kind, Loses::Everything, text))
        }
        Backend::Redis { database, .. } if database != number => {
            let text = format!(
                "its result_backend is database {database} and results are read in database {number}; set result_backend to the \
                 one, or RESULT_BACKEND_URL of the pool's Secret to the other"
            );
            Some(fault(kind, Loses::Everything, text))
        }
        // A server may have several names, so only names that come from the same side are compared.
        Backend::Redis { host: its, port: at, .. } => {
            let theirs = node.broker.as_ref()? == &(its.clone(), *at);
            let ours = declared.broker == (host.clone(), *port);
            if theirs == ours || is_relayed(its) || is_relayed(host) {
                return None;
            }
            let text = format!(
                "its result_backend is on {}:{at} and results are read on {}:{port}; if these are two servers, set \
                 result_backend or RESULT_BACKEND_URL of the pool's Secret",
                head(its, 64),
                head(host, 64)
            );
            Some(warning(kind, text))
        }
    }
}

/// Whether a proxy beside the process may be behind that name.
fn is_relayed(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn keys(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let prefix = head(&declared.result_prefix, 64);
    let (kind, is_set) = (FaultKind::ResultKeysDiffer, node.has_result_prefix?);
    if prefix.is_empty() {
        return None;
    }
    if !is_set {
        let text = format!(
            "its results have no global_keyprefix and are read with {prefix:?}; set it in \
             result_backend_transport_options, or the pool's celery.resultKeyPrefix to \"\""
        );
        return Some(fault(kind, Loses::Everything, text));
    }
    // Since 5.5 only where the prefix does not end in punctuation.
    let (major, minor) = node.celery.filter(|version| *version < (5, 5) && !declared.has_underscore)?;
    let text = format!(
        "Celery {major}.{minor} puts an underscore after the global_keyprefix of results, and they are read with {prefix:?}; set \
         the pool's celery.resultKeyPrefix to \"{prefix}_\""
    );
    Some(fault(kind, Loses::Everything, text))
}

fn serializer(node: &NodeSettings) -> Option<Fault> {
    let name = node.result_serializer.as_deref().filter(|name| !matches!(*name, "json" | "application/json"))?;
    let kind = FaultKind::ResultSerializerNotJson;
    let loses = if NOT_JSON.contains(&name) { Loses::Everything } else { Loses::Nothing };
    Some(fault(
        kind,
        loses,
        format!("its result_serializer is {:?}, which is not read; set it to \"json\"", head(name, 32)),
    ))
}

/// Celery before 5.7 has the setting, and compresses nothing.
fn compression(node: &NodeSettings) -> Option<Fault> {
    let Compression { method, is_read: false } = node.result_compression.as_ref()? else { return None };
    if node.celery.is_none_or(|version| version < (5, 7)) {
        return None;
    }
    let text = format!(
        "its result_compression is {:?}, which is not read; set it to \"gzip\", \"bzip2\" or \"zstd\", or to None",
        head(method, 32)
    );
    Some(fault(FaultKind::ResultCompressionUnknown, Loses::Everything, text))
}

fn ignored(node: &NodeSettings) -> Option<Fault> {
    let tasks = named(node, |task| task.ignores_result == Some(true));
    let first = tasks.first()?.clone();
    let text = format!(
        "it stores no results of {}; set task_ignore_result=False, and ignore_result of the task",
        some_of(&first, tasks.len())
    );
    Some(fault(FaultKind::ResultsIgnored, Loses::ResultsOf(tasks), text))
}

fn named(node: &NodeSettings, is: impl Fn(&super::KnownTask) -> bool) -> Vec<Arc<str>> {
    node.tasks.iter().filter(|task| is(task)).map(|task| task.name.clone()).collect()
}

fn some_of(first: &str, tasks: usize) -> String {
    let others = if tasks > 1 { format!(" and {} more tasks", tasks - 1) } else { String::new() };
    format!("{}{others}", head(first, 64))
}

/// A task says it for itself; where it does not, the configuration does for all.
fn early(node: &NodeSettings) -> Option<Fault> {
    let kind = FaultKind::AcknowledgesEarly;
    if node.tasks.iter().any(|task| task.acks_late.is_some()) {
        let tasks = named(node, |task| task.acks_late == Some(false));
        let first = tasks.first()?;
        if node.acks_late == Some(true) {
            let some = some_of(first, tasks.len());
            return Some(warning(
                kind,
                format!("it acknowledges {some} before the run; set acks_late=True of the task"),
            ));
        }
    } else if node.acks_late == Some(true) {
        return None;
    }
    Some(warning(kind, "it acknowledges messages before it runs them; set task_acks_late=True"))
}

/// A shell may have given its place to the worker, and an init passes signals on.
fn signals(node: &NodeSettings, shell: Option<Shell>) -> Option<Fault> {
    let pid = node.pid.filter(|pid| *pid != 1)?;
    let (shell, container) = shell?;
    let text = format!(
        "its process has the PID {pid}, because the main process of container {container:?} is the shell {shell:?}, which \
         does not pass SIGTERM on, so it takes jobs until it is killed with one; write `exec celery ...`"
    );
    Some(warning(FaultKind::ShellTakesSignals, text))
}

fn unacked(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let by_default = node.celery.map(|_| "unacked");
    let key = node.unacked_key.as_deref().or(by_default).filter(|key| **key != *declared.unacked_key)?;
    let text = format!(
        "its unacked_key is {:?} and the pool's celery.unackedKey {:?}; set both to the same",
        head(key, 64),
        head(&declared.unacked_key, 64)
    );
    Some(warning(FaultKind::UnackedKeyDiffers, text))
}

/// Celery shows these options where they are set, and a native worker always.
fn priorities(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let kind = FaultKind::PrioritiesDiffer;
    let by_default = node.celery.is_some();
    let mut steps = node.priority_steps.clone().or_else(|| by_default.then(|| vec![0, 3, 6, 9]))?;
    if steps != declared.priority_steps {
        steps.truncate(10);
        let text = format!(
            "its priority_steps are {steps:?} and the pool's celery.prioritySteps {:?}, so some jobs may never be taken; set \
             both to the same",
            declared.priority_steps
        );
        return Some(warning(kind, text));
    }
    let separator = node.separator.as_deref().or(by_default.then_some("\u{6}\u{16}"))?;
    if *separator == *declared.separator {
        return None;
    }
    let text = format!(
        "its sep is {:?} and the pool's celery.separator {:?}, so some jobs may never be taken; set both to the same",
        head(separator, 16),
        head(&declared.separator, 16)
    );
    Some(warning(kind, text))
}

fn redelivery(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let seconds = node.visibility_timeout.and_then(|seconds| u64::try_from(seconds).ok());
    let has = seconds.map_or(VISIBILITY_TIMEOUT, Duration::from_secs);
    if has == declared.visibility_timeout {
        return None;
    }
    let text = format!(
        "its visibility_timeout is {} s and the pool's celery.visibilityTimeout {} s; set both to the same",
        has.as_secs(),
        declared.visibility_timeout.as_secs()
    );
    Some(warning(FaultKind::VisibilityTimeoutDiffers, text))
}

fn concurrency(node: &NodeSettings, declared: &Declared) -> Option<Fault> {
    let has = node.concurrency.filter(|concurrency| *concurrency != declared.concurrency)?;
    let text = format!(
        "it runs {has} tasks at once and the pool's spec.concurrency is {}; start it with --concurrency {} or set \
         spec.concurrency to {has}",
        declared.concurrency, declared.concurrency
    );
    Some(warning(FaultKind::ConcurrencyDiffers, text))
}

/// A message that waits for its time raises the count by one, so a single one more proves nothing.
fn prefetch(node: &NodeSettings) -> Option<Fault> {
    let takes =
        node.prefetch_count.zip(node.concurrency).is_some_and(|(count, at_once)| count == 0 || count > 2 * at_once);
    if !takes || node.prefetch_multiplier == Some(1) {
        return None;
    }
    Some(warning(
        FaultKind::PrefetchTooHigh,
        "it takes more messages than it can run; set worker_prefetch_multiplier=1",
    ))
}

/// Celery reads a task's document, once and whatever the retry policy of the backend, before it stores the result
/// (`celery.backends.base.BaseKeyValueStoreBackend._store_result`).
fn retries(node: &NodeSettings) -> Option<Fault> {
    if node.celery.is_none() || node.always_retry == Some(true) {
        return None;
    }
    Some(warning(
        FaultKind::ResultsNotRetried,
        "a run that ends while Redis is away becomes a ConnectionError and is repeated; set \
         result_backend_always_retry=True",
    ))
}
