//! When an attempt ran, and in which container.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::DynamicObject;
use serde_json::Value;

use super::super::error::Error;
use super::super::view;
use crate::core::status::host_of;

/// The annotation of a Pod that says which container `kubectl logs` shows.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Times in a status are in whole seconds: what was written until the end of the last one belongs to it.
const SECOND: Duration = Duration::from_secs(1);

/// When an attempt ran, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Which attempt, counted from 1.
    pub number: i64,
    /// The Pod of the worker.
    pub pod: String,
    /// The container as the kubelet names it, where that is known.
    pub container_id: Option<String>,
    /// When it was begun.
    pub from: Timestamp,
    /// When it ended, if it has.
    pub until: Option<Timestamp>,
}

impl Window {
    /// Whether a line that was written then came after its end.
    pub fn is_over_at(&self, at: Option<Timestamp>) -> bool {
        self.until.zip(at).is_some_and(|(until, at)| at >= until + SECOND)
    }

    /// Whether a line that was written then did not come before its beginning.
    pub fn is_begun_at(&self, at: Option<Timestamp>) -> bool {
        at.is_none_or(|at| at >= self.from)
    }

    /// The same attempt as a later state of the job has it.
    pub fn of(&self, job: &DynamicObject) -> Self {
        let now = windows(job).into_iter().find(|window| window.from == self.from);
        now.unwrap_or_else(|| self.clone())
    }

    /// There is no such Pod any more.
    pub fn is_gone(&self) -> String {
        let until = self.until.map_or_else(|| "now".to_owned(), |until| until.to_string());
        format!(
            "the Pod {} that ran attempt {} is gone, and its log with it: what collects the logs of the cluster may have it, \
             from {} until {until}",
            self.pod, self.number, self.from
        )
    }
}

/// The attempt of this number, or the last one; `None` when it has not begun. The error says which are known.
pub fn chosen(job: &DynamicObject, attempt: Option<u32>) -> Result<Option<Window>, String> {
    let known = windows(job);
    let Some(asked) = attempt.map(i64::from) else { return Ok(known.into_iter().next_back()) };
    let begun = job.data.pointer("/status/attempts").and_then(Value::as_i64).unwrap_or_default();
    let numbers: Vec<String> = known.iter().map(|window| window.number.to_string()).collect();
    let found = known.into_iter().rev().find(|window| window.number <= asked);
    match found {
        found if asked > begun => match view::end(job) {
            None => Ok(None),
            Some(_) => Err(format!("there was no attempt {asked}; known are: {}", numbers.join(", "))).map(|()| found),
        },
        Some(window) => Ok(Some(window)),
        None => Err(format!("it is not known any more where attempt {asked} ran; known are: {}", numbers.join(", "))),
    }
}

/// The attempts of which it is known where they ran, oldest first.
fn windows(job: &DynamicObject) -> Vec<Window> {
    let history = job.data.pointer("/status/attemptHistory").and_then(Value::as_array);
    let mut known: Vec<Window> = history.into_iter().flatten().filter_map(past).collect();
    if let Some(window) = current(job, known.last())
        && known.last().is_none_or(|last| last.from < window.from)
    {
        known.push(window);
    }
    known
}

fn past(attempt: &Value) -> Option<Window> {
    Some(Window {
        number: attempt["number"].as_i64()?,
        pod: host_of(attempt["worker"].as_str()?).to_owned(),
        container_id: None,
        from: time(&attempt["startedAt"])?,
        until: Some(time(&attempt["finishedAt"])?),
    })
}

fn current(job: &DynamicObject, last: Option<&Window>) -> Option<Window> {
    let status = job.data.get("status")?;
    let worker = &status["worker"];
    let pod = worker["podName"].as_str().or_else(|| worker["name"].as_str().map(host_of))?;
    Some(Window {
        number: last.map_or(1, |last| last.number + 1),
        pod: pod.to_owned(),
        container_id: worker["containerID"].as_str().map(str::to_owned),
        from: time(&status["startedAt"])?,
        until: time(&status["finishedAt"]),
    })
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// A container of a Pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub container: String,
    /// It is the one before the last restart.
    pub is_previous: bool,
}

impl Source {
    /// Its log could not be read.
    pub fn failed(&self, window: &Window) -> impl FnOnce(kube::Error) -> Error {
        Error::call(format!("reading the log of the container {} of the Pod {}", self.container, window.pod))
    }
}

/// The container that ran an attempt. The error says what to choose from.
pub fn source(pod: &Pod, window: &Window, asked: Option<&str>) -> Result<Source, String> {
    let none = Vec::new();
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).unwrap_or(&none);
    if let Some(id) = &window.container_id
        && asked.is_none()
    {
        let now = statuses.iter().find(|status| status.container_id.as_ref() == Some(id));
        let before = statuses.iter().find(|status| previous_id(status) == Some(id));
        if let Some((found, is_previous)) = now.map(|now| (now, false)).or(before.map(|before| (before, true))) {
            return Ok(Source { container: found.name.clone(), is_previous });
        }
    }
    let names: Vec<&str> =
        pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
    let usual = pod.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CONTAINER)).map(String::as_str);
    let only = Some(&names).filter(|names| names.len() == 1).and_then(|names| names.first().copied());
    let Some(name) = asked.or(usual).or(only).filter(|name| names.contains(name)) else {
        return Err(format!("choose the container of the Pod {} with --container: {}", window.pod, names.join(", ")));
    };
    let status = statuses.iter().find(|status| status.name == name);
    let is_previous = status.is_some_and(|status| started(status).is_some_and(|started| started > window.from));
    Ok(Source { container: name.to_owned(), is_previous })
}

