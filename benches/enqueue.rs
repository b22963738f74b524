//! What one processor core of a producer can enqueue: the operator's way, and Celery's `apply_async`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use crewjob::core::id::{AttemptId, Priority, SpecHash, TaskId};
use crewjob::store::{Enqueued, Epoch, Message, Secret, Settings, Store};
use crewjob::wire::{Call, Object, TimeLimit, Value};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::bed::Bed;
use super::process::cpu_seconds;
use super::report::{Report, median, number};
use super::{Extent, Result};

/// Enqueues under way side by side, as many as the operator has reconcilers.
const CONCURRENCY: usize = 32;
const EPOCH: Epoch = Epoch { created: 1, transitions: 1 };
const PRODUCER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/apply_async.py");

/// Rounds of both, in turn, each on a database of its own.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let (rounds, ours, theirs) = (extent.pick(2, 5), extent.pick(5000, 20_000), extent.pick(500, 2000));
    report.say(format!("enqueue: {rounds} rounds of {ours} messages, and of {theirs} by apply_async"));
    let mut celery = Celery::start(&format!("{}/1", bed.redis))?;
    celery.publish(50)?;
    let url = format!("{}/2", bed.redis);
    let store = Store::connect(&Settings::new(Secret::new(&*url), "bench", "bench/bench")).await?;
    let client = redis::Client::open(&*url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let (mut rates, mut limits) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        redis::cmd("FLUSHDB").exec_async(&mut connection).await?;
        store.claim(EPOCH).await?;
        let before = (Instant::now(), cpu_seconds(process::id())?);
        publish(&store, round, ours).await?;
        let cpu = cpu_seconds(process::id())? - before.1;
        let wall = before.0.elapsed().as_secs_f64();
        let (celery_cpu, celery_wall) = celery.publish(theirs)?;
        if round == 0 {
            continue; // for warming up
        }
        rates.push(number(ours) / cpu);
        limits.push(number(theirs) / celery_cpu);
        report.say(format!(
            "  round {round}: {:.0}/s of processor time, {:.0}/s by the clock; apply_async {:.0}/s and {:.0}/s",
            number(ours) / cpu,
            number(ours) / wall,
            number(theirs) / celery_cpu,
            number(theirs) / celery_wall
        ));
    }
    report.measure("enqueue_per_second", median(&rates), "1/s per core", Some(median(&limits)));
    Ok(())
}

async fn publish(store: &Store, round: usize, count: usize) -> Result<()> {
    stream::iter(0..count)
        .map(async |number| match store.enqueue(EPOCH, &message(round, number)).await? {
            Enqueued::Published => Result::Ok(()),
            other @ (Enqueued::Already(_) | Enqueued::HasResult) => {
                Err(format!("message {number} of round {round}: {other:?}").into())
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// The message of an ordinary job, as the operator puts it together.
fn message(round: usize, number: usize) -> Message {
    let uid = Uuid::from_u128(((round as u128) << 64) | number as u128);
    let id = AttemptId { number: 1, task: TaskId::derive(uid, 1), generation: 0 };
    let name = format!("job-{number}");
    let mut call = Call::new("backend.tasks.run_crew_task", id.task.to_string(), "crew_jobs");
    call.delivery_tag = id.tag();
    call.args = vec![Value::from(name.as_str())];
    let inputs = Object::new()
        .with("topic", "Introduction to machine learning")
        .with("level", "undergraduate")
        .with("pages", 12);
    call.kwargs = Object::new().with("inputs", inputs).with("bypass_cache", false);
    call.time_limit = TimeLimit::seconds(3600, 3000);
    call.headers = Object::new()
        .with("crewjob_uid", uid.to_string())
        .with("crewjob_namespace", "bench")
        .with("crewjob_name", name.as_str());
    Message {
        spec: SpecHash([0; 16]),
        uid,
        namespace: "bench".into(),
        name: name.into(),
        id,
        queue: "crew_jobs".into(),
        priority: Priority::default(),
        envelope: call.envelope().encode(),
    }
}

/// A Python process that calls `apply_async` as often as it is told.
struct Celery {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Celery {
    fn start(redis: &str) -> Result<Self> {
        let mut process = Command::new("python3")
            .arg(Path::new(PRODUCER))
            .env("REDIS_URL", redis)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3 is needed for the comparison with Celery: {error}"))?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        Ok(Self { process, input, output })
    }

    /// Processor time and time by the clock that so many calls took, in seconds.
    fn publish(&mut self, count: usize) -> Result<(f64, f64)> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{count}")?;
        }
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let mut times = line.split_whitespace().map(str::parse::<f64>);
        match (times.next(), times.next()) {
            (Some(Ok(cpu)), Some(Ok(wall))) => Ok((cpu, wall)),
            _ => Err(format!("{PRODUCER} failed: see above").into()),
        }
    }
}

impl Drop for Celery {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.process.wait();
    }
}
