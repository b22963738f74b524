//! One run of a task, whatever runs it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};

use super::command::{self, Call, Job, Output, Reports};
use super::context::Worker;
use super::crew::{self, Arguments};
use super::document::{self, About};
use super::entry::{Entry, Stage};
use super::outcome::{Failure, Outcome, limits};
use super::registry::{Kept, Limits, Runner, Task};
use super::resume;
use super::state::State;
use crate::core::account::SavedState;
use crate::core::usage::Usage;
use crate::wire::{Object, RawJson, Value, trace};

/// Shortest time between two progress reports that are stored.
const PROGRESS: Duration = Duration::from_millis(500);

/// Runs it.
pub async fn execute(worker: &Worker, entry: &Entry, task: &Task) -> Outcome {
    match task {
        Task::Builtin(builtin) => builtin.run(worker.node(), &worker.channel, &entry.message).await,
        Task::Command(runner) => {
            let message = &entry.message;
            command(worker, entry, runner, message.args.clone(), message.kwargs.clone()).await
        }
        Task::Crew(runner, kept) => match Arguments::bind(&entry.message.args, &entry.message.kwargs) {
            Ok(arguments) => crew(worker, entry, runner, kept, &arguments).await,
            Err(failure) => Outcome::Failed { failure, retryable: false },
        },
    }
}

/// Runs a command, showing its process and its progress.
async fn command(worker: &Worker, entry: &Entry, runner: &Runner, args: Vec<Value>, kwargs: Object) -> Outcome {
    let headers = &entry.message.headers;
    let changed = worker.limits.lock().get(&headers.task).copied();
    let Limits { hard, soft } = runner.limits(headers, changed);
    let job = Job::of(headers);
    // Each attempt of a CrewJob is a task of its own, under the root id of the first one.
    let key = headers.root_id.as_ref().filter(|_| job.is_some()).unwrap_or(&headers.id).clone();
    let state = resume::open(worker, entry, runner, &key).await.map(|state| entry.works_on(state));
    let call = Call {
        task: headers.task.clone(),
        id: headers.id.clone(),
        args,
        kwargs,
        job,
        idempotency_key: key,
        retries: headers.retries.unwrap_or(0),
        worker: worker.node().to_owned(),
        soft,
        hard,
        state_dir: state.as_ref().map(|state| state.folder().to_owned()),
        trace: trace::passed_on(&headers.other),
    };
    let (stop, stopped) = oneshot::channel();
    let (started, pid) = oneshot::channel();
    let reports = Reports::default();
    reports.usage.send_replace(entry.told().usage.usage);
    // Before the command begins, so that nothing that it tells is missed.
    let (news, asked) = (News::of(&reports, state.map(Arc::as_ref)), reports.checkpoints.subscribe());
    let shown = async {
        if let (Ok(pid), Stage::Running { since, .. }) = (pid.await, entry.stage()) {
            entry.enter(Stage::Running { since, pid });
        }
        show(worker, entry, news).await;
    };
    let kept = async {
        if let Some(state) = state {
            state.keep(asked).await;
        }
    };
    // A server tells its process when it has taken the call: it may have to be stopped before.
    let stopped_when_asked = async {
        let _ = stop.send(entry.stopped().await);
    };
    let beside = async { tokio::join!(shown, kept, stopped_when_asked) };
    let run = async {
        let Some(calls) = runner.serves else {
            return command::run(&runner.spec, &call, stopped, started, &reports).await;
        };
        let most = || usize::try_from(worker.concurrency()).unwrap_or(usize::MAX);
        let (idle, busy) = worker.servers.take(&call.task, most());
        let mut server = idle.unwrap_or_else(|| runner.server(calls));
        let report = server.call(&call, stopped, started, &reports).await;
        worker.servers.give(&call.task, server, busy, runner.idle, most());
        report
    };
    let mut run = std::pin::pin!(run);
    let report = tokio::select! {
        report = &mut run => report,
        _ = beside => run.await,
    };
    tracing::debug!(task.id = %call.id, memory = ?report.memory, "command ended");
    if let Some(memory) = report.memory {
        entry.took(memory);
    }
    entry.consumed(reports.usage.borrow().clone());
    if let Some(state) = state {
        state.end(&report.outcome).await;
    }
    report.outcome
}

/// What is told of a run that goes on.
struct News {
    progress: watch::Receiver<Option<RawJson>>,
    usage: watch::Receiver<Usage>,
    state: Option<watch::Receiver<SavedState>>,
}

