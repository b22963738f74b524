//! Remote control: asking workers to do or to say something.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;

use super::notice::moment;
use super::{Error, Store};
use crate::core::id::TaskId;
use crate::core::index::audit::RateLimit;
use crate::core::setup::{Backend, Compression, KnownTask, NodeSettings};
use crate::core::status::head;
use crate::wire::Value;
use crate::wire::compression;
use crate::wire::pidbox::{RegisteredTask, Request, TaskInfo, WorkerConf, WorkerReport, WorkerStats};

/// The signal that ends the child process of a revoked task.
pub const TERMINATE: &str = "SIGTERM";

/// Tasks that one question asks about.
const QUESTION: usize = 1000;

/// What a worker says about its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Node name.
    pub name: Arc<str>,
    /// Those of the tasks asked for that it has: running, reserved, or waiting for their time.
    pub tasks: Vec<RunningTask>,
}

/// A task that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningTask {
    /// Which task.
    pub task: TaskId,
    /// When the run began.
    pub started_at: Option<Timestamp>,
    /// Its message is acknowledged already: nothing on Redis brings it back.
    pub acknowledged: bool,
}

impl Store {
    /// Tells workers to drop these tasks, and with a signal to kill those that run. Says how many workers listen.
    pub async fn revoke<T: Display + Sync>(
        &self,
        tasks: &[T],
        signal: Option<&str>,
        nodes: Option<&[Arc<str>]>,
    ) -> Result<u64, Error> {
        let mut listening = 0;
        for tasks in tasks.chunks(1000) {
            let mut request = Request::revoke(tasks.iter().map(ToString::to_string).collect(), signal);
            if let Some(nodes) = nodes {
                request = request.to(nodes.iter().map(ToString::to_string).collect());
            }
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(self.0.names.broker.pidbox_channel());
            publish.arg(request.envelope(0, None, tasks[0].to_string()).encode());
            listening = self.0.broker.query("revoking tasks", &publish).await?;
        }
        Ok(listening)
    }

    /// Asks all workers which of these tasks they have. Workers that shut down do not answer, although they may still run
    /// tasks; those that answer are all listed, whether they have any or not.
    ///
    /// `query_task` answers for everything that a worker has received and not finished, whatever its state, but before
    /// Celery 5.7 not for what waits for its time: so `scheduled` is asked first. It forgets a copy of a task whose first
    /// run ends, so `active` is asked too, afterwards: what is begun in between is in one.
    pub async fn holders(&self, tasks: &[TaskId]) -> Result<Vec<Node>, Error> {
        let ids = |tasks: &[TaskId]| tasks.iter().map(TaskId::to_string).collect();
        let mut questions = vec![Request::scheduled()];
        questions.extend(tasks.chunks(QUESTION).map(|tasks| Request::query_task(ids(tasks))));
        questions.push(Request::active());
        let asked = questions.len();
        let wanted: HashSet<&TaskId> = tasks.iter().collect();
        let mut nodes: HashMap<Arc<str>, (usize, HashMap<TaskId, RunningTask>)> = HashMap::new();
        for question in questions {
            for (name, answer) in self.inspect(question).await? {
                let (answers, has) = nodes.entry(name).or_default();
                *answers += 1;
                let queried = TaskInfo::query(&answer).into_iter().map(|(_, info)| info);
                let described = queried.chain(TaskInfo::list(&answer)).filter_map(|info| RunningTask::of(&info));
                for task in described.filter(|task| wanted.contains(&task.task)) {
                    let known = has.entry(task.task).or_insert(task);
                    known.started_at = known.started_at.or(task.started_at);
                }
            }
        }
        let answered_all = nodes.into_iter().filter(|(_, (answers, tasks))| *answers == asked || !tasks.is_empty());
        Ok(answered_all.map(|(name, (_, tasks))| Node { name, tasks: tasks.into_values().collect() }).collect())
    }

    /// Asks workers for the ids of all tasks that they run or have taken, of any producer. Those that have not answered
    /// are left out.
    pub async fn tasks_of(&self, nodes: &[Arc<str>]) -> Result<HashMap<Arc<str>, Vec<String>>, Error> {
        let to = |request: Request| self.inspect(request.to(nodes.iter().map(ToString::to_string).collect()));
        let (active, reserved) = tokio::try_join!(to(Request::active()), to(Request::reserved()))?;
        let ids = |answer: &Value| TaskInfo::list(answer).into_iter().map(|info| info.id).collect::<Vec<_>>();
        let mut reserved: HashMap<_, _> = reserved.into_iter().map(|(node, answer)| (node, ids(&answer))).collect();
        let both = active.into_iter().filter_map(|(node, answer)| {
            let mut tasks = reserved.remove(&node)?;
            tasks.extend(ids(&answer));
            Some((node, tasks))
        });
        Ok(both.filter(|(node, _)| nodes.contains(node)).collect())
    }

    /// Asks all workers which of these tasks they limit the rate of.
    pub async fn rate_limits(&self, tasks: &HashSet<Arc<str>>) -> Result<Vec<RateLimit>, Error> {
        let registered = Request::registered_with(&["rate_limit"]);
        let (registered, stats) = tokio::try_join!(self.inspect(registered), self.inspect(Request::stats()))?;
        let prefetched = |answer: &Value| WorkerStats::decode(answer).prefetch_count;
        let prefetched: HashMap<_, _> =
            stats.into_iter().filter_map(|(node, answer)| Some((node, prefetched(&answer)?))).collect();
        let of_node = |(node, answer): (Arc<str>, Value)| {
            let prefetched = prefetched.get(&node).copied();
            let limit = move |task: RegisteredTask| {
                let every = task.every?;
                Some(RateLimit { task: tasks.get(&*task.name)?.clone(), every, prefetched })
            };
            RegisteredTask::list(&answer).into_iter().filter_map(limit).take(tasks.len())
        };
        Ok(registered.into_iter().flat_map(of_node).collect())
    }

