//! The operator as a child process, and what its `/metrics` say.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Result;
use super::process::{self, Process};

/// The program under test: that of the same build, or the file `BENCH_PROGRAM`, to compare with another one.
pub fn program() -> String {
    std::env::var("BENCH_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_crewjob").to_owned())
}

/// Writes of jobs' statuses that went well: the metric and its labels.
pub const JOB_WRITES: (&str, &str) = ("crewjob_api_writes_total", r#"write="JobStatus",outcome="Done""#);
/// Jobs that are over.
pub const FINISHED: (&str, &str) = ("crewjob_jobs_finished_total", "");

/// A running operator that leads.
pub struct Operator {
    process: Process,
    address: String,
}

/// Variables that the image sets for operator and native worker.
pub const AS_IN_THE_IMAGE: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "65536")];

impl Operator {
    /// Starts one in this namespace and waits until it leads and has reached Redis.
    pub async fn start(kubeconfig: &str, namespace: &str, pool_namespaces: &str, folder: &Path) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let command = [&*program(), "operator", "--admin-address", &address, "--lease-namespace", namespace];
        let own = [("KUBECONFIG", kubeconfig), ("POD_NAME", "bench"), ("CREWJOB_POOL_NAMESPACES", pool_namespaces)];
        let variables = [own.as_slice(), &AS_IN_THE_IMAGE].concat();
        let process = Process::start(&command, &variables, &folder.join("operator.log"))?;
        let operator = Self { process, address };
        let deadline = Instant::now() + Duration::from_mins(1);
        while operator.metric(("crewjob_broker_up", "")).unwrap_or(0.0) < 1.0 {
            if Instant::now() > deadline {
                return Err(
                    format!("the operator does not get ready; it said:\n{}", operator.process.last_words()).into()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await; // its first audit
        Ok(operator)
    }

    /// The sum of a metric over all series whose labels contain `labels`.
    pub fn metric(&self, (name, labels): (&str, &str)) -> Result<f64> {
        let text = get(&self.address, "/metrics")?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(of_name).filter(|line| line.contains(labels));
        Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until a metric has reached this value; says how it goes every few seconds.
    pub async fn reaches(&self, metric: (&str, &str), value: f64, say: impl Fn(f64)) -> Result<()> {
        let mut told = Instant::now();
        let mut moved = (Instant::now(), f64::NAN);
        loop {
            let now = self.metric(metric)?;
            if now >= value {
                return Ok(());
            }
            if moved.1.to_bits() != now.to_bits() {
                moved = (Instant::now(), now);
            }
            if moved.0.elapsed() > Duration::from_mins(1) {
                let said = self.process.last_words();
                let name = metric.0;
                return Err(format!("{name} stays at {now} instead of {value}; the operator said:\n{said}").into());
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                say(now);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    /// Megabytes in memory.
    pub fn memory(&self, figure: &str) -> Result<f64> {
        process::memory(self.process.pid(), figure)
    }

    /// Processor time so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.process.pid())
    }
}

/// A loopback port that no process listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(format!("{path}: {head}").into()) }
}
