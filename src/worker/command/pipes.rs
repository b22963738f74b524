//! The three pipes of a command, all served at once, so that none of them can block it.

use std::future::pending;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::group::Ends;

/// Our ends of the pipes.
pub(super) struct Pipes {
    input: Option<ChildStdin>,
    text: Vec<u8>,
    written: usize,
    close: bool,
    output: Source<ChildStdout>,
    errors: Source<ChildStderr>,
}

/// What has come.
pub(super) enum Heard<'a> {
    /// On standard output. Empty at its end.
    Output(&'a [u8]),
    /// On standard error. Empty at its end.
    Errors(&'a [u8]),
    /// Standard input has taken everything, or will take no more.
    Input {
        /// Whether it has taken everything.
        taken: bool,
    },
}

struct Source<P> {
    pipe: Option<P>,
    chunk: Box<[u8]>,
}

impl Pipes {
    pub(super) fn new((input, output, errors): Ends) -> Self {
        Self {
            input,
            text: Vec::new(),
            written: 0,
            close: false,
            output: Source { pipe: output, chunk: vec![0; 64 << 10].into() },
            errors: Source { pipe: errors, chunk: vec![0; 4 << 10].into() },
        }
    }

    /// Writes `text` next, as the pipe takes it, and closes the pipe after that if `close`.
    pub(super) fn write(&mut self, text: Vec<u8>, close: bool) {
        (self.text, self.written, self.close) = (text, 0, close);
    }

    /// Closes standard input, written or not.
    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// Whether everything has been written.
    pub(super) fn all_written(&self) -> bool {
        self.written == self.text.len()
    }

    /// Whether no process can write to us any more.
    pub(super) fn closed(&self) -> bool {
        self.output.pipe.is_none() && self.errors.pipe.is_none()
    }

    /// Writes what can be written until something is heard. Waits forever once nothing can be. Safe to cancel.
    pub(super) async fn hear(&mut self) -> Heard<'_> {
        let Self { input, text, written, close, output, errors } = self;
        tokio::select! {
            read = output.read() => Heard::Output(&output.chunk[..read]),
            read = errors.read() => Heard::Errors(&errors.chunk[..read]),
            taken = feed(input, text, written, *close) => Heard::Input { taken },
        }
    }
}

/// Writes the rest. A pipe that takes no more is closed: to read its input or not is the command's choice.
async fn feed(input: &mut Option<ChildStdin>, text: &[u8], written: &mut usize, close: bool) -> bool {
    let Some(pipe) = input.as_mut().filter(|_| *written < text.len()) else { return pending().await };
    while *written < text.len() {
        let Ok(taken) = pipe.write(&text[*written..]).await else {
            *input = None;
            return false;
        };
        *written += taken;
    }
    if close {
        *input = None;
    }
    true
}

impl<P: AsyncRead + Unpin> Source<P> {
    async fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else { return pending().await };
        let read = pipe.read(&mut self.chunk).await.unwrap_or(0);
        if read == 0 {
            self.pipe = None;
        }
        read
    }
}
