//! How the workers of a pool are set up: from what they say of themselves to what that means for the pool and its jobs.

mod faults;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::status::head;

/// Workers that a message names; of more only the number is said.
const NAMED: usize = 3;
/// Bytes of a message for the jobs that wait: with what goes before it, a condition has room for it.
const DETAIL: usize = 320;

/// The backends of Celery that are no Redis, of `celery/app/backends.py`.
const OTHERS: [&str; 19] = [
    "rpc",
    "cache",
    "mongodb",
    "db",
    "database",
    "elasticsearch",
    "cassandra",
    "couchbase",
    "couchdb",
    "cosmosdbsql",
    "riak",
    "file",
    "consul",
    "dynamodb",
    "azureblockblob",
    "arangodb",
    "s3",
    "gs",
    "django-db",
];

/// How a worker is set up, as far as it matters to the operator. `None` is what it does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSettings {
    /// Node name.
    pub name: Arc<str>,
    /// Major and minor version of Celery; `None` of another program.
    pub celery: Option<(u32, u32)>,
    /// Tasks that run at once, at most.
    pub concurrency: Option<i64>,
    /// Messages taken at once, as it is now; one more for each that waits for its time.
    pub prefetch_count: Option<i64>,
    /// Messages taken at once per task that can run, as configured.
    pub prefetch_multiplier: Option<i64>,
    /// Whether messages are acknowledged after the run, as configured for all tasks.
    pub acks_late: Option<bool>,
    /// Seconds after which messages are delivered again, where it is not kombu's default of 3600.
    pub visibility_timeout: Option<i64>,
    /// Main process.
    pub pid: Option<i64>,
    /// The names of the queues it consumes.
    pub queues: Option<Vec<Arc<str>>>,
    /// The tasks of the pool that it knows.
    pub tasks: Vec<KnownTask>,
    /// Where it stores results.
    pub results: Option<Backend>,
    /// The host and port of its broker, as it names them.
    pub broker: Option<(Arc<str>, u16)>,
    /// `result_serializer`.
    pub result_serializer: Option<Arc<str>>,
    /// `result_compression`, where one is set.
    pub result_compression: Option<Compression>,
    /// Whether `result_backend_transport_options` have a `global_keyprefix`. Celery does not show which, nor whether it is
    /// empty.
    pub has_result_prefix: Option<bool>,
    /// Whether it neither stores that a task has begun (`task_track_started`) nor sends events by its configuration;
    /// `celery worker -E` does not show.
    pub is_quiet: bool,
    /// `priority_steps`, where they are set.
    pub priority_steps: Option<Vec<i64>>,
    /// `sep`, where it is set.
    pub separator: Option<Arc<str>>,
    /// `unacked_key`, where it is set.
    pub unacked_key: Option<Arc<str>>,
    /// `result_backend_always_retry`: a result waits while Redis is away.
    pub always_retry: Option<bool>,
}

/// A task that a worker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTask {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its results are not stored, whatever a message asks for.
    pub ignores_result: Option<bool>,
    /// Whether its messages are acknowledged after the run.
    pub acks_late: Option<bool>,
}

/// Where a worker stores results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Nowhere.
    Disabled,
    /// In a database of a Redis.
    Redis {
        /// The server, as the worker names it.
        host: Arc<str>,
        /// Its port.
        port: u16,
        /// The number of the database.
        database: i64,
    },
    /// In something that is no Redis, such as `rpc` or `db`.
    Other(Arc<str>),
}

impl Backend {
    /// Reads what a worker's report says: `disabled`, `rpc://`, `redis://user:**@host:6379/1`. `None` where that does not tell
    /// where results are, as with a sentinel or a class of the application's own.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
        if scheme == "disabled" {
            return Some(Self::Disabled);
        }
        if !matches!(scheme, "redis" | "rediss") {
            let kind = scheme.split('+').next().unwrap_or(scheme);
            return OTHERS.contains(&kind).then(|| Self::Other(kind.into()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "6379"));
        let number = path.trim_matches('/');
        if host.is_empty() || query.split('&').any(|option| option.starts_with("db=")) {
            return None;
        }
        let database = if number.is_empty() { 0 } else { number.parse().ok()? };
        Some(Self::Redis { host: head(host, 253).into(), port: port.parse().ok()?, database })
    }
}

