//! The worker's settings under the names that Celery has for them.

use super::describe;
use super::transport::{MASK, result_options, transport_options};
use super::view::{Broker, View};
use crate::wire::{Object, TimeLimit, Value};

/// What `conf` says: the settings that differ from Celery's, and all that apply here `with_defaults`.
pub(super) fn table(view: &View, with_defaults: bool) -> Object {
    let mut table = if with_defaults { defaults() } else { Object::new() };
    for (name, value) in chosen(view) {
        table.insert(name, value);
    }
    table
}

fn chosen<'a>(view: &View<'a>) -> Vec<(&'a str, Value)> {
    let View { config, time_limit: TimeLimit { hard, soft }, routes, .. } = view;
    let queues: Vec<Object> = view.queues.iter().map(describe::queue).collect();
    let json = || Value::from(vec!["json"]);
    vec![
        ("broker_url", url(view.broker).into()),
        ("broker_transport_options", transport_options(config, |_| MASK.to_owned()).into()),
        ("result_backend_transport_options", result_options(config).into()),
        ("task_serializer", "json".into()),
        ("result_serializer", "json".into()),
        ("accept_content", json()),
        ("result_accept_content", json()),
        ("timezone", "UTC".into()),
        ("enable_utc", true.into()),
        ("task_acks_late", true.into()),
        ("worker_prefetch_multiplier", 1.into()),
        ("worker_eta_task_limit", config.eta_task_limit.into()),
        ("worker_concurrency", view.concurrency.into()),
        ("worker_max_tasks_per_child", 1.into()),
        ("task_time_limit", hard.clone().into()),
        ("task_soft_time_limit", soft.clone().into()),
        ("task_track_started", false.into()),
        ("task_default_priority", config.default_priority.map(u32::from).into()),
        ("task_default_queue", routes.default_queue().into()),
        ("task_queues", queues.into()),
        ("task_routes", routes.to_value()),
        ("result_expires", config.result_expires.into()),
        ("result_extended", true.into()),
        ("worker_send_task_events", (!config.without_task_events).into()),
    ]
}

/// Celery's defaults, where they say something that is true of this worker.
fn defaults() -> Object {
    let fields: [(&str, Value); 18] = [
        ("imports", Value::Array(Vec::new())),
        ("include", Value::Array(Vec::new())),
        ("broker_connection_retry", true.into()),
        ("control_exchange", "celery".into()),
        ("event_exchange", "celeryev".into()),
        ("event_serializer", "json".into()),
        ("result_compression", Value::Null),
        ("task_acks_on_failure_or_timeout", true.into()),
        ("task_always_eager", false.into()),
        ("task_compression", Value::Null),
        ("task_default_delivery_mode", 2.into()),
        ("task_default_exchange_type", "direct".into()),
        ("task_inherit_parent_priority", false.into()),
        ("task_protocol", 2.into()),
        ("task_reject_on_worker_lost", Value::Null),
        ("task_send_sent_event", false.into()),
        ("worker_enable_remote_control", true.into()),
        ("worker_state_db", Value::Null),
    ];
    fields.into_iter().collect()
}

/// As Celery shows it: with stars for a password, whether there is one or not.
fn url(broker: &Broker) -> String {
    let Broker { hostname, port, database, userid, tls } = broker;
    let scheme = if *tls { "rediss" } else { "redis" };
    format!("{scheme}://{}:********@{hostname}:{port}/{database}", userid.as_deref().unwrap_or_default())
}
