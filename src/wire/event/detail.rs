use crate::wire::json::{Number, Object, Value};

/// What an event says happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// `worker-online`.
    WorkerOnline(WorkerStatus),
    /// `worker-heartbeat`.
    WorkerHeartbeat(WorkerStatus),
    /// `worker-offline`. A stock worker sends it as soon as it is asked to stop, and still finishes its tasks.
    WorkerOffline(WorkerStatus),
    /// `task-sent`.
    TaskSent {
        /// The task id.
        uuid: String,
        /// The task.
        task: TaskSummary,
        /// The queue, if the sender knows it.
        queue: Option<String>,
        /// The exchange.
        exchange: Option<String>,
        /// The routing key.
        routing_key: Option<String>,
    },
    /// `task-received`.
    TaskReceived {
        /// The task id.
        uuid: String,
        /// The task.
        task: TaskSummary,
    },
    /// `task-started`.
    TaskStarted {
        /// The task id.
        uuid: String,
    },
    /// `task-succeeded`.
    TaskSucceeded {
        /// The task id.
        uuid: String,
        /// `repr` of the return value.
        result: Option<String>,
        /// Seconds it ran.
        runtime: Option<Number>,
    },
    /// `task-failed`.
    TaskFailed {
        /// The task id.
        uuid: String,
        /// `repr` of the exception.
        exception: Option<String>,
        /// The Python traceback.
        traceback: Option<String>,
    },
    /// `task-retried`.
    TaskRetried {
        /// The task id.
        uuid: String,
        /// `repr` of the exception.
        exception: Option<String>,
        /// The Python traceback.
        traceback: Option<String>,
    },
    /// `task-revoked`.
    TaskRevoked {
        /// The task id.
        uuid: String,
        /// Whether it was running and has been killed.
        terminated: Option<bool>,
        /// The signal it was killed with.
        signum: Option<i64>,
        /// Whether it came too late.
        expired: Option<bool>,
    },
    /// `task-rejected`.
    TaskRejected {
        /// The task id.
        uuid: String,
        /// Whether it goes back to its queue.
        requeue: Option<bool>,
    },
    /// Any other event, a task's own for example, or a task event without a task id.
    Other {
        /// Its type.
        event_type: String,
        /// The task id, if there is one.
        uuid: Option<String>,
    },
}

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerStatus {
    /// Seconds between heartbeats.
    pub freq: Option<Number>,
    /// Tasks that are running.
    pub active: Option<i64>,
    /// Tasks accepted since the start.
    pub processed: Option<i64>,
    /// Load averages of its machine.
    pub loadavg: Option<Vec<Value>>,
    /// The software, `py-celery`.
    pub sw_ident: Option<String>,
    /// Its version.
    pub sw_ver: Option<String>,
    /// Its operating system.
    pub sw_sys: Option<String>,
}

/// What an event says about the task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskSummary {
    /// The registered name.
    pub name: Option<String>,
    /// `repr` of the positional arguments.
    pub args: Option<String>,
    /// `repr` of the keyword arguments.
    pub kwargs: Option<String>,
    /// The first task of the tree.
    pub root_id: Option<String>,
    /// The task that sent it.
    pub parent_id: Option<String>,
    /// Runs that came before this one.
    pub retries: Option<i64>,
    /// Not to be run before.
    pub eta: Option<String>,
    /// Not to be run after.
    pub expires: Option<String>,
}

