//! The native worker beside Celery's: tasks in a second, and what both take when there is nothing to do.
//!
//! Rates are those of a queue that is full, from its first result to its last, one task at a time. The limit is what
//! Celery does at its best: in one process (`solo`) or in a child (`prefork`), with messages fetched in advance, and without
//! what the reference application adds for each task: its state `STARTED`, and a new child for every hundredth. That
//! configuration takes several times as long for a task; it is the peer of
//! start, memory and processor time.

use std::path::Path;
use std::time::{Duration, Instant};

use crewjob::store::channel::{Ask, Settlement};
use crewjob::store::{Access, Channel, Secret};
use crewjob::wire::Call;
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use tokio::time::sleep;

use super::bed::Bed;
use super::operator::{AS_IN_THE_IMAGE, program};
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
/// The fastest modes of Celery: pool and `worker_prefetch_multiplier`.
const FASTEST: [(&str, &str); 2] = [("solo", "64"), ("prefork", "64")];

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
            let variables = [[("REDIS_URL", url)].as_slice(), &AS_IN_THE_IMAGE].concat();
            Process::start(&command, &variables, &folder.join("native.log"))?
        } else {
            let command = ["python3", CELERY, "-Q", "default", "-c", "1", "-E", "-l", "WARNING"];
            Process::start(&command, &[("REDIS_URL", url)], &folder.join("celery.log"))?
        };
        let mut worker = Self { process, connection, serial: 0 };
        let (first, _) = fill(&mut worker.connection, HEALTH, 0, 1).await?;
        worker.serial = 1;
        let () = worker.connection.rename(READY, "default").await?;
        worker.done(&first).await?;
        Ok((worker, began.elapsed().as_secs_f64()))
    }

    /// Has so many calls served; says how many that were in a second, from the first to the last.
    async fn serve(&mut self, task: &str, count: usize) -> Result<f64> {
        let (first, last) = fill(&mut self.connection, task, self.serial, count).await?;
        self.serial += count;
        let () = self.connection.rename(READY, "default").await?;
        self.rate(count, &first, &last).await
    }

    /// Tasks in a second, from the result of the first to that of the last.
    async fn rate(&mut self, count: usize, first: &str, last: &str) -> Result<f64> {
        self.done(first).await?;
        let began = Instant::now();
        // First in, first out, and one at a time: with the last one all are done.
        self.done(last).await?;
        Ok(number(count.max(2) - 1) / began.elapsed().as_secs_f64())
    }

    async fn done(&mut self, task: &str) -> Result<()> {
        let result = format!("celery-task-meta-{task}");
        let patience = Instant::now() + Duration::from_mins(2);
        while !self.connection.exists::<_, bool>(&result).await? {
            if Instant::now() > patience {
                return Err(format!("{task} is not served; the worker said:\n{}", self.process.last_words()).into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
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

/// A list that no worker consumes, until it is renamed.
const READY: &str = "ready";

/// Puts so many calls there, and says the ids of the first and the last.
async fn fill(
    connection: &mut MultiplexedConnection,
    task: &str,
    from: usize,
    count: usize,
) -> Result<(String, String)> {
    let id = |serial: usize| format!("{task}-{serial}");
    let mut messages = redis::pipe();
    for serial in from..from + count {
        let mut call = Call::new(task, id(serial), "default");
        call.priority = 0;
        messages.lpush(READY, call.envelope().encode()).ignore();
    }
    let () = messages.query_async(connection).await?;
    Ok((id(from), id(from + count - 1)))
}

/// What Celery does at its best: its queue is full when it starts, and it writes nothing but results and events.
async fn celery_at_its_best(url: &str, folder: &Path, count: usize, report: &Report) -> Result<f64> {
    let mut best: f64 = 0.0;
    for (pool, prefetch) in FASTEST {
        let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
        let (first, last) = fill(&mut connection, HEALTH, 0, count).await?;
        let () = connection.rename(READY, "default").await?;
        let command = [
            "python3",
            CELERY,
            "-Q",
            "default",
            "-c",
            "1",
            "-E",
            "-l",
            "WARNING",
            "-P",
            pool,
            "--prefetch-multiplier",
            prefetch,
            "--without-gossip",
            "--without-mingle",
        ];
        let variables = [("REDIS_URL", url), ("BENCH_CELERY_AT_ITS_BEST", "1")];
        let process = Process::start(&command, &variables, &folder.join("celery-best.log"))?;
        let mut worker = Worker { process, connection, serial: 0 };
        let rate = worker.rate(count, &first, &last).await?;
        report.say(format!("  celery worker -c 1 -P {pool}, prefetch {prefetch}: {rate:.0}/s"));
        best = best.max(rate);
        drop(worker.process);
        let () = redis::cmd("FLUSHDB").query_async(&mut worker.connection).await?;
    }
    Ok(best)
}

fn bare_ask(last: &str) -> Ask<'_> {
    Ask { queues: &["default"], asker: "bare", worker: "bare", last, holder: "bare", lease: Duration::from_secs(6) }
}

/// The scripts of a task, one after the other, and nothing else: tasks in a second.
async fn bare_loop(url: &str, count: usize) -> Result<f64> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    fill(&mut connection, HEALTH, 0, count).await?;
    let () = connection.rename(READY, "default").await?;
    let channel = Channel::connect(&Access::new(Secret::new(url))).await?;
    let mut next = channel.take(&bare_ask("")).await?.delivery;
    let began = Instant::now();
    while let Some(delivery) = next {
        let (id, _) = delivery.begun.ok_or("a task was not begun with its message")?;
        let document = format!(
            r#"{{"status": "SUCCESS", "result": {{"status": "healthy", "worker_id": "bare", "task_id": "{id}"}}, "traceback": null, "children": [], "date_done": "2026-11-27T00:00:00+00:00", "name": "{HEALTH}", "args": [], "kwargs": {{}}, "worker": "bare", "retries": 0, "queue": "default", "task_id": "{id}"}}"#
        );
        let end = Settlement {
            task: &id,
            tag: &delivery.tag,
            holder: "bare",
            place: "bare",
            id: &id,
            document: Some(document.as_bytes()),
            others: &[],
            expires: Some(Duration::from_hours(1)),
            is_success: true,
            publish: &[],
        };
        let (_, taken) = channel.settle_and_take(&end, None, Some(&bare_ask(&delivery.tag))).await?;
        next = taken.and_then(|taken| taken.delivery);
    }
    let rate = number(count) / began.elapsed().as_secs_f64();
    let () = redis::cmd("FLUSHDB").query_async(&mut connection).await?;
    Ok(rate)
}

/// Each kind in turn, each on a database of its own.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let (rounds, count, idle) = (extent.pick(1, 5), extent.pick(300, 1500), extent.pick(5, 60));
    report.say(format!("native worker: {rounds} rounds of {count} tasks, then {idle} s of nothing"));
    let folder = tempfile::tempdir()?;
    let limit = celery_at_its_best(&format!("{}/7", bed.redis), folder.path(), count * 2, report).await?;
    let (celery, celery_start) = Worker::start(false, &format!("{}/5", bed.redis), folder.path()).await?;
    let (mut native, native_start) = Worker::start(true, &format!("{}/6", bed.redis), folder.path()).await?;
    let measures = [
        ("worker_noop", HEALTH, count * 8),
        ("worker_server_mode", "stays", count),
        ("worker_child_per_job", "once", count / 3),
    ];
    let mut rates = [const { Vec::new() }; 3];
    let mut bare = Vec::new();
    for round in 0..=rounds {
        let scripts = bare_loop(&format!("{}/8", bed.redis), count * 8).await?;
        let mut line = vec![format!("  round {round}: bare loop of scripts {scripts:.0}/s")];
        for ((name, task, count), rates) in measures.iter().zip(&mut rates) {
            let rate = native.serve(task, *count).await?;
            line.push(format!("{name} {rate:.0}/s"));
            if round > 0 {
                rates.push(rate);
            }
        }
        report.say(line.join(", "));
        if round > 0 {
            bare.push(scripts);
        }
    }
    for ((name, ..), rates) in measures.iter().zip(&rates) {
        report.measure(name, median(rates), "1/s", Some(limit));
    }
    report.measure("worker_noop_redis", median(&rates[0]), "1/s", Some(median(&bare)));
    report.measure("worker_start", native_start, "s", Some(celery_start));
    let (before, celery_before) = (native.takes()?, celery.takes()?);
    sleep(Duration::from_secs(idle)).await;
    let (after, celery_after) = (native.takes()?, celery.takes()?);
    let share = |before: f64, after: f64| (after - before) * 100.0 / Duration::from_secs(idle).as_secs_f64();
    report.measure("worker_idle_rss", after.0, "MB", Some(celery_after.0));
    report.measure("worker_idle_cpu", share(before.1, after.1), "%", Some(share(celery_before.1, celery_after.1)));
    Ok(())
}
