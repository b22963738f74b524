//! From a call to a command line, and why one cannot be started.

use std::io;
use std::path::Path;
use std::process::Stdio;

use rustix::io::Errno;
use tokio::process::Command;

use super::arguments;
use super::classify::failed;
use super::spec::{Call, Job, Spec, seconds};
use super::stderr::Tail;
use crate::store::SECRETS;
use crate::wire::{Object, Value};
use crate::worker::outcome::Outcome;

/// Variables of one call, which another one must not inherit from a worker that was started by a command.
const OF_A_CALL: [&str; 8] = [
    "CREWJOB_NAME",
    "CREWJOB_NAMESPACE",
    "CREWJOB_UID",
    "CREWJOB_RESULT",
    "CREWJOB_STATE_DIR",
    "CREWJOB_IDEMPOTENCY_KEY",
    "TRACEPARENT",
    "TRACESTATE",
];

/// The one line of JSON that a command reads.
pub(super) fn input(call: &Call) -> Vec<u8> {
    let line = Object::new()
        .with("task", &*call.task)
        .with("id", &*call.id)
        .with("args", call.args.clone())
        .with("kwargs", call.kwargs.clone())
        .with("job", call.job.as_ref().map(job))
        .with("idempotency_key", &*call.idempotency_key)
        .with("retries", call.retries)
        .with("worker", &*call.worker)
        .with("time_limit", call.hard.map(seconds))
        .with("soft_time_limit", call.soft.map(seconds))
        .with("state_dir", call.state_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned()));
    let line: Object = line.into_iter().chain(call.trace.clone()).collect();
    let mut line = Value::from(line).to_json().into_bytes();
    line.push(b'\n');
    line
}

fn job(Job { name, namespace, uid }: &Job) -> Value {
    Object::new().with("name", &**name).with("namespace", &**namespace).with("uid", &**uid).into()
}

/// The command to spawn, with pipes.
pub(super) fn command(spec: &Spec, call: Option<&Call>) -> Result<Command, Outcome> {
    let Some((program, parts)) = spec.command.split_first() else {
        let message = "the command is empty: name a program and its arguments";
        return Err(failed("CommandNotFound", message, &Tail::default(), false));
    };
    let mut command = Command::new(program);
    for part in parts {
        let filled = call.map_or(Ok(part.into()), |call| arguments::fill(part, call));
        let missing = |missing| {
            let message = format!("{missing} is not among the arguments of the call, and the command needs it");
            failed("ArgumentMissing", message, &Tail::default(), false)
        };
        command.arg(&*filled.map_err(missing)?);
    }
    // A command that prints its environment would publish the passwords in its traceback.
    for name in SECRETS.into_iter().chain(OF_A_CALL) {
        command.env_remove(name);
    }
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// What a command finds in its environment about the call it runs for.
pub(super) fn name_call(command: &mut Command, call: &Call, result: Option<&Path>) {
    command
        .env("CREWJOB_TASK", &call.task)
        .env("CREWJOB_TASK_ID", &call.id)
        .env("CREWJOB_IDEMPOTENCY_KEY", &call.idempotency_key)
        .env("CREWJOB_RETRIES", call.retries.to_string())
        .env("CREWJOB_WORKER", &call.worker);
    if let Some(Job { name, namespace, uid }) = &call.job {
        command.env("CREWJOB_NAME", name).env("CREWJOB_NAMESPACE", namespace).env("CREWJOB_UID", uid);
    }
    if let Some(folder) = &call.state_dir {
        command.env("CREWJOB_STATE_DIR", folder);
    }
    if let Some(result) = result {
        command.env("CREWJOB_RESULT", result);
    }
    command.envs(call.trace.iter().filter_map(|(name, value)| Some((name.to_uppercase(), value.as_str()?))));
    command.envs(arguments::variables(call));
}

/// Why a command could not be started, and what to do about that.
pub(super) fn not_started(spec: &Spec, error: &io::Error) -> Outcome {
    let program = spec.command.first().map_or("", String::as_str);
    if let Some(directory) = spec.directory.as_deref().filter(|directory| !directory.is_dir()) {
        let message = format!("{} is no directory: create it, or change the task's `directory`", directory.display());
        return failed("DirectoryNotFound", message, &Tail::default(), false);
    }
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    let (kind, advice) = if is(Errno::NOENT) && !program.contains('/') {
        ("CommandNotFound", "is in no folder of PATH: install it in the worker's image, or name its full path")
    } else if is(Errno::NOENT) && there(spec, program) {
        ("CommandNotFound", "is there, but not what its `#!` line or its ELF header asks for: install that")
    } else if is(Errno::NOENT) {
        ("CommandNotFound", "does not exist: install it in the worker's image, or correct the path")
    } else if is(Errno::ACCESS) || is(Errno::PERM) {
        let advice = "may not be executed by the worker's user: `chmod +x` it, and look at the folders above it";
        ("CommandNotExecutable", advice)
    } else if is(Errno::NOEXEC) {
        ("CommandNotExecutable", "is no program for this machine: begin a script with a line like `#!/bin/sh`")
    } else if is(Errno::TOOBIG) {
        let advice = "was given arguments that are too long for a command line: read them from standard input";
        ("CommandNotStarted", advice)
    } else {
        ("CommandNotStarted", &*format!("could not be started: {error}"))
    };
    let message = format!("{program} {advice}");
    let message = message.replace('\0', "\\0");
    failed(kind, message, &Tail::default(), passes(error))
}

/// Whether it is the machine that has too little of something right now.
fn passes(error: &io::Error) -> bool {
    let lacking = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::TXTBSY];
    lacking.iter().any(|lack| error.raw_os_error() == Some(lack.raw_os_error()))
}

