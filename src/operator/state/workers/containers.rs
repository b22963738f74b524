//! Which container of a Pod runs the worker, and how its process is started.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The annotation that names the container which is meant when none is named; `kubectl logs` and `exec` follow it too.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Shells that stay the main process of a container and keep a SIGTERM to themselves, unless they `exec`.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "ksh", "zsh"];
/// A script with one of these passes signals on, or gives its process away.
const PASSES_SIGNALS: [&str; 3] = ["exec", "tini", "dumb-init"];

/// Why it cannot be told which container runs the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// There are several, and nothing says which one.
    Several(Vec<Arc<str>>),
    /// The one that is named is not there.
    Missing {
        /// `deploymentRef.container` or the annotation.
        named_by: &'static str,
        /// Which.
        name: Arc<str>,
        /// Those that are there.
        there: Vec<Arc<str>>,
    },
}

/// The container that runs the worker, among those of `spec.containers`: the one that the pool names, else the one that
/// the Pod's annotation names, else the only one. Init containers, and so native sidecars, are never it.
pub fn worker_among<'a, C>(
    containers: &'a [C],
    name_of: impl Fn(&C) -> &Arc<str>,
    named_by_pool: Option<&Arc<str>>,
    annotated: Option<&Arc<str>>,
) -> Result<&'a C, Unclear> {
    let there = || containers.iter().map(|container| name_of(container).clone()).collect();
    let by_pool = named_by_pool.map(|name| ("spec.deploymentRef.container", name));
    let Some((named_by, name)) = by_pool.or(annotated.map(|name| (DEFAULT_CONTAINER, name))) else {
        return if let [only] = containers { Ok(only) } else { Err(Unclear::Several(there())) };
    };
    let missing = || Unclear::Missing { named_by, name: name.clone(), there: there() };
    containers.iter().find(|container| name_of(container) == name).ok_or_else(missing)
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Several(there) => {
                write!(f, "its containers are {}, and nothing says which runs the worker", there.join(", "))
            }
            Self::Missing { named_by, name, there } => {
                write!(f, "{named_by} names {name:?}, and its containers are {}", there.join(", "))
            }
        }
    }
}

/// The shell that is the main process of a container and does not give its place to the worker, as far as the manifest
/// tells: the command of an image is not known here.
pub fn shell_of(pod: &PodSpec, container: &Container) -> Option<Arc<str>> {
    // The main process is not PID 1 then, and what the worker says of its own PID tells nothing.
    if pod.share_process_namespace == Some(true) || pod.host_pid == Some(true) {
        return None;
    }
    let command = container.command.as_deref().unwrap_or_default();
    let (program, rest) = command.split_first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    let is_shell = SHELLS.contains(&name) || name.strip_suffix(".sh").is_some();
    let words =
        rest.iter().chain(container.args.iter().flatten()).flat_map(|text| text.split(|c: char| !is_of_word(c)));
    let passes = words.into_iter().any(|word| PASSES_SIGNALS.contains(&word));
    (is_shell && !passes).then(|| name.into())
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn worker(there: &[&str], pool: Option<&str>, annotation: Option<&str>) -> Result<String, String> {
        let there: Vec<Arc<str>> = there.iter().map(|name| Arc::from(*name)).collect();
        let (pool, annotation) = (pool.map(Arc::from), annotation.map(Arc::from));
        let found = worker_among(&there, |name| name, pool.as_ref(), annotation.as_ref());
        found.map(ToString::to_string).map_err(|unclear| unclear.to_string())
    }

    #[test]
    fn the_workers_container_is_the_one_that_the_pool_names_else_the_annotated_one_else_the_only_one() {
        let there = ["cloud-sql-proxy", "crew"];
        assert_eq!(worker(&there, Some("crew"), Some("cloud-sql-proxy")).as_deref(), Ok("crew"));
        assert_eq!(worker(&there, None, Some("crew")).as_deref(), Ok("crew"));
        assert_eq!(worker(&["anything"], None, None).as_deref(), Ok("anything"));
    }

    #[test]
    fn a_container_that_is_one_of_several_or_is_not_there_is_unclear_and_all_are_named() {
        for there in [["cloud-sql-proxy", "crew"], ["worker", "zipkin"]] {
            let said = worker(&there, None, None).unwrap_err();
            assert!(there.iter().all(|name| said.contains(name)), "{said}");
        }
        let said = worker(&["crew"], Some("worker"), Some("crew")).unwrap_err();
        assert!(
            said.contains("spec.deploymentRef.container") && said.contains("\"worker\"") && said.contains("crew"),
            "{said}"
        );
        let said = worker(&["crew"], None, Some("worker")).unwrap_err();
        assert!(said.contains(DEFAULT_CONTAINER), "{said}");
    }

    fn shell(pod: Value, command: &Value, args: &Value) -> Option<String> {
        let pod: PodSpec = serde_json::from_value(pod).unwrap();
        let container = json!({ "name": "worker", "command": command, "args": args });
        shell_of(&pod, &serde_json::from_value(container).unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn a_shell_that_stays_the_main_process_is_known_by_the_command() {
        let pod = || json!({ "containers": [] });
        let script = json!(["celery -A app worker -n crew@$(POD_NAME)"]);
        assert_eq!(shell(pod(), &json!(["/bin/sh", "-c"]), &script).as_deref(), Some("sh"));
        assert_eq!(
            shell(pod(), &json!(["bash", "-c", "true && celery -A executor worker"]), &json!([])).as_deref(),
            Some("bash")
        );
        assert_eq!(shell(pod(), &json!(["/entrypoint.sh"]), &json!(["celery"])).as_deref(), Some("entrypoint.sh"));
    }

    #[test]
    fn an_init_and_a_shell_that_gives_its_place_away_are_no_shell() {
        let pod = || json!({ "containers": [] });
        assert_eq!(shell(pod(), &json!(["celery"]), &json!(["-A", "app", "worker"])), None);
        assert_eq!(shell(pod(), &json!(["tini", "--", "celery"]), &json!([])), None);
        assert_eq!(shell(pod(), &json!(["sh", "-c"]), &json!(["migrate; exec celery -A app worker"])), None);
        assert_eq!(shell(pod(), &json!(["sh", "-c", "/usr/bin/dumb-init celery worker"]), &json!([])), None);
        assert_eq!(shell(pod(), &Value::Null, &json!(["worker"])), None, "the image's command is not known");
        let shared = json!({ "containers": [], "shareProcessNamespace": true });
        assert_eq!(shell(shared, &json!(["sh", "-c", "celery worker"]), &json!([])), None);
    }
}
