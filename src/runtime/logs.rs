//! Log lines on their way to standard error.
//!
//! A thread of its own writes them, so that a terminal, a pipe or a disk that takes none holds up no lease and no probe.
//! A line that cannot be written is lost, and ends nothing. What waits is bounded; what is beyond it is counted.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes that wait.
const MOST: usize = 1 << 20;
/// Pause after standard error has taken nothing because it would block: another process has made it so.
const PAUSE: Duration = Duration::from_millis(10);

/// Where lines go. Clones go to the same place.
#[derive(Clone, Default)]
pub struct Logs(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told of a line.
    filled: Condvar,
    /// Told when all lines are written.
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: u64,
    is_writing: bool,
    has_thread: bool,
}

impl Logs {
    /// Begins to write lines to `place`. Where there is no thread to be had, each line is written by the code that logs it.
    pub fn start(place: impl Write + Send + 'static) -> Self {
        let logs = Self::default();
        let writes = logs.clone();
        let thread = thread::Builder::new().name("logs".to_owned()).spawn(move || writes.write_all_to(place));
        logs.0.waiting.lock().has_thread = thread.is_ok();
        logs
    }

    /// Waits until all lines are written, or until this much time has passed.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut waiting = self.0.waiting.lock();
        while waiting.has_thread && (waiting.is_writing || !waiting.lines.is_empty()) {
            if self.0.written.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if !waiting.has_thread {
            drop(waiting);
            write(&mut io::stderr(), line);
        } else if waiting.bytes + line.len() > MOST {
            waiting.lost += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push_back(line.to_owned());
            self.0.filled.notify_one();
        }
    }

    fn write_all_to(&self, mut place: impl Write) {
        let mut waiting = self.0.waiting.lock();
        loop {
            let lines = std::mem::take(&mut waiting.lines);
            waiting.bytes = 0;
            let lost = std::mem::take(&mut waiting.lost);
            if lines.is_empty() && lost == 0 {
                waiting.is_writing = false;
                self.0.written.notify_all();
                self.0.filled.wait(&mut waiting);
                continue;
            }
            waiting.is_writing = true;
            drop(waiting);
            for line in lines {
                write(&mut place, &line);
            }
            if lost > 0 {
                tracing::warn!(lost, "log lines were dropped, because standard error did not take them in time");
            }
            waiting = self.0.waiting.lock();
        }
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

impl Write for Logs {
    /// Takes a whole line: `tracing_subscriber` writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a line, unless that is impossible.
fn write(place: &mut impl Write, line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        match place.write(rest) {
            Ok(0) => return,
            Ok(taken) => rest = &rest[taken..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            // There is nowhere to say that it is lost.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a few bytes at a time, after the given errors, and not before it may.
    struct Place {
        errors: Vec<ErrorKind>,
        may: Option<Receiver<()>>,
        taken: Sender<Vec<u8>>,
    }

    impl Write for Place {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(may) = self.may.take() {
                let _ = may.recv();
            }
            if let Some(error) = self.errors.pop() {
                return Err(error.into());
            }
            let some = &bytes[..bytes.len().min(3)];
            self.taken.send(some.to_owned()).unwrap();
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn taken(from: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(from.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn a_line_is_written_whole_also_where_writing_would_block_and_one_that_cannot_be_written_ends_nothing() {
        let (taken_to, taken_from) = channel();
        let errors = vec![ErrorKind::BrokenPipe, ErrorKind::WouldBlock, ErrorKind::Interrupted];
        let mut logs = Logs::start(Place { errors, may: None, taken: taken_to });
        for line in ["lost in a broken pipe\n", "second\n", "third\n"] {
            logs.write_all(line.as_bytes()).unwrap();
        }
        logs.flush(Duration::from_mins(1));
        assert_eq!(taken(&taken_from), "second\nthird\n");
    }

    #[test]
    fn lines_that_are_not_taken_hold_nothing_up_and_are_bounded() {
        let (taken_to, taken_from) = channel();
        let (let_go, may) = channel();
        let mut logs = Logs::start(Place { errors: vec![], may: Some(may), taken: taken_to });
        let line = "x".repeat(1 << 16);
        for _ in 0..100 {
            logs.write_all(line.as_bytes()).unwrap();
        }
        logs.flush(Duration::from_millis(1));
        assert!(logs.0.waiting.lock().bytes <= MOST);
        let_go.send(()).unwrap();
        logs.flush(Duration::from_mins(1));
        let bytes = taken(&taken_from).len();
        assert!((MOST / 2..=2 * MOST).contains(&bytes), "{bytes}");
    }
}
