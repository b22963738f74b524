//! Result documents: the values of `celery-task-meta-…` keys, and what is published under the same names.

mod abridge;
mod exception;
mod state;

use std::borrow::Cow;

use super::json::{Limits, Object, RawJson, Scanner, Value};
use super::{DecodeError, compression, time};

pub use abridge::{Abridger, Piece};
pub use exception::Exception;
pub use state::State;

const WHAT: &str = "the result document";

/// The field in which a native worker says of a FAILURE whether another run may succeed. Celery hands on what it does not
/// know.
pub const RETRYABLE: &str = "retryable";

/// A result document.
///
/// What the task has returned, and what it was given, is carried as verbatim text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultDocument {
    /// The state.
    pub status: State,
    /// The return value; an exception, a `{pid, hostname}` or a custom state's data in other states than SUCCESS.
    pub result: RawJson,
    /// The Python traceback.
    pub traceback: Option<String>,
    /// The tasks it has sent, `[]` or result tuples; `null` in the short form of REVOKED.
    pub children: RawJson,
    /// When it was finished, as text; see [`ResultDocument::done_at`].
    pub date_done: Option<String>,
    /// The task id.
    pub task_id: String,
    /// The task that sent it.
    pub parent_id: Option<String>,
    /// The group it belongs to.
    pub group_id: Option<String>,
    /// The task name. This and the fields below need `result_extended`.
    pub name: Option<String>,
    /// Positional arguments.
    pub args: Option<RawJson>,
    /// Keyword arguments.
    pub kwargs: Option<RawJson>,
    /// The node name of the worker.
    pub worker: Option<String>,
    /// Runs that came before this one.
    pub retries: Option<i64>,
    /// The routing key it was sent with.
    pub queue: Option<String>,
    /// Any other field.
    pub other: Object,
}

/// What Celery writes before a result that it has compressed (`result_compression`), the method and a zero byte: see
/// `compress_payload` in its `backends/base.py`.
const COMPRESSED: &[u8] = b"\0celery-compressed\0";

/// The compression of a result, and what was compressed; nothing if it was not.
pub fn compressed(document: &[u8]) -> Option<(&str, &[u8])> {
    let rest = document.strip_prefix(COMPRESSED)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some((std::str::from_utf8(&rest[..end]).ok()?, &rest[end + 1..]))
}

/// Bytes of a beginning that tell how a run has ended.
const BEGINNING: usize = 64 << 10;

/// The beginning of a document of which no more than the beginning may be there, decompressed if it is compressed.
pub fn beginning(document: &[u8]) -> Cow<'_, [u8]> {
    match compressed(document) {
        None => Cow::Borrowed(document),
        Some((method, body)) => Cow::Owned(compression::inflate_beginning(method, body, BEGINNING)),
    }
}

/// The state, from the beginning of a document that is too large to be fetched whole. Celery writes it first.
pub fn state_of_prefix(prefix: &[u8]) -> Option<State> {
    let prefix = &*beginning(prefix);
    let valid = std::str::from_utf8(prefix).map_or_else(|error| error.valid_up_to(), str::len);
    let mut scanner = Scanner::new(&prefix[..valid], &Limits::default().bytes(usize::MAX)).ok()?;
    let mut state = None;
    // The document ends somewhere: that is no error here.
    let _ = scanner.object(|scanner, key| {
        if key == "status" {
            state = Some(State::from(scanner.string()?.into_owned()));
        } else {
            scanner.skip()?;
        }
        Ok(())
    });
    state
}

