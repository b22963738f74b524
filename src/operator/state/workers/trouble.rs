//! What keeps a Pod from working, as its conditions and container statuses say it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use crate::core::start::Trouble;

/// How much is kept of what scheduler and kubelet say.
const MESSAGE_CHARS: usize = 160;

/// Reasons of the kubelet for an image that it does not get.
const IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// What keeps a Pod from working; `None` when nothing does, or it is about to go.
pub(super) fn of(pod: &Pod) -> Option<Arc<Trouble>> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    if let Some(condition) =
        scheduled.filter(|it| it.status == "False" && it.reason.as_deref() == Some("Unschedulable"))
    {
        return Some(Arc::new(Trouble::Unschedulable { message: said(condition.message.as_deref(), "Unschedulable") }));
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let found = containers.filter_map(of_container).min_by_key(rank);
    found
        .or_else(|| {
            let are_created =
                status.container_statuses.iter().flatten().any(|container| container.container_id.is_some());
            let since = scheduled.filter(|it| it.status == "True" && !are_created)?.last_transition_time.as_ref()?.0;
            Some(Trouble::Creating { since })
        })
        .map(Arc::new)
}

/// The plainest first.
fn rank(trouble: &Trouble) -> u8 {
    match trouble {
        Trouble::Image { .. } => 0,
        Trouble::Container { .. } => 1,
        Trouble::Crashed { .. } => 2,
        Trouble::Unschedulable { .. } | Trouble::Creating { .. } => 3,
    }
}

fn of_container(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.as_ref()?;
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let crashed = |over: &ContainerStateTerminated, running_since| Trouble::Crashed {
        container: status.name.as_str().into(),
        how: how(over),
        ran: ran(over),
        running_since,
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = || said(waiting.message.as_deref(), reason);
        return match reason {
            "ContainerCreating" | "PodInitializing" | "" => None,
            "CrashLoopBackOff" => last.map(|over| crashed(over, None)),
            reason if IMAGE.contains(&reason) => Some(Trouble::Image { image: cut(&status.image), message: message() }),
            _ => Some(Trouble::Container { container: status.name.as_str().into(), message: message() }),
        };
    }
    if let Some(running) = &state.running {
        let since = running.started_at.as_ref()?.0;
        return last.filter(|_| status.restart_count > 1).map(|over| crashed(over, Some(since)));
    }
    // An init container that has ended well is done.
    let over = state.terminated.as_ref().filter(|_| status.restart_count > 0 && !status.ready)?;
    Some(crashed(over, None))
}

fn how(over: &ContainerStateTerminated) -> Arc<str> {
    let reason = over.reason.as_deref().filter(|reason| !matches!(*reason, "" | "Error" | "Completed"));
    match reason {
        Some(reason) => format!("{}, exit code {}", cut(reason), over.exit_code).into(),
        None => format!("exit code {}", over.exit_code).into(),
    }
}

fn ran(over: &ContainerStateTerminated) -> Duration {
    let times = over.started_at.as_ref().zip(over.finished_at.as_ref());
    times.and_then(|(from, to)| Duration::try_from(to.0.duration_since(from.0)).ok()).unwrap_or_default()
}

fn said(message: Option<&str>, reason: &str) -> Arc<str> {
    cut(message.filter(|message| !message.is_empty()).unwrap_or(reason))
}

pub(super) fn cut(text: &str) -> Arc<str> {
    let end = text.char_indices().nth(MESSAGE_CHARS).map_or(text.len(), |(end, _)| end);
    text[..end].trim_end().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(conditions: &Value, containers: &Value) -> Pod {
        let status = json!({ "phase": "Pending", "conditions": conditions, "containerStatuses": containers });
        serde_json::from_value(json!({ "status": status })).unwrap()
    }

    fn container(state: &Value, last: &Value, restarts: i32) -> Value {
        let (name, image) = ("worker", "registry.example/crew:1");
        json!([{ "name": name, "image": image, "imageID": "", "ready": false, "restartCount": restarts,
                 "state": state, "lastState": last }])
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": message } })
    }

    fn of_state(state: &Value, last: &Value, restarts: i32) -> Option<Trouble> {
        of(&pod(&json!([]), &container(state, last, restarts))).map(|trouble| (*trouble).clone())
    }

    #[test]
    fn the_scheduler_s_reason_is_kept() {
        let condition = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                 "message": "0/3 nodes are available" }]);
        let message = "0/3 nodes are available".into();
        assert_eq!(of(&pod(&condition, &json!([]))).as_deref(), Some(&Trouble::Unschedulable { message }));
    }

    #[test]
    fn an_image_that_is_not_pulled_is_told_apart_from_a_container_that_is_not_created() {
        let image = of_state(&waiting("ImagePullBackOff", "Back-off"), &Value::Null, 0);
        let expected = Trouble::Image { image: "registry.example/crew:1".into(), message: "Back-off".into() };
        assert_eq!(image, Some(expected));
        let missing = of_state(&waiting("CreateContainerConfigError", "secret \"keys\" not found"), &Value::Null, 0);
        let expected = Trouble::Container { container: "worker".into(), message: "secret \"keys\" not found".into() };
        assert_eq!(missing, Some(expected));
        assert_eq!(of_state(&waiting("ContainerCreating", ""), &Value::Null, 0), None);
    }

    #[test]
    fn a_crash_loop_is_one_while_the_container_waits_and_while_it_runs_again() {
        let times = json!({ "exitCode": 3, "reason": "Error", "startedAt": "2026-11-22T15:00:00Z",
                            "finishedAt": "2026-11-22T15:00:02Z" });
        let crashed = |running_since: Option<&str>| Trouble::Crashed {
            container: "worker".into(),
            how: "exit code 3".into(),
            ran: Duration::from_secs(2),
            running_since: running_since.map(|at| at.parse().unwrap()),
        };
        let last = json!({ "terminated": times });
        assert_eq!(of_state(&waiting("CrashLoopBackOff", "back-off"), &last, 1), Some(crashed(None)));
        assert_eq!(of_state(&last, &json!({}), 1), Some(crashed(None)));
        let running = json!({ "running": { "startedAt": "2026-11-22T15:01:00Z" } });
        assert_eq!(of_state(&running, &last, 2), Some(crashed(Some("2026-11-22T15:01:00Z"))));
        assert_eq!(of_state(&running, &last, 1), None, "once may be an accident");
    }

    #[test]
    fn containers_that_take_long_to_create_are_noticed_by_when_the_pod_got_its_node() {
        let since = "2026-11-22T15:00:00Z";
        let condition = json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": since }]);
        let creating = container(&waiting("ContainerCreating", ""), &Value::Null, 0);
        let expected = Trouble::Creating { since: since.parse().unwrap() };
        assert_eq!(of(&pod(&condition, &creating)).as_deref(), Some(&expected));
    }

    #[test]
    fn a_pod_that_goes_or_works_is_in_no_trouble() {
        let mut going = pod(&json!([]), &container(&waiting("ErrImagePull", ""), &Value::Null, 0));
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-22T15:00:00Z")).unwrap();
        assert_eq!(of(&going), None);
        assert_eq!(of_state(&json!({ "running": { "startedAt": "2026-11-22T15:00:00Z" } }), &Value::Null, 0), None);
    }

    #[test]
    fn what_is_kept_of_a_message_has_a_bound() {
        assert_eq!(cut(&"ä".repeat(500)).chars().count(), MESSAGE_CHARS);
    }
}