fn there(spec: &Spec, program: &str) -> bool {
    spec.directory.as_deref().unwrap_or(Path::new(".")).join(program).exists()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_input_is_one_line() {
        let call = Call {
            task: "shop.ship".into(),
            id: "i".into(),
            args: vec!["a\nb".into(), Value::parse(b"1e400").unwrap()],
            kwargs: Object::new().with("k", 1),
            job: Some(Job { name: "report".into(), namespace: "team".into(), uid: "u-1".into() }),
            idempotency_key: "first".into(),
            retries: 2,
            worker: "w@h".into(),
            soft: Some(Duration::from_millis(1500)),
            hard: Some(Duration::from_mins(1)),
            state_dir: Some("/tmp/state".into()),
            trace: Object::new(),
        };
        let expected = concat!(
            r#"{"task":"shop.ship","id":"i","args":["a\nb",1e400],"kwargs":{"k":1},"#,
            r#""job":{"name":"report","namespace":"team","uid":"u-1"},"idempotency_key":"first","#,
            r#""retries":2,"worker":"w@h","time_limit":60,"soft_time_limit":1.5,"state_dir":"/tmp/state"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(input(&call)).unwrap(), expected);
        let trace = Object::new().with("traceparent", "00-01-02-01");
        let traced = String::from_utf8(input(&Call { trace, ..call.clone() })).unwrap();
        assert!(traced.ends_with("\"state_dir\":\"/tmp/state\",\"traceparent\":\"00-01-02-01\"}\n"), "{traced}");
        let bare = String::from_utf8(input(&Call { soft: None, hard: None, state_dir: None, ..call })).unwrap();
        assert!(bare.ends_with("\"time_limit\":null,\"soft_time_limit\":null,\"state_dir\":null}\n"), "{bare}");
    }

    #[test]
    fn the_worker_keeps_its_secrets_unless_a_task_names_them() {
        let env = vec![("REDIS_URL".to_owned(), "redis://other".to_owned())];
        let command =
            command(&Spec { env, ..Spec::new(["env"]) }, None).unwrap_or_else(|outcome| panic!("{outcome:?}"));
        let changed = |name: &str| command.as_std().get_envs().find(|(changed, _)| *changed == name).unwrap().1;
        assert_eq!(changed("REDIS_URL"), Some("redis://other".as_ref()));
        assert_eq!(changed("RESULT_BACKEND_URL"), None);
    }

    #[test]
    fn a_start_that_fails_for_lack_of_resources_may_be_tried_again() {
        let outcome = |code| not_started(&Spec::new(["x"]), &io::Error::from_raw_os_error(code));
        let retryable = |code| matches!(outcome(code), Outcome::Failed { retryable: true, .. });
        assert!(retryable(11) && retryable(12) && retryable(24));
        assert!(!retryable(2) && !retryable(13) && !retryable(8) && !retryable(7));
    }
}
