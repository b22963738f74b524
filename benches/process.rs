//! Processes that end with this one, however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Result;

/// Ends the process when its own input is closed, be it by the death of the benchmark.
const KEEPER: &str = r#"log=$1; shift; "$@" >"$log" 2>&1 & echo $!; read -r _; kill $! 2>/dev/null; wait $!"#;

/// A running process; it is told to end, and waited for, when dropped.
pub struct Process {
    keeper: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with these variables; what it prints goes to the file `log`.
    pub fn start(command: &[&str], variables: &[(&str, &str)], log: &Path) -> Result<Self> {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(log)
            .args(command)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().map_err(|_| format!("{} did not start", command[0]))?;
        Ok(Self { keeper, pid, log: log.to_owned() })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Processor time that a process has used, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain anything; the two times are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0) // Linux counts for user space in hundredths of a second
}

/// A memory figure of a process, such as `VmRSS`, in megabytes of a million bytes.
pub fn memory(pid: u32, figure: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')?.split_whitespace().next());
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).ok_or_else(|| format!("no {figure} of process {pid}"))?;
    Ok(kib * 1024.0 / 1e6)
}