type Fields = Vec<(&'static str, Value)>;

impl Detail {
    pub(super) fn take_from(event_type: String, fields: &mut Object) -> Self {
        match event_type.as_str() {
            "worker-online" => return Self::WorkerOnline(WorkerStatus::take_from(fields)),
            "worker-heartbeat" => return Self::WorkerHeartbeat(WorkerStatus::take_from(fields)),
            "worker-offline" => return Self::WorkerOffline(WorkerStatus::take_from(fields)),
            _ => {}
        }
        let Some(uuid) = fields.take("uuid") else { return Self::Other { event_type, uuid: None } };
        match event_type.as_str() {
            "task-sent" => Self::TaskSent {
                uuid,
                task: TaskSummary::take_from(fields),
                queue: fields.take_nullable("queue"),
                exchange: fields.take_nullable("exchange"),
                routing_key: fields.take_nullable("routing_key"),
            },
            "task-received" => Self::TaskReceived { uuid, task: TaskSummary::take_from(fields) },
            "task-started" => Self::TaskStarted { uuid },
            "task-succeeded" => Self::TaskSucceeded {
                uuid,
                result: fields.take_nullable("result"),
                runtime: fields.take_nullable("runtime"),
            },
            "task-failed" => Self::TaskFailed {
                uuid,
                exception: fields.take_nullable("exception"),
                traceback: fields.take_nullable("traceback"),
            },
            "task-retried" => Self::TaskRetried {
                uuid,
                exception: fields.take_nullable("exception"),
                traceback: fields.take_nullable("traceback"),
            },
            "task-revoked" => Self::TaskRevoked {
                uuid,
                terminated: fields.take_nullable("terminated"),
                signum: fields.take_nullable("signum"),
                expired: fields.take_nullable("expired"),
            },
            "task-rejected" => Self::TaskRejected { uuid, requeue: fields.take_nullable("requeue") },
            _ => Self::Other { event_type, uuid: Some(uuid) },
        }
    }

    /// Its fields in Celery's order. Celery sends those of a task that it has no value for as `null`.
    pub(super) fn fields(&self) -> Fields {
        let mut fields: Fields = self.task_id().map(|uuid| ("uuid", uuid.into())).into_iter().collect();
        match self {
            Self::WorkerOnline(status) | Self::WorkerHeartbeat(status) | Self::WorkerOffline(status) => {
                fields.extend(status.fields());
            }
            Self::TaskSent { uuid: _, task, queue, exchange, routing_key } => {
                fields.extend(task.fields());
                fields.push(("queue", queue.as_deref().into()));
                fields.push(("exchange", exchange.as_deref().into()));
                fields.push(("routing_key", routing_key.as_deref().into()));
            }
            Self::TaskReceived { uuid: _, task } => fields.extend(task.fields()),
            Self::TaskStarted { uuid: _ } | Self::Other { event_type: _, uuid: _ } => {}
            Self::TaskSucceeded { uuid: _, result, runtime } => {
                fields.push(("result", result.as_deref().into()));
                fields.push(("runtime", runtime.clone().into()));
            }
            Self::TaskFailed { uuid: _, exception, traceback }
            | Self::TaskRetried { uuid: _, exception, traceback } => {
                fields.push(("exception", exception.as_deref().into()));
                fields.push(("traceback", traceback.as_deref().into()));
            }
            Self::TaskRevoked { uuid: _, terminated, signum, expired } => {
                fields.push(("terminated", (*terminated).into()));
                fields.push(("signum", (*signum).into()));
                fields.push(("expired", (*expired).into()));
            }
            Self::TaskRejected { uuid: _, requeue } => fields.push(("requeue", (*requeue).into())),
        }
        fields
    }

    /// The type, `task-started` for example.
    pub fn event_type(&self) -> &str {
        match self {
            Self::WorkerOnline(_) => "worker-online",
            Self::WorkerHeartbeat(_) => "worker-heartbeat",
            Self::WorkerOffline(_) => "worker-offline",
            Self::TaskSent { .. } => "task-sent",
            Self::TaskReceived { .. } => "task-received",
            Self::TaskStarted { .. } => "task-started",
            Self::TaskSucceeded { .. } => "task-succeeded",
            Self::TaskFailed { .. } => "task-failed",
            Self::TaskRetried { .. } => "task-retried",
            Self::TaskRevoked { .. } => "task-revoked",
            Self::TaskRejected { .. } => "task-rejected",
            Self::Other { event_type, .. } => event_type,
        }
    }

    /// The task it is about.
    pub fn task_id(&self) -> Option<&str> {
        match self {
            Self::WorkerOnline(_) | Self::WorkerHeartbeat(_) | Self::WorkerOffline(_) => None,
            Self::TaskSent { uuid, .. }
            | Self::TaskReceived { uuid, .. }
            | Self::TaskStarted { uuid }
            | Self::TaskSucceeded { uuid, .. }
            | Self::TaskFailed { uuid, .. }
            | Self::TaskRetried { uuid, .. }
            | Self::TaskRevoked { uuid, .. }
            | Self::TaskRejected { uuid, .. } => Some(uuid),
            Self::Other { uuid, .. } => uuid.as_deref(),
        }
    }
}

impl WorkerStatus {
    fn take_from(fields: &mut Object) -> Self {
        Self {
            freq: fields.take("freq"),
            active: fields.take("active"),
            processed: fields.take("processed"),
            loadavg: fields.take("loadavg"),
            sw_ident: fields.take("sw_ident"),
            sw_ver: fields.take("sw_ver"),
            sw_sys: fields.take("sw_sys"),
        }
    }

    fn fields(&self) -> Fields {
        let Self { freq, active, processed, loadavg, sw_ident, sw_ver, sw_sys } = self;
        let fields: [(_, Value); 7] = [
            ("freq", freq.clone().into()),
            ("active", (*active).into()),
            ("processed", (*processed).into()),
            ("loadavg", loadavg.clone().into()),
            ("sw_ident", sw_ident.as_deref().into()),
            ("sw_ver", sw_ver.as_deref().into()),
            ("sw_sys", sw_sys.as_deref().into()),
        ];
        fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

impl TaskSummary {
    fn take_from(fields: &mut Object) -> Self {
        Self {
            name: fields.take_nullable("name"),
            args: fields.take_nullable("args"),
            kwargs: fields.take_nullable("kwargs"),
            root_id: fields.take_nullable("root_id"),
            parent_id: fields.take_nullable("parent_id"),
            retries: fields.take_nullable("retries"),
            eta: fields.take_nullable("eta"),
            expires: fields.take_nullable("expires"),
        }
    }

    fn fields(&self) -> Fields {
        let Self { name, args, kwargs, root_id, parent_id, retries, eta, expires } = self;
        vec![
            ("name", name.as_deref().into()),
            ("args", args.as_deref().into()),
            ("kwargs", kwargs.as_deref().into()),
            ("root_id", root_id.as_deref().into()),
            ("parent_id", parent_id.as_deref().into()),
            ("retries", (*retries).into()),
            ("eta", eta.as_deref().into()),
            ("expires", expires.as_deref().into()),
        ]
    }
}
