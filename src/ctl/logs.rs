//! `logs`: what the container of a worker wrote while it ran an attempt.

mod line;
mod window;

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures::io::{AsyncBufReadExt as _, AsyncReadExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, LogParams};
use tokio::time::{Instant, sleep_until};

use super::args::Logs;
use super::cluster::Cluster;
use super::error::Error;
use super::{show, view, wait};
use line::{Line, Printer};
use window::{Source, Window, chosen, source};

/// How long after the end of an attempt the rest of its log may take to arrive.
const REST: Duration = Duration::from_secs(2);

/// Bytes of a log that are read for its end, and of one line; a longer one counts as several.
const READ: i64 = 32 << 20;
const LINE: u64 = 4 << 10;

/// Prints the log of an attempt, once one has begun; with `--follow` of every further one, too, until the job has ended.
pub async fn logs(cluster: &Cluster, what: Logs) -> Result<(), Error> {
    let mut printer = Printer::new(&what)?;
    let mut shown = None;
    while let Some(window) = next(cluster, &what, shown).await? {
        print(cluster, &what, &window, &mut printer).await?;
        if !what.follow || what.attempt.is_some() {
            break;
        }
        shown = Some(window.from);
    }
    Ok(())
}

/// The attempt whose log is to be printed after the one that began then, as soon as it has begun; `None` when there will be
/// none.
async fn next(cluster: &Cluster, what: &Logs, shown: Option<Timestamp>) -> Result<Option<Window>, Error> {
    let name = &what.name;
    let next = |job: &DynamicObject| {
        let window = chosen(job, what.attempt)?;
        Ok(window.filter(|window| shown.is_none_or(|shown| window.from > shown)))
    };
    let mut said = false;
    let job = wait::until(cluster, name, |job| {
        let is_known = view::end(job).is_some() || next(job).is_err() || next(job).is_ok_and(|window| window.is_some());
        if !is_known && !said {
            show::say(&format!("waiting for a worker: {name} is {}", view::line(job)));
            said = true;
        }
        is_known
    })
    .await?;
    match next(&job).map_err(Error::NotPossible)? {
        None if shown.is_none() => Err(Error::NotPossible(format!("no worker ran {name}: it is {}", view::line(&job)))),
        window => Ok(window),
    }
}

/// Prints the log of one attempt: what is written already, and with `--follow` what comes until it is over.
async fn print(cluster: &Cluster, what: &Logs, window: &Window, printer: &mut Printer) -> Result<(), Error> {
    let pods: Api<Pod> = cluster.others();
    let found = pods.get_opt(&window.pod).await.map_err(Error::call(format!("reading the Pod {}", window.pod)))?;
    let pod = found.ok_or_else(|| Error::NotPossible(window.is_gone()))?;
    let source = source(&pod, window, what.container.as_deref()).map_err(Error::NotPossible)?;
    written(&pods, window, &source, printer).await?;
    printer.flush()?;
    if what.follow && window.until.is_none() && !source.is_previous {
        following(cluster, &what.name, &pods, window, &source, printer).await?;
    }
    Ok(())
}

/// The end of a log.
pub struct End {
    /// The Pod that wrote it.
    pub pod: String,
    /// Of which attempt it is.
    pub attempt: i64,
    /// The last lines, with the times at which they were written.
    pub lines: VecDeque<(Option<Timestamp>, String)>,
    /// There were others before them.
    pub is_cut: bool,
}

/// The last lines that were written while an attempt ran, or the last attempt. They are at most so many, of at most 4 kB each.
pub async fn end(cluster: &Cluster, job: &DynamicObject, attempt: Option<u32>, most: usize) -> Result<End, Error> {
    let window = chosen(job, attempt).map_err(Error::NotPossible)?;
    let window = window.ok_or_else(|| Error::NotPossible(format!("no worker ran it: it is {}", view::line(job))))?;
    let pods: Api<Pod> = cluster.others();
    let found = pods.get_opt(&window.pod).await.map_err(Error::call(format!("reading the Pod {}", window.pod)))?;
    let pod = found.ok_or_else(|| Error::NotPossible(window.is_gone()))?;
    let source = source(&pod, &window, None).map_err(Error::NotPossible)?;
    let params = LogParams { limit_bytes: Some(READ), ..params(&source, window.from, false) };
    let log = pods.log_stream(&window.pod, &params).await.map_err(source.failed(&window))?;
    let (mut log, mut line) = (pin!(log), Vec::new());
    let mut end = End { pod: window.pod.clone(), attempt: window.number, lines: VecDeque::new(), is_cut: false };
    while (&mut log).take(LINE).read_until(b'\n', &mut line).await? > 0 {
        let read = Line::read(&line);
        if window.is_over_at(read.at) {
            break;
        }
        if window.is_begun_at(read.at) {
            end.lines.push_back((read.at, read.printable()));
        }
        if end.lines.len() > most {
            end.lines.pop_front();
            end.is_cut = true;
        }
        line.clear();
    }
    Ok(end)
}

async fn written(pods: &Api<Pod>, window: &Window, source: &Source, printer: &mut Printer) -> Result<(), Error> {
    let log = pods.log_stream(&window.pod, &params(source, window.from, false)).await.map_err(source.failed(window))?;
    let (mut log, mut line) = (pin!(log), Vec::new());
    while log.read_until(b'\n', &mut line).await? > 0 {
        let read = Line::read(&line);
        if window.is_over_at(read.at) {
            break;
        }
        if window.is_begun_at(read.at) {
            printer.take(&read)?;
        }
        line.clear();
    }
    Ok(())
}

/// Prints what is written after what was printed already.
async fn following(
    cluster: &Cluster,
    name: &str,
    pods: &Api<Pod>,
    window: &Window,
    source: &Source,
    printer: &mut Printer,
) -> Result<(), Error> {
    let seen = printer.last;
    let since = seen.unwrap_or(window.from);
    let log = pods.log_stream(&window.pod, &params(source, since, true)).await.map_err(source.failed(window))?;
    let (mut log, mut line) = (pin!(log), Vec::new());
    let mut over = pin!(wait::until(cluster, name, |job| view::end(job).is_some() || window.of(job).until.is_some()));
    let (mut until, mut rest) = (None, Instant::now());
    loop {
        tokio::select! {
            length = log.read_until(b'\n', &mut line) => {
                let read = Line::read(&line);
                if length? == 0 || until.as_ref().is_some_and(|window: &Window| window.is_over_at(read.at)) {
                    return Ok(());
                }
                if window.is_begun_at(read.at) && seen.is_none_or(|seen| read.at.is_none_or(|at| at > seen)) {
                    printer.take(&read)?;
                    printer.flush()?;
                }
                line.clear();
            }
            job = &mut over, if until.is_none() => {
                until = Some(window.of(&job?));
                rest = Instant::now() + REST;
            }
            () = sleep_until(rest), if until.is_some() => return Ok(()),
        }
    }
}

fn params(source: &Source, since: Timestamp, follow: bool) -> LogParams {
    LogParams {
        container: Some(source.container.clone()),
        previous: source.is_previous,
        since_time: Some(since),
        timestamps: true,
        follow,
        ..LogParams::default()
    }
}
