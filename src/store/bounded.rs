//! A connection to Redis on which no answer takes more memory than it may: what is too long is passed over as it comes.
//!
//! The answers of Redis are a sequence of lines; some announce that many bytes follow. Where these would be too many, the
//! announcement's first character is changed so that it reads as an error, `-104857600`, and the bytes are dropped. The
//! reader of the answer sees an error in that place and nothing that could be taken for the value.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use redis::{ServerError, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lines of one answer: each becomes a value of about 50 bytes.
const LINES: usize = 1 << 16;
/// Elements that one line may announce.
const ELEMENTS: u64 = 1 << 20;
/// Nesting of an answer.
const DEPTH: usize = 32;
/// Longest line that announces something.
const ANNOUNCEMENT: usize = 32;

/// The size of a value that was passed over because it was too long for the connection.
pub(super) fn passed_over(value: &Value) -> Option<u64> {
    if let Value::ServerError(error) = value { size_of(error) } else { None }
}

fn size_of(error: &ServerError) -> Option<u64> {
    error.code().parse().ok()
}

/// A connection whose answers have at most `limit` bytes of values each; what is above is passed over.
pub(super) struct Bounded<S> {
    inner: S,
    filter: Filter,
    /// What was read and did not fit the reader's buffer.
    rest: Vec<u8>,
}

impl<S> Bounded<S> {
    pub fn new(inner: S, limit: usize) -> Self {
        Self { inner, filter: Filter::new(limit), rest: Vec::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                let taken = this.rest.len().min(buf.remaining());
                buf.put_slice(&this.rest[..taken]);
                this.rest.drain(..taken);
                return Poll::Ready(Ok(()));
            }
            let held = this.filter.held.len();
            if buf.remaining() <= ANNOUNCEMENT {
                // Too little room for an announcement that was held back and what comes after it.
                let mut own = [0; 2 * ANNOUNCEMENT];
                own[..held].copy_from_slice(&this.filter.held);
                let mut room = ReadBuf::new(&mut own);
                room.set_filled(held);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut room))?;
                let read = room.filled().len();
                if read == held {
                    return Poll::Ready(Ok(()));
                }
                let kept = this.filter.pass(&mut own[..read])?;
                this.rest.extend_from_slice(&own[..kept]);
                continue;
            }
            let before = buf.filled().len();
            buf.put_slice(&this.filter.held);
            let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
            let read = buf.filled().len() - before;
            if !matches!(polled, Poll::Ready(Ok(()))) || read == held {
                buf.set_filled(before);
                return polled;
            }
            let kept = this.filter.pass(&mut buf.filled_mut()[before..])?;
            buf.set_filled(before + kept);
            // Nothing read would mean that the connection has ended.
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Where in an answer the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the beginning of a line.
    Line,
    /// In a line that announces nothing.
    Text,
    /// So many bytes before the end of a value that is kept.
    Kept(u64),
    /// So many bytes before the end of a value that is passed over.
    PassedOver(u64),
}

struct Filter {
    limit: u64,
    at: At,
    /// Elements to come, of each array that is open.
    open: Vec<u64>,
    /// Bytes of values, and lines, of the answer so far.
    bytes: u64,
    lines: usize,
    /// The beginning of an announcement whose end has not come yet.
    held: Vec<u8>,
}

impl Filter {
    fn new(limit: usize) -> Self {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        Self { limit, at: At::Line, open: Vec::new(), bytes: 0, lines: 0, held: Vec::new() }
    }

    /// Moves what is kept to the front, and says how much that is. What was held back before must lead `bytes`.
    fn pass(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.held.clear();
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let rest = &bytes[from..];
            let (taken, kept) = match self.at {
                At::Kept(left) => {
                    let taken = least(left, rest.len());
                    self.value(At::Kept, left - taken as u64);
                    (taken, true)
                }
                At::PassedOver(left) => {
                    let taken = least(left, rest.len());
                    self.value(At::PassedOver, left - taken as u64);
                    (taken, false)
                }
                At::Line | At::Text => match rest.iter().position(|byte| *byte == b'\n') {
                    Some(end) if self.at == At::Text => {
                        self.at = At::Line;
                        self.ended();
                        (end + 1, true)
                    }
                    Some(end) => {
                        if self.line(&rest[..=end])? {
                            bytes[from] = b'-';
                        }
                        (end + 1, true)
                    }
                    None if self.at == At::Line && rest.len() < ANNOUNCEMENT => {
                        self.held.extend_from_slice(rest);
                        break;
                    }
                    None => {
                        self.at = At::Text;
                        self.bytes = self.bytes.saturating_add(rest.len() as u64);
                        if self.bytes > self.limit {
                            return Err(refused("a line that is too long"));
                        }
                        (rest.len(), true)
                    }
                },
            };
            if kept {
                bytes.copy_within(from..from + taken, to);
                to += taken;
            }
            from += taken;
        }
        Ok(to)
    }

    fn value(&mut self, at: fn(u64) -> At, left: u64) {
        if left > 0 {
            self.at = at(left);
        } else {
            self.at = At::Line;
            self.ended();
        }
    }

    /// A whole line. Whether it announces a value that is too long.
    fn line(&mut self, line: &[u8]) -> io::Result<bool> {
        self.lines += 1;
        if self.lines > LINES {
            return Err(refused("an answer of too many values"));
        }
        let number = || {
            let digits = std::str::from_utf8(line.get(1..).unwrap_or_default()).unwrap_or_default();
            digits.trim().parse::<i64>().map_err(|_| refused("an announcement without a number"))
        };
        let elements = match line[0] {
            b'$' | b'=' | b'!' => {
                if let Ok(length) = u64::try_from(number()?) {
                    let rest = length.saturating_add(2);
                    let fits = self.bytes.saturating_add(length) <= self.limit;
                    if fits {
                        self.bytes += length;
                    }
                    self.at = if fits { At::Kept(rest) } else { At::PassedOver(rest) };
                    return Ok(!fits);
                }
                0
            }
            b'*' | b'~' | b'>' => u64::try_from(number()?).unwrap_or(0),
            b'%' => u64::try_from(number()?).unwrap_or(0).saturating_mul(2),
            b'|' => u64::try_from(number()?).unwrap_or(0).saturating_mul(2).saturating_add(1),
            _ => 0,
        };
        if elements > ELEMENTS || self.open.len() >= DEPTH {
            return Err(refused("an answer of too many values"));
        }
        if elements > 0 {
            self.open.push(elements);
        } else {
            self.ended();
        }
        Ok(false)
    }

    /// A value has ended, and with it all arrays of which it was the last element.
    fn ended(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        (self.bytes, self.lines) = (0, 0);
    }
}

fn least(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

#[cfg(test)]
mod tests;
