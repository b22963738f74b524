//! The process of a server, between its calls.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::super::Spec;
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
}

impl Child {
    /// Whether it can be asked: it is there, and has answered nothing that it was not asked. What else it has written is
    /// logged.
    pub(super) fn is_waiting(&mut self, spec: &Spec) -> bool {
        use futures::FutureExt;

        let program = spec.command.first().map_or("", String::as_str);
        let mut stderr = Stderr::new(Names { id: "", task: program });
        let Self { group, pipes, lines, .. } = self;
        let mut in_step = true;
        while let Some(heard) = pipes.hear().now_or_never() {
            match heard {
                Heard::Output([]) | Heard::Input { .. } => return false,
                Heard::Output(chunk) => lines.push(chunk, |line| match answer::read(line.bytes) {
                    Said::Other => {
                        tracing::info!(command = program, line = %shown(line.bytes), "printed between two calls");
                    }
                    Said::Progress(_) | Said::Answer(_) | Said::Malformed => in_step = false,
                }),
                Heard::Errors([]) => {}
                Heard::Errors(chunk) => stderr.take(chunk),
            }
        }
        stderr.finish();
        if !in_step {
            tracing::warn!(command = program, "the server answered without a call; replacing it");
        }
        in_step && !lines.begun() && !group.has_ended()
    }

    /// Lets it end, and then makes it.
    pub(super) async fn leave(mut self, grace: Duration) {
        self.pipes.close_input();
        for signal in [Signal::TERM, Signal::KILL] {
            let ended = async {
                loop {
                    tokio::select! {
                        () = self.group.ended() => return,
                        _ = self.pipes.hear() => {}
                    }
                }
            };
            if timeout(grace, ended).await.is_ok() {
                break;
            }
            self.group.signal(signal);
        }
        // Its exit status is not needed any more.
        let _ = self.group.reap().await;
    }
}