impl ResultDocument {
    /// Reads a result document. The limit of depth does not hold for `result`, `children`, `args` and `kwargs`, which are
    /// not parsed.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let inflated;
        let (bytes, limits) = match compressed(bytes) {
            None => (bytes, *limits),
            Some((method, body)) => {
                let most = limits.bytes.max(Limits::default().bytes);
                inflated = compression::inflate(method, body, most)?;
                (inflated.as_slice(), limits.bytes(most))
            }
        };
        let (mut result, mut children, mut args, mut kwargs) = (None, None, None, None);
        let mut members = Vec::new();
        let mut scanner = Scanner::new(bytes, &limits).map_err(DecodeError::json(WHAT))?;
        scanner
            .object(|scanner, key| {
                match &*key {
                    "result" => result = Some(RawJson::verbatim(scanner.skip()?)),
                    "children" => children = Some(RawJson::verbatim(scanner.skip()?)),
                    "args" => args = Some(RawJson::verbatim(scanner.skip()?)),
                    "kwargs" => kwargs = Some(RawJson::verbatim(scanner.skip()?)),
                    _ => members.push((key.into_owned(), scanner.value()?)),
                }
                Ok(())
            })
            .and_then(|()| scanner.end())
            .map_err(DecodeError::json(WHAT))?;
        let mut fields = Object::from_iter(members);
        let status: String = fields.require("status", "status", "a string")?;
        Ok(Self {
            status: status.into(),
            result: result.unwrap_or_default(),
            traceback: fields.take_nullable("traceback"),
            children: children.unwrap_or_default(),
            date_done: fields.take_nullable("date_done"),
            task_id: fields.require("task_id", "task_id", "a string")?,
            parent_id: fields.take("parent_id"),
            group_id: fields.take("group_id"),
            name: fields.take("name"),
            args,
            kwargs,
            worker: fields.take("worker"),
            retries: fields.take("retries"),
            queue: fields.take("queue"),
            other: fields,
        })
    }

    /// The bytes that Celery reads, fields in its order.
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            status,
            result,
            traceback,
            children,
            date_done,
            task_id,
            parent_id,
            group_id,
            name,
            args,
            kwargs,
            worker,
            retries,
            queue,
            other,
        } = self;
        let text = |field: &Option<String>| field.as_deref().map(|text| Value::from(text).to_json());
        let null = || Some("null".to_owned());
        let raw = |field: &Option<RawJson>| field.as_ref().map(RawJson::to_string);
        let fields = [
            ("status", text(&Some(status.as_str().to_owned()))),
            ("result", Some(result.to_string())),
            ("traceback", text(traceback).or_else(null)),
            ("children", Some(children.to_string())),
            ("date_done", text(date_done).or_else(null)),
            ("group_id", text(group_id)),
            ("parent_id", text(parent_id)),
            ("name", text(name)),
            ("args", raw(args)),
            ("kwargs", raw(kwargs)),
            ("worker", text(worker)),
            ("retries", retries.map(|retries| retries.to_string())),
            ("queue", text(queue)),
            ("task_id", text(&Some(task_id.clone()))),
        ];
        let known = fields.into_iter().filter_map(|(key, json)| Some((key, json?)));
        let fields: Vec<String> = known
            .filter(|(key, _)| !other.contains_key(key))
            .chain(other.iter().map(|(key, value)| (key, value.to_json())))
            .map(|(key, json)| format!("{}:{json}", Value::from(key).to_json()))
            .collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    }

    /// When it was finished. Celery 5.3 writes no offset; that is read as UTC.
    pub fn done_at(&self) -> Option<jiff::Timestamp> {
        time::parse(self.date_done.as_deref()?)
    }

    /// The exception, in the states that carry one.
    pub fn exception(&self) -> Option<Exception> {
        match self.status {
            State::Failure | State::Retry | State::Revoked | State::Rejected => {
                Exception::decode(&self.result.parse(&Limits::default()).ok()?)
            }
            State::Pending | State::Received | State::Started | State::Success | State::Ignored | State::Custom(_) => {
                None
            }
        }
    }

    /// Whether a worker that held the task has written this.
    ///
    /// The command that revokes a task lets every worker store REVOKED in a short form, without children and worker, even
    /// while another worker runs it.
    pub fn is_full_form(&self) -> bool {
        self.worker.is_some() || !self.children.is_null()
    }
}

#[cfg(test)]
mod tests;
