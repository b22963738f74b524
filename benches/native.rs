//! The native worker beside `celery worker -c 1`: tasks in a second, and what both take when there is nothing to do.

use std::path::Path;
use std::time::{Duration, Instant};

use crewjob::wire::Call;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use tokio::time::sleep;

use super::bed::Bed;
use super::operator::program;
use super::process::{Process, cpu_seconds, memory};
use super::report::{Report, median, number};
use super::{Extent, Result};

const CELERY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/celery_worker.py");
const HEALTH: &str = "backend.tasks.health_check";
const TASKS: &str = "tasks:
  once: {command: [/bin/echo, '1']}
  stays:
    server: true
    command: [/bin/sh, -c, 'while read -r call; do echo \"{\\\"result\\\": 1}\"; done']
";

/// A worker of either kind, taking tasks one at a time from the queue `default`.
struct Worker {
    process: Process,
    connection: MultiplexedConnection,
    serial: usize,
}

impl Worker {
    /// Starts one on this database and waits until it has done a task; says how long that took, in seconds.
    async fn start(native: bool, url: &str, folder: &Path) -> Result<(Self, f64)> {
        let connection = Client::open(url)?.get_multiplexed_async_connection().await?;
        let began = Instant::now();
        let process = if native {
            let tasks = folder.join("tasks.yaml");
            std::fs::write(&tasks, TASKS)?;
            let tasks = tasks.to_string_lossy();
            let command = [&*program(), "worker", "-Q", "default", "-c", "1", "--log", "warn", "--tasks", &tasks];
            Process::start(&command, &[("REDIS_URL", url)], &folder.join("native.log"))?
        } else {
            let command = ["python3", CELERY, "-Q", "default", "-c", "1", "-E", "-l", "WARNING"];
            Process::start(&command, &[("REDIS_URL", url)], &folder.join("celery.log"))?
        };
        let mut worker = Self { process, connection, serial: 0 };
        worker.serve(HEALTH, 1).await?;
        Ok((worker, began.elapsed().as_secs_f64()))
    }

    /// Has so many calls served; says how many that were in a second.
    async fn serve(&mut self, task: &str, count: usize) -> Result<f64> {
        let mut messages = redis::pipe();
        let mut last = String::new();
        for _ in 0..count {
            self.serial += 1;
            last = format!("{task}-{}", self.serial);
            let mut call = Call::new(task, last.as_str(), "default");
            call.priority = 0;
            messages.lpush("default", call.envelope().encode()).ignore();
        }
        let began = Instant::now();
        let () = messages.query_async(&mut self.connection).await?;
        let result = format!("celery-task-meta-{last}");
        let patience = Instant::now() + Duration::from_mins(2);
        // First in, first out, and one at a time: with the last one all are done.
        while !self.connection.exists::<_, bool>(&result).await? {
            if Instant::now() > patience {
                return Err(format!("{task} is not served; the worker said:\n{}", self.process.last_words()).into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(number(count) / began.elapsed().as_secs_f64())
    }

    /// Memory of all its processes in megabytes, and the processor time they have used in seconds.
    fn takes(&self) -> Result<(f64, f64)> {
        let mut taken = (0.0, 0.0);
        let mut processes = vec![self.process.pid()];
        while let Some(pid) = processes.pop() {
            taken.0 += memory(pid, "VmRSS")?;
            taken.1 += cpu_seconds(pid)?;
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            processes.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(taken)
    }
}

/// Each kind in turn, each on a database of its own.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let (rounds, count, idle) = (extent.pick(1, 5), extent.pick(300, 1500), extent.pick(5, 60));
    report.say(format!("native worker: {rounds} rounds of {count} tasks, then {idle} s of nothing"));
    let folder = tempfile::tempdir()?;
    let (mut celery, celery_start) = Worker::start(false, &format!("{}/5", bed.redis), folder.path()).await?;
    let (mut native, native_start) = Worker::start(true, &format!("{}/6", bed.redis), folder.path()).await?;
    let measures = [
        ("worker_noop", HEALTH, count * 4),
        ("worker_server_mode", "stays", count),
        ("worker_child_per_job", "once", count / 3),
    ];
    let mut limits = Vec::new();
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        let limit = celery.serve(HEALTH, count).await?;
        let mut line = vec![format!("  round {round}: celery worker -c 1 {limit:.0}/s")];
        for ((name, task, count), rates) in measures.iter().zip(&mut rates) {
            let rate = native.serve(task, *count).await?;
            line.push(format!("{name} {rate:.0}/s"));
            if round > 0 {
                rates.push(rate);
            }
        }
        report.say(line.join(", "));
        if round > 0 {
            limits.push(limit);
        }
    }
    for ((name, ..), rates) in measures.iter().zip(&rates) {
        report.measure(name, median(rates), "1/s", Some(median(&limits)));
    }
    report.measure("worker_start", native_start, "s", Some(celery_start));
    let (before, celery_before) = (native.takes()?, celery.takes()?);
    sleep(Duration::from_secs(idle)).await;
    let (after, celery_after) = (native.takes()?, celery.takes()?);
    let share = |before: f64, after: f64| (after - before) * 100.0 / Duration::from_secs(idle).as_secs_f64();
    report.measure("worker_idle_rss", after.0, "MB", Some(celery_after.0));
    report.measure("worker_idle_cpu", share(before.1, after.1), "%", Some(share(celery_before.1, celery_after.1)));
    Ok(())
}
