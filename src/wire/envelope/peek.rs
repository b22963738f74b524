use std::borrow::Cow;

use crate::wire::json::{Error, Limits, Number, Scanner};
use crate::wire::priority;

/// What an audit needs to know of a message, read without decoding its body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peek<'a> {
    /// `headers.id`.
    pub task_id: Option<Cow<'a, str>>,
    /// `headers.root_id`: the task that this one follows from, directly or not; its own id where it follows from none.
    pub root_id: Option<Cow<'a, str>>,
    /// `headers.task`.
    pub task_name: Option<Cow<'a, str>>,
    /// `headers.eta`, as text; see [`time::parse`](crate::wire::time::parse).
    pub eta: Option<Cow<'a, str>>,
    /// `headers.retries`.
    pub retries: Option<i64>,
    /// `properties.delivery_tag`.
    pub delivery_tag: Option<Cow<'a, str>>,
    /// The exchange: of an `unacked` entry the one through which it goes back.
    pub exchange: Cow<'a, str>,
    /// The routing key, likewise.
    pub routing_key: Cow<'a, str>,
    /// `properties.priority` as kombu reads it; none means 0.
    pub priority: Option<i64>,
    /// Whether it has been put back before.
    pub redelivered: bool,
}

impl Peek<'_> {
    fn into_owned(self) -> Peek<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Peek {
            task_id: self.task_id.map(own),
            root_id: self.root_id.map(own),
            task_name: self.task_name.map(own),
            eta: self.eta.map(own),
            retries: self.retries,
            delivery_tag: self.delivery_tag.map(own),
            exchange: own(self.exchange),
            routing_key: own(self.routing_key),
            priority: self.priority,
            redelivered: self.redelivered,
        }
    }
}

/// Looks at an element of a queue's list or at a value of the `unacked` hash; nothing if it is neither.
///
/// Any length is accepted: time is linear, and memory is what the few fields take. Bytes that are not UTF-8 become U+FFFD,
/// as kombu's `bytes_to_str` has them, in a copy.
pub fn peek(bytes: &[u8]) -> Option<Peek<'_>> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => look(text),
        Cow::Owned(text) => look(&text).map(Peek::into_owned),
    }
}

fn look(text: &str) -> Option<Peek<'_>> {
    let mut scanner = Scanner::new(text.as_bytes(), &Limits::default().bytes(usize::MAX)).ok()?;
    let mut seen = Peek::default();
    let read =
        if scanner.next().ok()? == b'[' { unacked(&mut scanner, &mut seen) } else { envelope(&mut scanner, &mut seen) };
    read.and_then(|()| scanner.end()).ok()?;
    Some(seen)
}

fn unacked<'a>(scanner: &mut Scanner<'a>, seen: &mut Peek<'a>) -> Result<(), Error> {
    scanner.array(|scanner, index| {
        match index {
            0 => envelope(scanner, seen)?,
            1 => seen.exchange = scanner.string()?,
            2 => seen.routing_key = scanner.string()?,
            _ => scanner.expect(b']', "']'")?,
        }
        Ok(())
    })
}

fn envelope<'a>(scanner: &mut Scanner<'a>, seen: &mut Peek<'a>) -> Result<(), Error> {
    scanner.object(|scanner, key| match &*key {
        "headers" => headers(scanner, seen),
        "properties" => properties(scanner, seen),
        _ => scanner.skip().map(|_| ()),
    })
}

fn headers<'a>(scanner: &mut Scanner<'a>, seen: &mut Peek<'a>) -> Result<(), Error> {
    // A key that occurs twice counts only the last time.
    (seen.task_id, seen.root_id, seen.task_name, seen.eta, seen.retries, seen.redelivered) = Default::default();
    if scanner.next()? != b'{' {
        return scanner.skip().map(|_| ());
    }
    scanner.object(|scanner, key| {
        match &*key {
            "id" => seen.task_id = text(scanner)?,
            "root_id" => seen.root_id = text(scanner)?,
            "task" => seen.task_name = text(scanner)?,
            "eta" => seen.eta = text(scanner)?,
            "retries" => seen.retries = integer(scanner)?,
            "redelivered" => seen.redelivered = scanner.skip()? == "true",
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })
}

fn properties<'a>(scanner: &mut Scanner<'a>, seen: &mut Peek<'a>) -> Result<(), Error> {
    (seen.delivery_tag, seen.priority, seen.exchange, seen.routing_key) = Default::default();
    scanner.object(|scanner, key| {
        match &*key {
            "delivery_tag" => seen.delivery_tag = text(scanner)?,
            "priority" => seen.priority = integer(scanner)?,
            "delivery_info" => delivery_info(scanner, seen)?,
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })
}

fn delivery_info<'a>(scanner: &mut Scanner<'a>, seen: &mut Peek<'a>) -> Result<(), Error> {
    (seen.exchange, seen.routing_key) = Default::default();
    if scanner.next()? != b'{' {
        return scanner.skip().map(|_| ());
    }
    scanner.object(|scanner, key| {
        match &*key {
            "exchange" => seen.exchange = text(scanner)?.unwrap_or_default(),
            "routing_key" => seen.routing_key = text(scanner)?.unwrap_or_default(),
            _ => {
                scanner.skip()?;
            }
        }
        Ok(())
    })
}

fn text<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Cow<'a, str>>, Error> {
    let text = text_only(scanner)?;
    if text.is_none() {
        scanner.skip()?;
    }
    Ok(text)
}

/// A string, or nothing taken.
fn text_only<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Cow<'a, str>>, Error> {
    if scanner.next()? == b'"' { scanner.string().map(Some) } else { Ok(None) }
}

fn integer(scanner: &mut Scanner<'_>) -> Result<Option<i64>, Error> {
    if let Some(text) = text_only(scanner)? {
        return Ok(priority::read_text(&text));
    }
    Ok(match scanner.skip()? {
        "true" => Some(1),
        "false" => Some(0),
        number => Number::parse(number).as_ref().and_then(Number::truncated),
    })
}
