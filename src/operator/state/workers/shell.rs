//! How the process of a container is started.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Shells that stay the main process of a container and keep a SIGTERM to themselves, unless they `exec`.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "ksh", "zsh"];
/// A script with one of these passes signals on, or gives its process away.
const PASSES_SIGNALS: [&str; 3] = ["exec", "tini", "dumb-init"];

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
