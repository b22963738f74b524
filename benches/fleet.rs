//! What 200 idle native workers cost Redis: connections, scripts for each message, and how soon a message is taken.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crewjob::wire::Call;
use futures::StreamExt;
use redis::Client;
use redis::aio::MultiplexedConnection;
use tokio::time::{interval, sleep, timeout};

use super::bed::Bed;
use super::operator::program;
use super::process::Process;
use super::report::{Report, number, percentile};
use super::{Extent, Result};

/// Between two messages.
const PACE: Duration = Duration::from_millis(20);
/// How long the idle fleet is looked at.
const IDLE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_mins(2);
const RESULT: &str = "celery-task-meta-";

/// Starts them, and sends messages of a task that does nothing.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let (size, count) = (extent.pick(20, 200), extent.pick(100, 500));
    report.say(format!("fleet: {size} idle workers, {count} messages, 50 a second"));
    let server = bed.redis_server()?;
    let client = Client::open(server.url.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let (mut sink, mut results) = client.get_async_pubsub().await?.split();
    sink.psubscribe(format!("{RESULT}*")).await?;
    let own = clients(&mut connection).await?;
    let folder = tempfile::tempdir()?;
    let mut workers = Vec::new();
    for worker in 0..size {
        let name = format!("worker-{worker}@bench");
        let command = [
            &*program(),
            "worker",
            "-Q",
            "crew_jobs,default,a,b,c",
            "-c",
            "1",
            "-n",
            &name,
            "--log",
            "warn",
            "--without-mingle",
        ];
        workers.push(Process::start(&command, &[("REDIS_URL", &server.url)], &folder.path().join(&name))?);
    }
    let deadline = Instant::now() + PATIENCE;
    while text(&mut connection, &["CLIENT", "LIST"]).await?.matches("cmd=blpop").count() < size - 1 {
        if Instant::now() > deadline {
            return Err(format!("the fleet is not idle; a worker said:\n{}", workers[0].last_words()).into());
        }
        sleep(Duration::from_millis(100)).await;
    }
    report.say("  the fleet waits");
    // Those that have just started have all looked at once.
    sleep(Duration::from_secs(5)).await;
    let (before, began) = (scripts(&mut connection).await?, Instant::now());
    sleep(IDLE).await;
    let idle = number(usize::try_from(scripts(&mut connection).await? - before)?) / began.elapsed().as_secs_f64();
    let connections = clients(&mut connection).await? - own;
    let (before, began) = (scripts(&mut connection).await?, Instant::now());
    let mut sent = HashMap::new();
    let mut ticks = interval(PACE);
    let mut waits = Vec::new();
    for number in 0..count {
        ticks.tick().await;
        let id = format!("id-{number}");
        let mut call = Call::new("backend.tasks.health_check", id.as_str(), "default");
        call.priority = 0;
        let message = call.envelope().encode();
        sent.insert(id, Instant::now());
        let () = redis::cmd("LPUSH").arg("default").arg(message).query_async(&mut connection).await?;
        // The next one is sent to an idle fleet again.
        let heard = timeout(PATIENCE, results.next()).await?.ok_or("Redis is gone")?;
        let channel = heard.get_channel_name().trim_start_matches(RESULT);
        let at = sent.get(channel).ok_or("a result of another task")?;
        waits.push(at.elapsed().as_secs_f64() * 1000.0);
    }
    let all = number(usize::try_from(scripts(&mut connection).await? - before)?);
    // Each worker says that it lives, whether messages come or not: counted, and told apart.
    let beside_idle = (all - idle * began.elapsed().as_secs_f64()).max(0.0) / number(count);
    report.say(format!("  the idle fleet runs {idle:.0} scripts a second"));
    report.measure("fleet_connections", number(connections) / number(size), "for each worker", Some(4.0));
    report.measure("fleet_scripts_per_message", all / number(count), "scripts", Some(3.0));
    report.measure("fleet_scripts_per_message_beside_idle", beside_idle, "scripts", None);
    report.measure("fleet_pickup_p99", percentile(&waits, 0.99), "ms", Some(20.0));
    report.say(format!(
        "  from the push of a message to the result of a task that does nothing: {:.1} ms (p50)",
        percentile(&waits, 0.5)
    ));
    Ok(())
}

async fn text(connection: &mut MultiplexedConnection, command: &[&str]) -> Result<String> {
    Ok(redis::cmd(command[0]).arg(&command[1..]).query_async(connection).await?)
}

async fn clients(connection: &mut MultiplexedConnection) -> Result<usize> {
    Ok(text(connection, &["CLIENT", "LIST"]).await?.lines().count())
}

/// Scripts that the server has run.
async fn scripts(connection: &mut MultiplexedConnection) -> Result<u64> {
    let stats = text(connection, &["INFO", "commandstats"]).await?;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    Ok(calls.split(',').next().unwrap_or_default().parse()?)
}
