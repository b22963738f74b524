//! From what Celery workers say of themselves to the pool that fits them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{self, Celery};
use crate::wire;
use crate::wire::pidbox::{RegisteredTask, WorkerConf, WorkerStats};

/// What each worker has answered to each question.
type Said = Vec<(Arc<str>, wire::Value)>;

/// What all workers have answered.
#[derive(Debug, Default)]
pub struct Answers {
    pub conf: Said,
    pub stats: Said,
    pub queues: Said,
    pub registered: Said,
}

/// The pool, and what people should know besides.
#[derive(Debug, Default)]
pub struct Found {
    /// What things are called on Redis.
    pub celery: Celery,
    /// Queues with their routing keys.
    pub queues: Vec<(String, String)>,
    tasks: BTreeSet<String>,
    concurrency: Option<i64>,
    soft: Option<u64>,
    hard: Option<u64>,
    /// One line each.
    pub notes: Vec<String>,
}

/// What the answers come to.
pub fn found(answers: &Answers, global_keyprefix: Option<&str>) -> Found {
    let mut found = Found::default();
    found.celery.global_key_prefix = global_keyprefix.map(str::to_owned);
    if answers.conf.is_empty() {
        found.notes.push(
            "no worker has answered, so these are the defaults; with a global_keyprefix of the broker, give --global-keyprefix"
                .to_owned(),
        );
    }
    for (node, conf) in &answers.conf {
        found.settings(node, conf);
    }
    let mut queues = BTreeMap::new();
    for (_, answer) in &answers.queues {
        for queue in answer.as_array().unwrap_or_default() {
            let text = |value: &wire::Value, key: &str| value.get(key).and_then(wire::Value::as_str).map(str::to_owned);
            let Some(name) = text(queue, "name") else { continue };
            let key = text(queue, "routing_key").filter(|key| !key.is_empty()).unwrap_or_else(|| name.clone());
            let exchange = queue.get("exchange").and_then(|exchange| text(exchange, "name")).unwrap_or_default();
            if !exchange.is_empty() && exchange != name {
                found.notes.push(format!(
                    "the queue {name} is bound to the exchange {exchange}; a pool's queues are bound to exchanges of their own names, \
                     which jobs do not need"
                ));
            }
            queues.insert(name, key);
        }
    }
    found.queues = queues.into_iter().collect();
    let registered = answers.registered.iter().flat_map(|(_, answer)| RegisteredTask::list(answer));
    found.tasks = registered.map(|task| task.name).filter(|name| !name.starts_with("celery.")).collect();
    for (node, answer) in &answers.stats {
        found.stats(node, &WorkerStats::decode(answer));
    }
    found.notes.dedup();
    found
}

impl Found {
    fn settings(&mut self, node: &str, answer: &wire::Value) {
        let seconds = |key: &str| answer.get(key).and_then(wire::Value::as_f64).filter(|it| *it >= 1.0);
        let whole = |value: f64| Duration::try_from_secs_f64(value).ok().map(|length| length.as_secs());
        self.hard = self.hard.max(seconds("task_time_limit").and_then(whole));
        self.soft = self.soft.max(seconds("task_soft_time_limit").and_then(whole));
        if let Some(expires) = seconds("result_expires").and_then(whole) {
            self.celery.result_expires = api::Duration::from(Duration::from_secs(expires));
        }
        let conf = WorkerConf::decode(answer);
        if let Some(timeout) = conf.visibility_timeout.and_then(|it| u64::try_from(it).ok()) {
            self.celery.visibility_timeout = api::Duration::from(Duration::from_secs(timeout));
        }
        let mut says = |text: &str| self.notes.push(format!("{node}: {text}"));
        if conf.acks_late != Some(true) {
            says("task_acks_late is off, so a message is lost with its worker; set it to True");
        }
        if conf.prefetch_multiplier.is_none_or(|it| it != 1) {
            says("worker_prefetch_multiplier is not 1, so messages wait behind the tasks of one worker; set it to 1");
        }
        if conf.send_task_events != Some(true) {
            says("worker_send_task_events is off, so that it takes longer to see that a job runs; set it to True");
        }
        if conf.result_serializer.as_deref().is_some_and(|it| it != "json") {
            says("result_serializer is not \"json\", so results are not read; set it to \"json\"");
        }
        if conf.has_result_prefix == Some(true) {
            says("the result backend has a global_keyprefix, whose value it does not tell; set celery.resultKeyPrefix");
        }
        if answer.get("broker_transport_options").and_then(|it| it.get("global_keyprefix")).is_some()
            && self.celery.global_key_prefix.is_none()
        {
            says("the broker has a global_keyprefix, whose value it does not tell; give --global-keyprefix");
        }
    }

    fn stats(&mut self, node: &str, stats: &WorkerStats) {
        let most = stats.autoscales_to.or(stats.max_concurrency);
        if self.concurrency.is_some() && most.is_some() && self.concurrency != most {
            self.notes
                .push(format!("{node}: its concurrency is another one than that of other workers; a pool has one"));
        }
        self.concurrency = self.concurrency.max(most);
        if let Some(steps) = &stats.broker.priority_steps {
            self.celery.priority_steps = steps.iter().filter_map(|step| i32::try_from(*step).ok()).collect();
        }
        if let Some(separator) = &stats.broker.separator {
            self.celery.separator.clone_from(separator);
        }
        if let Some(unacked) = &stats.broker.unacked_key {
            self.celery.unacked_key.clone_from(unacked);
        }
    }