/// A way of compressing results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// As it is configured.
    pub method: Arc<str>,
    /// Whether the operator can undo it.
    pub is_read: bool,
}

/// What the pool says of its workers, and its Secret of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// `visibility_timeout`.
    pub visibility_timeout: Duration,
    /// Tasks that a worker runs at once.
    pub concurrency: i64,
    /// The pool's queues.
    pub queues: Vec<Arc<str>>,
    /// The host and port of the broker.
    pub broker: (Arc<str>, u16),
    /// The host, port and database of the results.
    pub results: (Arc<str>, u16, i64),
    /// `global_keyprefix` of the results, empty for none.
    pub result_prefix: Arc<str>,
    /// Whether the pool names a prefix at all, if only to say that there is none.
    pub names_prefix: bool,
    /// Whether the keys of results have an underscore before `celery-task-meta-`.
    pub has_underscore: bool,
    /// `priority_steps`.
    pub priority_steps: Vec<i64>,
    /// `sep`.
    pub separator: Arc<str>,
    /// `unacked_key`.
    pub unacked_key: Arc<str>,
}

/// The shell that is the main process of a worker's container, and the container.
pub type Shell = (Arc<str>, Arc<str>);

/// The closed list of what may be wrong with a worker's settings, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// It stores results nowhere, or elsewhere than where they are read.
    ResultBackendDiffers,
    /// It stores results under other keys than those that are read.
    ResultKeysDiffer,
    /// It writes results in a format that is not read.
    ResultSerializerNotJson,
    /// It compresses results in a way that is not read.
    ResultCompressionUnknown,
    /// It stores no results of a task.
    ResultsIgnored,
    /// It acknowledges messages before it runs them.
    AcknowledgesEarly,
    /// A shell keeps SIGTERM from it.
    ShellTakesSignals,
    /// Its `unacked_key` is another one.
    UnackedKeyDiffers,
    /// It does not look into all bands of priorities.
    PrioritiesDiffer,
    /// Its `visibility_timeout` is another one.
    VisibilityTimeoutDiffers,
    /// It runs another number of tasks at once.
    ConcurrencyDiffers,
    /// It takes more messages than it can run.
    PrefetchTooHigh,
    /// It gives a result up that is to be stored while Redis is away.
    ResultsNotRetried,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::ResultBackendDiffers,
        Self::ResultKeysDiffer,
        Self::ResultSerializerNotJson,
        Self::ResultCompressionUnknown,
        Self::ResultsIgnored,
        Self::AcknowledgesEarly,
        Self::ShellTakesSignals,
        Self::UnackedKeyDiffers,
        Self::PrioritiesDiffer,
        Self::VisibilityTimeoutDiffers,
        Self::ConcurrencyDiffers,
        Self::PrefetchTooHigh,
        Self::ResultsNotRetried,
    ];

    /// The kind with this name.
    pub fn named(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.reason() == reason)
    }

    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ResultBackendDiffers => "ResultBackendDiffers",
            Self::ResultKeysDiffer => "ResultKeysDiffer",
            Self::ResultSerializerNotJson => "ResultSerializerNotJson",
            Self::ResultCompressionUnknown => "ResultCompressionUnknown",
            Self::ResultsIgnored => "ResultsIgnored",
            Self::AcknowledgesEarly => "AcknowledgesEarly",
            Self::ShellTakesSignals => "ShellTakesSignals",
            Self::UnackedKeyDiffers => "UnackedKeyDiffers",
            Self::PrioritiesDiffer => "PrioritiesDiffer",
            Self::VisibilityTimeoutDiffers => "VisibilityTimeoutDiffers",
            Self::ConcurrencyDiffers => "ConcurrencyDiffers",
            Self::PrefetchTooHigh => "PrefetchTooHigh",
            Self::ResultsNotRetried => "ResultsNotRetried",
        }
    }
}

/// Something that is wrong with one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    kind: FaultKind,
    /// The setting, its value, and what to set.
    text: String,
    loses: Loses,
}

/// The results that are lost or unreadable for certain because of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loses {
    Nothing,
    Everything,
    ResultsOf(Vec<Arc<str>>),
}

