//! `make bench`: what the operator and the native worker cost and how fast they are, each measure with its limit from the same run.
//!
//! It starts an API server, a Redis and the operator, and needs nothing else on the machine. One JSON line per measure goes
//! to standard output, progress to standard error. Arguments are the measures to take (`latency`, `throughput`,
//! `scaling`, `enqueue`, `memory`, `finished`, `native`, `fleet`, `tenants`, `gateway`, `limits`, `bounded`; all of them by default) and `--quick`, or `BENCH_QUICK=1`, for less of each.
//! `BENCH_PROGRAM` names another build of the operator to measure instead.

mod bed;
mod bounded;
mod enqueue;
mod fleet;
mod gateway;
mod jobs;
mod latency;
mod limits;
mod memory;
mod native;
mod operator;
mod process;
mod report;
mod scaling;
mod tenants;
mod throughput;
mod worker;

use std::process::ExitCode;

use bed::Bed;
use crewjob::api::CrewJob;
use report::Report;

/// Whatever goes wrong ends the benchmark with a message.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const MEASURES: [&str; 12] = [
    "latency",
    "throughput",
    "scaling",
    "enqueue",
    "memory",
    "finished",
    "native",
    "fleet",
    "tenants",
    "gateway",
    "limits",
    "bounded",
];

/// How much is measured.
#[derive(Clone, Copy)]
enum Extent {
    /// Under a minute: whether everything works, and roughly.
    Quick,
    /// Figures to compare.
    Full,
}

impl Extent {
    fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run() => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    });
    outcome.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &Failure) -> ExitCode {
    eprintln!("bench: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (options, measures): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = options.iter().find(|option| **option != "--quick") {
        return Err(format!("unknown option {unknown}; there is --quick").into());
    }
    if let Some(unknown) = measures.iter().find(|measure| !MEASURES.contains(measure)) {
        return Err(format!("unknown measure {unknown}; there are {}", MEASURES.join(", ")).into());
    }
    let quick = !options.is_empty() || std::env::var("BENCH_QUICK").is_ok_and(|value| value == "1");
    let extent = if quick { Extent::Quick } else { Extent::Full };
    let wanted = |measure| measures.is_empty() || measures.contains(&measure);

    let report = Report::new();
    let bed = Bed::prepare(&report).await?;
    if wanted("latency") || wanted("throughput") || wanted("scaling") {
        let operator = bed.operator().await?;
        report.say("the operator leads");
        let taken = async {
            if wanted("latency") {
                latency::measure(&bed, &operator, extent, &report).await?;
            }
            if wanted("throughput") {
                throughput::measure(&bed, &operator, extent, &report).await?;
            }
            if wanted("scaling") {
                scaling::measure(&bed, extent, &report).await?;
            }
            Result::Ok(())
        };
        taken.await.map_err(|error| format!("{error}; the operator said:\n{}", operator.last_words()))?;
    }
    if wanted("enqueue") {
        enqueue::measure(&bed, extent, &report).await?;
    }
    if wanted("memory") {
        jobs::delete_all(&bed.api::<CrewJob>()).await?;
        memory::measure(&bed, extent, &report).await?;
    }
    if wanted("finished") {
        memory::measure_finished(&bed, extent, &report).await?;
    }
    if wanted("native") {
        native::measure(&bed, extent, &report).await?;
    }
    if wanted("fleet") {
        fleet::measure(&bed, extent, &report).await?;
    }
    if wanted("tenants") {
        jobs::delete_all(&bed.api::<CrewJob>()).await?;
        tenants::measure(&bed, extent, &report).await?;
    }
    if wanted("gateway") {
        jobs::delete_all(&bed.api::<CrewJob>()).await?;
        gateway::measure(&bed, extent, &report).await?;
    }
    if wanted("limits") {
        jobs::delete_all(&bed.api::<CrewJob>()).await?;
        limits::measure(&bed, extent, &report).await?;
    }
    // It takes more than a minute however little is asked for.
    if wanted("bounded") && (!quick || !measures.is_empty()) {
        drop(bed);
        bounded::measure(extent, &report)?;
    }
    report.say(format!("done: {} measures", report.measures()));
    Ok(())
}
