//! How a worker gets in to Redis: read from its environment, its files and its credentials command, again for each connection.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::command::spawn_child;
use super::config::{Config, ConfigError};
use crate::runtime::telemetry::chain;
use crate::store::{Access, Login, Renewal, Secret};
use crate::wire::{Limits, Value};

/// The variable that names the command.
const COMMAND: &str = "REDIS_CREDENTIALS_COMMAND";
/// How long the command may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long its answer is used: the connections of a worker that starts need one run of it.
const FRESH: Duration = Duration::from_secs(5);
/// Bytes that it may print.
const PRINTED: u64 = 64 << 10;
/// Bytes of standard error that are told.
const TOLD: usize = 200;

/// The way to Redis, as it is now and as it will be for later connections.
pub async fn access(config: &Config) -> Result<Access, ConfigError> {
    let command = std::env::var(COMMAND).ok().filter(|command| !command.trim().is_empty());
    let source = Arc::new(Source { config: config.clone(), command, last: Mutex::new(None) });
    let access = source.read().await?;
    let renewal = Renewal::new(move || {
        let source = source.clone();
        async move { source.read().await.map_err(|error| chain(&error)) }.boxed()
    });
    Ok(Access { renewal: Some(renewal), ..access })
}

struct Source {
    config: Config,
    command: Option<String>,
    last: Mutex<Option<(Instant, Login)>>,
}

impl Source {
    async fn read(&self) -> Result<Access, ConfigError> {
        let mut access = self.config.access()?;
        if let Some(command) = &self.command {
            access.login = Some(self.login(command).await.map_err(ConfigError::Credentials)?);
        }
        Ok(access)
    }

    /// What the command says, which runs once for connections that are made at the same time.
    async fn login(&self, command: &str) -> Result<Login, String> {
        let mut last = self.last.lock().await;
        if let Some((_, login)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(login.clone());
        }
        let login = timeout(PATIENCE, run(command)).await;
        let login = login.map_err(|_| format!("it did not end within {} s", PATIENCE.as_secs()))??;
        *last = Some((Instant::now(), login.clone()));
        Ok(login)
    }
}

/// Runs the command in a shell. Only its standard error is ever told.
async fn run(command: &str) -> Result<Login, String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = spawn_child(&mut shell).map_err(|error| format!("it cannot be started: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (printed, said) = tokio::join!(all(stdout), all(stderr));
    let status = child.wait().await.map_err(|error| format!("waiting for its end: {error}"))?;
    if !status.success() {
        let last = said.trim_end().rsplit('\n').next().unwrap_or_default();
        let last: String = last.chars().filter(|it| !it.is_control()).take(TOLD).collect();
        return Err(format!("{status}: {last}"));
    }
    parse(printed.trim())
}

async fn all(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(PRINTED).read_to_end(&mut bytes).await;
        // The command is not to wait for room in the pipe.
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A password, or an object with it: `{"username": "…", "password": "…"}`.
fn parse(printed: &str) -> Result<Login, String> {
    if printed.is_empty() {
        return Err("it printed nothing; it is to print a password, or {\"username\": …, \"password\": …}".into());
    }
    if !printed.starts_with('{') {
        if printed.contains('\n') {
            return Err(
                "it printed several lines; it is to print a password, or {\"username\": …, \"password\": …}".into()
            );
        }
        return Ok(Login { username: None, password: Secret::new(printed) });
    }
    let read = Value::parse_within(printed.as_bytes(), &Limits::default());
    let text = |name: &str| Some(read.as_ref().ok()?.get(name)?.as_str()?.to_owned());
    let password = text("password").filter(|text| !text.is_empty());
    let password = password.ok_or("it printed an object in which \"password\" is no text")?;
    Ok(Login { username: text("username"), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_prints_a_password_or_an_object_and_what_it_prints_is_in_no_error() {
        let login = |username: Option<&str>, password: &str| {
            Ok(Login { username: username.map(Into::into), password: Secret::new(password) })
        };
        assert_eq!(run("echo hunter2").await, login(None, "hunter2"));
        let object = r#"echo '{"username": "worker", "password": "hunter2", "more": 1}'"#;
        assert_eq!(run(object).await, login(Some("worker"), "hunter2"));
        for (command, reason) in [
            ("true", "printed nothing"),
            ("printf 'hunter2\nhunter2'", "several lines"),
            (r#"echo '{"password": 2, "x": "hunter2"}'"#, "is no text"),
            ("echo '{hunter2'", "is no text"),
            ("echo hunter2; echo first >&2; echo 'no right' >&2; exit 3", "exit status: 3: no right"),
        ] {
            let refused = run(command).await.unwrap_err();
            assert!(refused.contains(reason) && !refused.contains("hunter2"), "{command}: {refused}");
        }
    }
}