    /// The manifest of the pool. What is as Celery has it by default is left out.
    pub fn pool(&self, name: &str, secret: Option<&str>) -> Value {
        let mut spec = json!({ "redis": { "secretName": secret.unwrap_or("redis") } });
        let (celery, usual) = (json!(self.celery), json!(Celery::default()));
        let own: serde_json::Map<String, Value> = celery
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, value)| usual.get(field) != Some(value))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        let mut set = |field: &str, value: Value| spec[field] = value;
        if !own.is_empty() {
            set("celery", own.into());
        }
        if !self.queues.is_empty() {
            let queue = |(name, key): &(String, String)| {
                if name == key { json!({ "name": name }) } else { json!({ "name": name, "routingKey": key }) }
            };
            set("queues", self.queues.iter().map(queue).collect());
        }
        if !self.tasks.is_empty() {
            set("allowedTasks", json!(self.tasks));
        }
        if let Some(concurrency) = self.concurrency {
            set("concurrency", concurrency.into());
        }
        let timeouts: serde_json::Map<String, Value> = [("soft", self.soft), ("hard", self.hard)]
            .into_iter()
            .filter_map(|(field, seconds)| {
                let duration = api::Duration::from(Duration::from_secs(seconds?));
                Some((field.to_owned(), json!(duration)))
            })
            .collect();
        if !timeouts.is_empty() {
            set("jobDefaults", json!({ "timeouts": timeouts }));
        }
        json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewWorkerPool", "metadata": { "name": name }, "spec": spec,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn said(text: &str) -> Said {
        vec![("celery@old".into(), wire::Value::parse(text.as_bytes()).unwrap())]
    }

    #[test]
    fn a_pool_has_what_the_workers_say_and_leaves_out_what_is_usual() {
        let answers = Answers {
            conf: said(
                r#"{"task_time_limit": 3600, "task_soft_time_limit": 3000, "result_expires": 7200, "task_acks_late": true,
                    "worker_prefetch_multiplier": 1, "worker_send_task_events": true, "result_serializer": "json",
                    "broker_transport_options": {"visibility_timeout": 43200, "priority_steps": [0, 5]}}"#,
            ),
            stats: said(
                r#"{"pool": {"max-concurrency": 4}, "broker": {"transport_options": {"priority_steps": [0, 5], "sep": ":"}}}"#,
            ),
            queues: said(
                r#"[{"name": "crew_jobs", "exchange": {"name": "crew_jobs"}, "routing_key": "crew.jobs"},
                    {"name": "default", "exchange": {"name": "shared"}, "routing_key": "default"}]"#,
            ),
            registered: said(r#"["app.run", "celery.chord", "app.clean [rate_limit=1/m]"]"#),
        };
        let found = found(&answers, None);
        assert_eq!(
            found.pool("crews", Some("broker"))["spec"],
            json!({
                "redis": { "secretName": "broker" },
                "celery": { "prioritySteps": [0, 5], "separator": ":", "visibilityTimeout": "12h", "resultExpires": "2h" },
                "queues": [{ "name": "crew_jobs", "routingKey": "crew.jobs" }, { "name": "default" }],
                "allowedTasks": ["app.clean", "app.run"],
                "concurrency": 4,
                "jobDefaults": { "timeouts": { "soft": "50m", "hard": "1h" } },
            })
        );
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        assert!(found.notes[0].contains("exchange shared"), "{:?}", found.notes);
    }

    #[test]
    fn settings_that_endanger_jobs_or_that_a_worker_does_not_tell_are_said() {
        let answers = Answers {
            conf: said(
                r#"{"result_serializer": "pickle", "broker_transport_options": {"global_keyprefix": "********"},
                    "result_backend_transport_options": {"global_keyprefix": "********"}}"#,
            ),
            ..Answers::default()
        };
        let said = found(&answers, None).notes.join("\n");
        for setting in ["task_acks_late", "worker_prefetch_multiplier", "worker_send_task_events", "result_serializer"]
        {
            assert!(said.contains(setting), "{setting}: {said}");
        }
        assert!(said.contains("--global-keyprefix") && said.contains("celery.resultKeyPrefix"), "{said}");
        let known = found(&answers, Some("app:"));
        assert!(!known.notes.join("\n").contains("--global-keyprefix"));
        assert_eq!(known.pool("p", None)["spec"]["celery"]["globalKeyPrefix"], "app:");
    }

    #[test]
    fn without_an_answer_the_pool_has_the_defaults_and_that_is_said() {
        let found = found(&Answers::default(), None);
        assert_eq!(found.pool("p", None)["spec"], json!({ "redis": { "secretName": "redis" } }));
        assert!(found.notes[0].contains("no worker has answered"));
    }
}
