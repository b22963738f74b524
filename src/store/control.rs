//! Remote control: asking workers to do or to say something.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use jiff::Timestamp;

use super::notice::moment;
use super::{Error, Store};
use crate::core::id::TaskId;
use crate::wire::Value;
use crate::wire::pidbox::{Request, TaskInfo, WorkerConf, WorkerStats};

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

/// How a worker is set up, as far as it matters to the operator. `None` is what it does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSettings {
    /// Node name.
    pub name: Arc<str>,
    /// Tasks that run at once, at most.
    pub concurrency: Option<i64>,
    /// Messages taken at once, as it is now; one more for each that waits for its time.
    pub prefetch_count: Option<i64>,
    /// Messages taken at once per task that can run, as configured.
    pub prefetch_multiplier: Option<i64>,
    /// Whether messages are acknowledged after the run.
    pub acks_late: Option<bool>,
    /// Seconds after which messages are delivered again, where it is not kombu's default of 3600.
    pub visibility_timeout: Option<i64>,
    /// Main process.
    pub pid: Option<i64>,
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

    /// The names of the workers that answer a call to all.
    pub async fn present(&self) -> Result<Vec<Arc<str>>, Error> {
        Ok(self.inspect(Request::ping()).await?.into_iter().map(|(node, _)| node).collect())
    }

    /// Asks these workers how they are set up. Each answers some 10 kB.
    pub async fn node_settings(&self, nodes: &[Arc<str>]) -> Result<Vec<NodeSettings>, Error> {
        let to = |request: Request| self.inspect(request.to(nodes.iter().map(ToString::to_string).collect()));
        let (conf, stats) = tokio::try_join!(to(Request::conf(true)), to(Request::stats()))?;
        let mut stats: HashMap<_, _> = stats.into_iter().collect();
        let described = conf.into_iter().map(|(name, conf)| {
            let stats = stats.remove(&name).map(|answer| WorkerStats::decode(&answer)).unwrap_or_default();
            let conf = WorkerConf::decode(&conf);
            NodeSettings {
                name,
                concurrency: stats.autoscales_to.or(stats.max_concurrency),
                prefetch_count: stats.prefetch_count,
                prefetch_multiplier: conf.prefetch_multiplier,
                acks_late: conf.acks_late,
                visibility_timeout: conf.visibility_timeout,
                pid: stats.pid,
            }
        });
        Ok(described.collect())
    }

    /// Asks workers something and waits until all that listen have answered, at most for a second.
    pub async fn inspect(&self, request: Request) -> Result<Vec<(Arc<str>, Value)>, Error> {
        self.0.pidbox.ask("asking the workers", request).await
    }
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
