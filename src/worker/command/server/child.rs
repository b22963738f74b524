//! The process of a server, between its calls.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::super::answer::{self, Said};
use super::super::group::Group;
use super::super::lines::Lines;
use super::super::pipes::{Heard, Pipes};
use super::super::stderr::{Names, Stderr, shown};

/// A running server.
pub(super) struct Child {
    pub group: Group,
    pub pipes: Pipes,
    pub lines: Lines,
    pub calls: u32,
    /// For the log.
    pub program: String,
}

impl Child {
    /// Whether it can be asked. In the middle of a line it cannot: its answer would be a part of that.
    pub(super) fn is_waiting(&mut self) -> bool {
        self.tend() && !self.lines.begun()
    }

    /// Takes what it has written, and logs it. Whether it is there, and has answered nothing that it was not asked.
    pub(super) fn tend(&mut self) -> bool {
        use futures::FutureExt;

        let Self { group, pipes, lines, program, .. } = self;
        let mut stderr = Stderr::new(Names { id: "", task: program });
        let (mut in_step, mut is_open) = (true, true);
        while let Some(heard) = pipes.hear().now_or_never() {
            match heard {
                // Its last words may still come on the other pipe.
                Heard::Output([]) | Heard::Input { .. } => is_open = false,
                Heard::Output(chunk) => lines.push(chunk, |line| match answer::read(line.bytes) {
                    Said::Other => {
                        tracing::info!(command = program, line = %shown(line.bytes), "printed between two calls");
                    }
                    Said::Interim(_) | Said::Answer(_) | Said::Malformed => in_step = false,
                }),
                Heard::Errors([]) => {}
                Heard::Errors(chunk) => stderr.take(chunk),
            }
        }
        stderr.finish();
        if !in_step {
            tracing::warn!(command = program, "the server answered without a call; replacing it");
        }
        is_open && in_step && !group.has_ended()
    }

    /// Lets it end, and then makes it.
    pub(super) async fn leave(self, grace: Duration) {
        let Self { mut group, mut pipes, program, .. } = self;
        let mut stderr = Stderr::new(Names { id: "", task: &program });
        pipes.close_input();
        for signal in [Signal::TERM, Signal::KILL] {
            let ended = async {
                loop {
                    tokio::select! {
                        () = group.ended() => return,
                        heard = pipes.hear() => if let Heard::Errors(chunk) = heard {
                            stderr.take(chunk);
                        }
                    }
                }
            };
            if timeout(grace, ended).await.is_ok() {
                break;
            }
            group.signal(signal);
        }
        // Its exit status is not needed any more.
        let _ = group.reap().await;
        let rest = async {
            while !pipes.closed() {
                if let Heard::Errors(chunk) = pipes.hear().await {
                    stderr.take(chunk);
                }
            }
        };
        let _: Result<(), _> = timeout(LAST_WORDS, rest).await;
        stderr.finish();
    }
}

/// How long its last words are waited for, when it has ended and another process holds its pipes open.
const LAST_WORDS: Duration = Duration::from_millis(100);