    /// The names of the workers that answer a call to all.
    pub async fn present(&self) -> Result<Vec<Arc<str>>, Error> {
        Ok(self.inspect(Request::ping()).await?.into_iter().map(|(node, _)| node).collect())
    }

    /// Asks these workers how they are set up, also as to these tasks. Each answers some 15 kB.
    pub async fn node_settings(&self, nodes: &[Arc<str>], tasks: &[Arc<str>]) -> Result<Vec<NodeSettings>, Error> {
        let to = |request: Request| self.inspect(request.to(nodes.iter().map(ToString::to_string).collect()));
        // Waiting for an answer is a dozen round trips: what does not answer one question is not asked the others.
        let conf = to(Request::conf(true)).await?;
        if conf.is_empty() {
            return Ok(Vec::new());
        }
        let registered = Request::registered_with(&["ignore_result", "acks_late"]);
        let (stats, queues, registered, report) = tokio::try_join!(
            to(Request::stats()),
            to(Request::active_queues()),
            to(registered),
            to(Request::report()),
        )?;
        let by_node = |answers: Vec<(Arc<str>, Value)>| answers.into_iter().collect::<HashMap<_, _>>();
        let (stats, queues, registered, report) =
            (by_node(stats), by_node(queues), by_node(registered), by_node(report));
        let described = conf.into_iter().map(|(name, conf)| {
            let answers = Answers {
                conf: WorkerConf::decode(&conf),
                stats: stats.get(&name).map(WorkerStats::decode).unwrap_or_default(),
                report: report.get(&name).map(WorkerReport::decode).unwrap_or_default(),
                queues: queues.get(&name).and_then(names_of),
                registered: registered.get(&name).map(RegisteredTask::list).unwrap_or_default(),
            };
            answers.settings(name, tasks)
        });
        Ok(described.collect())
    }

    /// Asks workers something and waits until all that listen have answered, at most for a second.
    pub async fn inspect(&self, request: Request) -> Result<Vec<(Arc<str>, Value)>, Error> {
        self.0.pidbox.ask("asking the workers", request).await
    }
}

/// Bytes that are kept of a text that a worker says of itself.
const TEXT: usize = 128;
/// Queues that are kept of one worker.
const QUEUES: usize = 1000;

/// What one worker has answered.
struct Answers {
    conf: WorkerConf,
    stats: WorkerStats,
    report: WorkerReport,
    queues: Option<Vec<Arc<str>>>,
    registered: Vec<RegisteredTask>,
}

impl Answers {
    /// What matters of it.
    fn settings(self, name: Arc<str>, tasks: &[Arc<str>]) -> NodeSettings {
        let Self { conf, stats, report, queues, registered } = self;
        let text = |text: String| Arc::from(head(&text, TEXT));
        let known = registered.into_iter().filter_map(|task| {
            let name = tasks.iter().find(|name| ***name == *task.name)?.clone();
            Some(KnownTask { name, ignores_result: task.ignore_result, acks_late: task.acks_late })
        });
        NodeSettings {
            name,
            celery: report.celery,
            concurrency: stats.autoscales_to.or(stats.max_concurrency),
            prefetch_count: stats.prefetch_count,
            prefetch_multiplier: conf.prefetch_multiplier,
            always_retry: conf.always_retry,
            acks_late: conf.acks_late,
            visibility_timeout: conf.visibility_timeout,
            pid: stats.pid,
            queues,
            tasks: known.take(tasks.len()).collect(),
            results: report.results.as_deref().and_then(Backend::parse),
            broker: stats.broker.hostname.map(text).zip(stats.broker.port),
            result_serializer: conf.result_serializer.map(text),
            result_compression: conf
                .result_compression
                .map(|method| Compression { is_read: compression::is_known(&method), method: text(method) }),
            has_result_prefix: conf.has_result_prefix,
            // A native worker has no such setting: it always says when it begins.
            is_quiet: report.celery.is_some()
                && conf.track_started == Some(false)
                && conf.send_task_events == Some(false),
            priority_steps: stats.broker.priority_steps.map(|steps| steps.into_iter().take(10).collect()),
            separator: stats.broker.separator.map(text),
            unacked_key: stats.broker.unacked_key.map(text),
        }
    }
}

/// The names in an answer to `active_queues`. A worker that consumes none at the moment may be connecting.
fn names_of(queues: &Value) -> Option<Vec<Arc<str>>> {
    let queues = queues.as_array().filter(|queues| !queues.is_empty())?.iter().take(QUEUES);
    Some(queues.filter_map(|queue| queue.get("name")?.as_str()).map(|name| head(name, TEXT).into()).collect())
}

impl RunningTask {
    /// A task as a worker describes it; `None` when it is not ours.
    fn of(info: &TaskInfo) -> Option<Self> {
        Some(Self {
            task: TaskId::parse(&info.id)?,
            started_at: info.time_start.as_ref().and_then(|seconds| moment(seconds.as_f64())),
            acknowledged: info.acknowledged.unwrap_or(false),
        })
    }
}