fn previous_id(status: &ContainerStatus) -> Option<&String> {
    status.last_state.as_ref()?.terminated.as_ref()?.container_id.as_ref()
}

fn started(status: &ContainerStatus) -> Option<Timestamp> {
    Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({ "metadata": { "name": "tea" }, "status": status })).unwrap()
    }

    fn at(second: u32) -> String {
        format!("2026-03-01T10:00:{second:02}Z")
    }

    /// Two attempts that are over on `crew@one`, and one that runs on `crew@two`.
    fn third() -> Value {
        let past = |number: u32, from: u32| json!({ "number": number, "worker": "crew@one", "startedAt": at(from), "finishedAt": at(from + 5) });
        json!({
            "phase": "Running", "attempts": 3, "attemptHistory": [past(1, 0), past(2, 10)],
            "startedAt": at(20), "worker": { "name": "crew@two", "podName": "two", "containerID": "c://2" },
        })
    }

    #[test]
    fn the_last_attempt_is_meant_where_none_is_asked_for() {
        let window = chosen(&job(&third()), None).unwrap().unwrap();
        assert_eq!((window.number, window.pod.as_str(), window.until), (3, "two", None));
        assert_eq!(chosen(&job(&Value::Null), None), Ok(None));
    }

    #[test]
    fn an_attempt_that_is_over_is_found_by_its_number_and_one_to_come_is_waited_for() {
        let first = chosen(&job(&third()), Some(1)).unwrap().unwrap();
        assert_eq!((first.number, first.pod.as_str(), first.until), (1, "one", at(5).parse().ok()));
        assert_eq!(chosen(&job(&third()), Some(4)), Ok(None));
        let mut ended = third();
        ended["phase"] = "Failed".into();
        assert!(chosen(&job(&ended), Some(4)).unwrap_err().contains("no attempt 4; known are: 1, 2, 3"));
        ended["attemptHistory"].as_array_mut().unwrap().remove(0);
        assert!(chosen(&job(&ended), Some(1)).unwrap_err().contains("known are: 2, 3"));
    }

    #[test]
    fn an_attempt_that_ended_is_not_shown_twice() {
        let mut ended = third();
        ended["attemptHistory"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "number": 3, "worker": "crew@two", "startedAt": at(20), "finishedAt": at(30) }));
        ended["finishedAt"] = at(30).into();
        assert_eq!(windows(&job(&ended)).len(), 3);
        let before = chosen(&job(&third()), None).unwrap().unwrap();
        assert_eq!(before.of(&job(&ended)).until, at(30).parse().ok());
    }

    #[test]
    fn lines_before_and_after_the_attempt_do_not_belong_to_it() {
        let window = chosen(&job(&third()), Some(1)).unwrap().unwrap();
        let line = |at: &str| Some(at.parse::<Timestamp>().unwrap());
        assert!(!window.is_begun_at(line("2026-03-01T09:59:59.9Z")) && window.is_begun_at(line(&at(0))));
        assert!(!window.is_over_at(line("2026-03-01T10:00:05.9Z")) && window.is_over_at(line(&at(6))));
        assert!(window.is_begun_at(None) && !window.is_over_at(None));
    }

    fn pod(containers: &[&str], statuses: &Value) -> Pod {
        let containers: Vec<Value> = containers.iter().map(|name| json!({ "name": name })).collect();
        let pod = json!({ "spec": { "containers": containers }, "status": { "containerStatuses": statuses } });
        serde_json::from_value(pod).unwrap()
    }

    fn status(name: &str, id: &str, before: &str) -> Value {
        json!({
            "name": name, "containerID": id, "image": "", "imageID": "", "ready": true, "restartCount": 1,
            "state": { "running": { "startedAt": at(15) } },
            "lastState": { "terminated": { "containerID": before, "exitCode": 1 } },
        })
    }

    #[test]
    fn the_container_is_the_one_that_ran_it_also_after_a_restart() {
        let window = chosen(&job(&third()), None).unwrap().unwrap();
        let statuses = |id: &str, before: &str| json!([status("proxy", "c://9", "c://8"), status("crew", id, before)]);
        let found = |id: &str, before: &str| source(&pod(&["proxy", "crew"], &statuses(id, before)), &window, None);
        assert_eq!(found("c://2", "c://1"), Ok(Source { container: "crew".into(), is_previous: false }));
        assert_eq!(found("c://3", "c://2"), Ok(Source { container: "crew".into(), is_previous: true }));
        assert!(found("c://4", "c://3").unwrap_err().contains("--container: proxy, crew"));
    }

    #[test]
    fn without_an_id_it_is_the_only_container_or_the_one_that_was_asked_for() {
        let window = chosen(&job(&third()), Some(1)).unwrap().unwrap();
        let statuses = json!([status("crew", "c://2", "c://1")]);
        let before = Source { container: "crew".into(), is_previous: true };
        assert_eq!(source(&pod(&["crew"], &statuses), &window, None), Ok(before));
        assert!(source(&pod(&["proxy", "crew"], &statuses), &window, None).is_err());
        let asked = source(&pod(&["proxy", "crew"], &statuses), &window, Some("proxy"));
        assert_eq!(asked, Ok(Source { container: "proxy".into(), is_previous: false }));
        assert!(source(&pod(&["proxy", "crew"], &statuses), &window, Some("nothing")).is_err());
    }
}