impl News {
    /// All that is told from now on, and what is known already of the state.
    fn of(reports: &Reports, state: Option<&State>) -> Self {
        let mut state = state.map(State::told);
        if let Some(state) = state.as_mut().filter(|state| *state.borrow() != SavedState::default()) {
            state.mark_changed();
        }
        Self { progress: reports.progress.subscribe(), usage: reports.usage.subscribe(), state }
    }

    /// Waits for some. False where there will be none any more.
    async fn changed(&mut self) -> bool {
        let Self { progress, usage, state } = self;
        let saved = async {
            match state {
                Some(state) => state.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = progress.changed() => told.is_ok(),
            told = usage.changed() => told.is_ok(),
            told = saved => told,
        }
    }
}

/// Stores what is told of a run that goes on, the latest of it when it comes too fast.
async fn show(worker: &Worker, entry: &Entry, mut news: News) {
    let about = About { message: &entry.message, envelope: &entry.envelope, worker: worker.node() };
    let id = &entry.message.headers.id;
    while news.changed().await {
        entry.consumed(news.usage.borrow_and_update().clone());
        let report = news.progress.borrow_and_update().clone().unwrap_or_default();
        let document = entry.told().in_document(document::progress(about, report)).encode();
        if let Err(error) = worker.channel.store_state(id, &document, worker.config.result_expires()).await {
            tracing::warn!(task.id = %id, %error, "storing a progress report failed; the next one is tried");
        }
        sleep(PROGRESS).await;
    }
}

/// Runs a crew, or takes its output from the cache.
async fn crew(worker: &Worker, entry: &Entry, runner: &Runner, kept: &Kept, arguments: &Arguments) -> Outcome {
    let since = Instant::now();
    let headers = &entry.message.headers;
    let inputs = format!("{}\n{}", arguments.canonical(), kept.command);
    let known = match kept.ttl {
        Some(_) if !arguments.bypass_cache => cached(worker, kept, &inputs).await,
        Some(_) | None => None,
    };
    let is_cached = known.is_some();
    let output = if let Some(output) = known {
        output
    } else {
        match command(worker, entry, runner, Vec::new(), arguments.kwargs()).await {
            Outcome::Succeeded(printed) => match output_of(&printed, runner.spec.output) {
                Ok(output) => output,
                Err(failure) => return Outcome::Failed { failure, retryable: false },
            },
            ended @ (Outcome::Failed { .. } | Outcome::Stopped { .. }) => return ended,
        }
    };
    if let Some(ttl) = kept.ttl.filter(|_| !is_cached) {
        let text = Value::from(output.clone()).to_json();
        if let Err(error) = worker.channel.cache(&kept.crew, &inputs, text.as_bytes(), ttl).await {
            tracing::warn!(%error, "writing the result cache failed; the output is not cached");
        }
    }
    let about = crew::About {
        task_id: &headers.id,
        retries: headers.retries.unwrap_or(0),
        worker: worker.node(),
        cached: is_cached,
        seconds: since.elapsed().as_secs_f64(),
    };
    Outcome::Succeeded(RawJson::from(&arguments.result(output, about)))
}

async fn cached(worker: &Worker, kept: &Kept, inputs: &str) -> Option<Object> {
    let read = worker.channel.cached(&kept.crew, inputs).await;
    let text = read
        .inspect_err(|error| tracing::warn!(%error, "reading the result cache failed; running the crew"))
        .ok()??;
    let printed = String::from_utf8_lossy(&text);
    let output = match Value::parse_within(printed.as_bytes(), &limits(&printed)) {
        Ok(Value::Object(output)) if output.get("text").is_some_and(|text| text.as_str().is_some()) => Some(output),
        Ok(_) | Err(_) => None,
    };
    if output.is_none() {
        tracing::warn!(crew = kept.crew, "the result cache holds no output of a crew; running the crew");
    }
    output
}

/// What a crew has put out: an object with a `text`, or any other value, which is taken for the text.
fn output_of(printed: &RawJson, format: Output) -> Result<Object, Failure> {
    match (printed.parse(&limits(printed.as_str())), format) {
        (Ok(Value::Object(output)), Output::Json) if output.get("text").is_some_and(|text| text.as_str().is_some()) => {
            Ok(output)
        }
        (Ok(Value::String(text)), _) => Ok(Object::new().with("text", text)),
        (Ok(value), _) => Ok(Object::new().with("text", value.to_json())),
        (Err(error), _) => Err(Failure::new(command::MODULE, "InvalidResult", error.to_string())),
    }
}