/// What the settings of a pool's workers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The worst of what is wrong; `None` where nothing is.
    pub worst: Option<FaultKind>,
    /// Everything that is wrong, the worst worker first, and how to mend it; or a hint, where nothing is wrong.
    pub message: String,
    /// Why jobs wait, where each run would be paid for in vain.
    pub futile: Option<Futile>,
}

/// Why a run is in vain: a worker that could take it stores its result where, or as, it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Futile {
    /// The worst of what is wrong.
    pub kind: FaultKind,
    /// Which worker, which setting, and what to set; at most 320 bytes.
    pub detail: Arc<str>,
    /// The tasks whose results are lost; empty for all.
    pub tasks: Vec<Arc<str>>,
}

impl Futile {
    /// As a condition says it: which tasks are concerned is not known then.
    pub fn recorded(reason: &str, message: &str) -> Option<Self> {
        let kind = FaultKind::named(reason).filter(|kind| *kind <= FaultKind::ResultsIgnored)?;
        Some(Self { kind, detail: head(message, DETAIL).into(), tasks: Vec::new() })
    }

    /// Whether a run of this task would be in vain.
    pub fn concerns(&self, task: &str) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|ignored| **ignored == *task)
    }
}

/// What these workers come to; `None` where there is none. Those that consume none of the pool's queues do not count: a broker
/// may serve other applications, too. One worker that would waste a run is enough, as any of them may take the next message.
pub fn judge(
    nodes: &[&NodeSettings],
    declared: &Declared,
    shell_of: impl Fn(&str) -> Option<Shell>,
) -> Option<Finding> {
    let consumes = |node: &&&NodeSettings| match &node.queues {
        Some(queues) => queues.iter().any(|queue| declared.queues.contains(queue)),
        None => true,
    };
    let nodes: Vec<&NodeSettings> = nodes.iter().filter(consumes).copied().collect();
    if nodes.is_empty() {
        return None;
    }
    let mut wrong: Vec<(&str, Vec<Fault>)> = nodes
        .iter()
        .map(|node| (&*node.name, faults::of(node, declared, shell_of(&node.name))))
        .filter(|(_, faults)| !faults.is_empty())
        .collect();
    wrong.sort_by_key(|(_, faults)| faults.iter().map(|fault| fault.kind).min());
    let worst = wrong.first().and_then(|(_, faults)| faults.iter().map(|fault| fault.kind).min());
    let message = match worst {
        Some(_) => list(&wrong, |_| true),
        None => faults::hint(&nodes, declared).unwrap_or_default(),
    };
    Some(Finding { worst, message, futile: futile(&wrong) })
}

fn futile(wrong: &[(&str, Vec<Fault>)]) -> Option<Futile> {
    let loses = |fault: &Fault| fault.loses != Loses::Nothing;
    let counted: Vec<&Fault> = wrong.iter().flat_map(|(_, faults)| faults).filter(|fault| loses(fault)).collect();
    let kind = counted.iter().map(|fault| fault.kind).min()?;
    let mut tasks: Vec<Arc<str>> = Vec::new();
    for fault in &counted {
        match &fault.loses {
            Loses::Nothing => {}
            Loses::Everything => {
                tasks.clear();
                break;
            }
            Loses::ResultsOf(names) => tasks.extend(names.iter().cloned()),
        }
    }
    tasks.sort_unstable();
    tasks.dedup();
    Some(Futile { kind, detail: head(&list(wrong, loses), DETAIL).into(), tasks })
}

/// Each worker with those of its faults that matter, the worst first.
fn list(wrong: &[(&str, Vec<Fault>)], matters: impl Fn(&Fault) -> bool) -> String {
    let wrong: Vec<(&str, Vec<&str>)> = wrong
        .iter()
        .map(|(node, faults)| {
            let mut faults: Vec<&Fault> = faults.iter().filter(|fault| matters(fault)).collect();
            faults.sort_by_key(|fault| fault.kind);
            (*node, faults.into_iter().map(|fault| fault.text.as_str()).collect::<Vec<_>>())
        })
        .filter(|(_, texts)| !texts.is_empty())
        .collect();
    let mut said: Vec<String> =
        wrong.iter().take(NAMED).map(|(node, texts)| format!("{}: {}", head(node, 128), texts.join("; "))).collect();
    if wrong.len() > NAMED {
        said.push(format!("and {} more", wrong.len() - NAMED));
    }
    said.join(". ")
}
