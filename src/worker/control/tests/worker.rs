use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use super::{TASK, now, value};
use crate::wire::{DeliveryInfo, Headers, Message, Properties, TimeLimit, python, time};
use crate::worker::config::{Config, tests::parse};
use crate::worker::routes::Routes;

/// A worker that does what it is told.
pub(super) struct Worker {
    pub(super) node: String,
    busy: Message,
    held: Message,
    properties: Properties,
    registered: Vec<String>,
    rate_limits: BTreeMap<String, String>,
    queues: Vec<Queue>,
    revoked: Revoked,
    totals: BTreeMap<String, i64>,
    broker: Broker,
    config: Config,
    time_limit: TimeLimit,
    routes: Routes,
    events: bool,
}

impl Worker {
    /// The one whose answers were recorded.
    pub(super) fn recorded() -> Self {
        let message = |id: &str, args: &str| {
            let Value::Array(args) = value(args) else { panic!("{args}") };
            let headers = Headers {
                task: TASK.to_owned(),
                id: id.to_owned(),
                eta: Some("2026-11-25T15:11:00.591112+00:00".to_owned()),
                argsrepr: Some(python::safe_repr_array(&args)),
                kwargsrepr: Some("{}".to_owned()),
                ..Headers::default()
            };
            Message { headers, args, ..Message::default() }
        };
        let others = ["cleanup_old_results", "health_check", "old_errback", "parent"];
        Self {
            node: "control@golden".to_owned(),
            busy: message("92f6ac74-30f0-5fd5-8589-5d11bd91bd3e", r#"["busy", {"mode": "sleep", "seconds": 120}]"#),
            held: message("65fbc605-6207-53c0-a61f-4d0256badc1e", r#"["held", {}]"#),
            properties: Properties {
                delivery_info: DeliveryInfo::to_queue("crew_jobs"),
                priority: Some(5),
                ..Properties::default()
            },
            registered: [TASK.to_owned(), "backend.celery_app.error_handler".to_owned()]
                .into_iter()
                .chain(others.map(|name| format!("backend.tasks.{name}")))
                .collect(),
            rate_limits: BTreeMap::new(),
            queues: vec![Queue::new("crew_jobs", "crew.jobs"), Queue::new("default", "default")],
            revoked: Revoked::default(),
            totals: [(TASK.to_owned(), 1)].into(),
            broker: Broker { hostname: "127.0.0.1".to_owned(), port: 6379, database: 0, userid: None, tls: false },
            config: parse(&["--visibility-timeout=7200"]).unwrap(),
            time_limit: TimeLimit::seconds(3600, 3000),
            routes: Routes::new([(TASK.to_owned(), "crew_jobs".to_owned())], "default"),
            events: true,
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        let task = |message, started: Option<f64>, pid| Task {
            message,
            properties: &self.properties,
            started: started.map(|_| time::parse("2026-11-25T14:56:00.624923Z").unwrap()),
            pid,
            acknowledged: false,
        };
        View {
            node: &self.node,
            pid: 14776,
            uptime: Duration::from_millis(1_900),
            clock: 15,
            concurrency: 1,
            running: vec![task(&self.busy, Some(0.0), Some(14815))],
            reserved: Vec::new(),
            scheduled: vec![task(&self.held, None, None)],
            registered: &self.registered,
            rate_limits: &self.rate_limits,
            queues: &self.queues,
            revoked: &self.revoked,
            totals: &self.totals,
            broker: &self.broker,
            prefetch_count: 2,
            usage: Some(Usage { user: Duration::from_millis(400), ..Usage::default() }),
            memory: None,
            config: &self.config,
            time_limit: &self.time_limit,
            routes: &self.routes,
            events: self.events,
        }
    }

    pub(super) fn answer(&mut self, request: &Request) -> Answered {
        let answered = answer(request, &self.view(), now());
        for action in answered.actions.clone() {
            match action {
                Action::Revoke { ids, signal: _ } | Action::Merge { revoked: ids } => self.revoked.add(ids, now()),
                Action::RateLimit { task, text, per_second: _ } if text.is_empty() => {
                    self.rate_limits.remove(&task);
                }
                Action::RateLimit { task, text, per_second: _ } => {
                    self.rate_limits.insert(task, text);
                }
                Action::EnableEvents => self.events = true,
                Action::DisableEvents => self.events = false,
                Action::Heartbeat
                | Action::Shutdown
                | Action::AddConsumer(_)
                | Action::CancelConsumer(_)
                | Action::Grow(_)
                | Action::Shrink(_)
                | Action::TimeLimit { .. } => {}
            }
        }
        answered
    }
}
