//! Result documents. A long one is read in chunks, so that none takes more memory than another.

use std::io::Read;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};
use sha2::{Digest, Sha256};

use super::link::{fenced, script};
use super::{Error, Store};
use crate::core::id::TaskId;
use crate::core::status::Output;
use crate::wire::Limits;
use crate::wire::compression::Inflater;
use crate::wire::result::{self, Abridger, Piece, ResultDocument, State};

static OUTCOMES: LazyLock<Script> = script!("lua/outcomes.lua");
static EXTEND: LazyLock<Script> = script!("lua/extend.lua");
static CLEAR: LazyLock<Script> = fenced!("lua/clear.lua");

/// A result document, as far as it matters to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Its fields; long ones are cut.
    Read {
        /// All but the result of a success.
        fields: Box<ResultDocument>,
        /// What a success has returned.
        output: Option<Output>,
    },
    /// It cannot be read, for this reason.
    Unreadable(String),
}

impl Document {
    /// Largest document that is read, in bytes: the largest value that Redis stores unless it is told otherwise.
    pub const LARGEST: u64 = 512 << 20;
    /// Larger documents are read in chunks.
    pub(super) const WHOLE: usize = 256 << 10;
    /// Bytes fetched in one answer.
    pub(super) const ANSWER: usize = 1 << 20;
    /// Bytes of one chunk.
    const CHUNK: usize = 128 << 10;

    /// Longest document that is made of a compressed one, in bytes. It is never held as a whole.
    const INFLATED: usize = 64 << 20;
    /// Longest compressed document that is read, in bytes: this one is held as a whole.
    const COMPRESSED: u64 = 4 << 20;

    /// Reads a document that is there as a whole.
    pub fn decode(bytes: &[u8]) -> Self {
        let Some((method, body)) = result::compressed(bytes) else { return Self::of(bytes) };
        let mut measure = Measure::none();
        let read = inflated(method, body, |piece| measure.take(piece));
        Self::measured(read, measure)
    }

    /// A document of which the short form was read, or why it was not, and whose result was measured meanwhile.
    fn measured(read: Result<Vec<u8>, String>, measure: Measure) -> Self {
        match read.map(|short| Self::of(&short)) {
            Ok(Self::Read { fields, output }) => Self::Read { fields, output: output.map(|_| measure.output()) },
            Ok(unreadable @ Self::Unreadable(_)) => unreadable,
            Err(why) => Self::Unreadable(why),
        }
    }

    fn of(bytes: &[u8]) -> Self {
        match ResultDocument::decode_within(bytes, &Limits::default().bytes(bytes.len())) {
            Ok(mut fields) => {
                let output = (fields.status == State::Success).then(|| {
                    let text = std::mem::take(&mut fields.result);
                    let mut measure = Measure::default();
                    measure.take(Piece::Begins);
                    measure.take(Piece::Text(text.as_str()));
                    measure.output()
                });
                Self::Read { fields: Box::new(fields), output }
            }
            Err(error) => {
                Self::Unreadable(format!("the result document of {} bytes cannot be read: {error}", bytes.len()))
            }
        }
    }
}

/// Measures a result that passes by, and keeps it as long as it is short.
#[derive(Default)]
struct Measure {
    bytes: u64,
    digest: Sha256,
    text: String,
}

impl Measure {
    /// Of a document that says nothing of its result.
    fn none() -> Self {
        let mut measure = Self::default();
        measure.take(Piece::Text("null"));
        measure
    }

    /// Bytes that are kept: those of a result that the status holds.
    const KEPT: u64 = crate::core::status::StoredResult::INLINE as u64;

    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Begins => *self = Self::default(),
            Piece::Text(text) => {
                self.bytes += text.len() as u64;
                self.digest.update(text.as_bytes());
                if self.bytes <= Self::KEPT {
                    self.text.push_str(text);
                } else {
                    self.text = String::new();
                }
            }
        }
    }

    fn output(self) -> Output {
        let text = (self.bytes <= Self::KEPT).then(|| self.text.into());
        Output { bytes: self.bytes, sha256: self.digest.finalize().into(), text }
    }
}

/// The short form of a compressed document, or why it cannot be read.
fn inflated(method: &str, body: &[u8], mut take: impl FnMut(Piece<'_>)) -> Result<Vec<u8>, String> {
    let unreadable = |why: &dyn std::fmt::Display| format!("the compressed result document cannot be read: {why}");
    let mut inflater = Inflater::new(method, body).map_err(|error| unreadable(&error))?;
    let (mut abridger, mut chunk, mut bytes) = (Abridger::default(), vec![0; Document::CHUNK], 0);
    loop {
        let read = inflater.read(&mut chunk).map_err(|error| unreadable(&error))?;
        if read == 0 {
            return abridger.end().map_err(|error| unreadable(&error));
        }
        bytes += read;
        if bytes > Document::INFLATED {
            return Err(unreadable(&format!("it stands for more than {} bytes", Document::INFLATED)));
        }
        abridger.take(&chunk[..read], &mut take).map_err(|error| unreadable(&error))?;
    }
}

impl Store {
    /// Reads the result documents of these tasks, one after the other, and hands each on with its task's position.
    pub async fn outcomes(&self, tasks: &[TaskId], mut found: impl FnMut(usize, Document)) -> Result<(), Error> {
        const ACT: &str = "reading results";
        let mut at = 0;
        while at < tasks.len() {
            let mut call = OUTCOMES.prepare_invoke();
            for task in tasks[at..].iter().take(500) {
                call.key(self.0.names.result(*task));
            }
            call.arg(Document::WHOLE).arg(Document::ANSWER);
            let answer: Vec<Value> = self.0.results.script(ACT, &call).await?;
            if answer.is_empty() {
                return Err(Error::unexpected(ACT, "no answer for the first of several results"));
            }
            for value in answer {
                let document = if let Value::BulkString(document) = &value {
                    Some(Document::decode(document))
                } else if value == Value::Nil {
                    None
                } else {
                    // Only its size was sent.
                    self.long_document(ACT, tasks[at]).await?
                };
                if let Some(document) = document {
                    found(at, document);
                }
                at += 1;
            }
        }
        Ok(())
    }

    /// The result document of this task.
    pub async fn outcome(&self, task: TaskId) -> Result<Option<Document>, Error> {
        let mut outcome = None;
        self.outcomes(&[task], |_, document| outcome = Some(document)).await?;
        Ok(outcome)
    }

    async fn long_document(&self, act: &'static str, task: TaskId) -> Result<Option<Document>, Error> {
        let mut measure = Measure::none();
        let Some(read) = self.stream_document(act, task, |piece| measure.take(piece)).await? else { return Ok(None) };
        Ok(Some(Document::measured(read, measure)))
    }

    /// The text of a result as it was measured; `None` when it is gone or has changed.
    pub async fn result_text(&self, task: TaskId, measured: &Output) -> Result<Option<String>, Error> {
        let mut text = String::new();
        let take = |piece: Piece<'_>| match piece {
            Piece::Begins => text.clear(),
            Piece::Text(more) if (text.len() + more.len()) as u64 <= measured.bytes => text.push_str(more),
            Piece::Text(_) => {}
        };
        let read = self.stream_document("reading a result again", task, take).await?;
        let is_same = || <[u8; 32]>::from(Sha256::digest(text.as_bytes())) == measured.sha256;
        Ok(matches!(read, Some(Ok(_))).then(is_same).filter(|is_same| *is_same).map(|_| text))
    }

    /// Reads a document in chunks: its short form, or why it cannot be read. `None` when there is none.
    async fn stream_document(
        &self,
        act: &'static str,
        task: TaskId,
        mut take: impl FnMut(Piece<'_>),
    ) -> Result<Option<Result<Vec<u8>, String>>, Error> {
        let key = self.0.names.result(task);
        // What is stored meanwhile is another document.
        'again: for _ in 0..3 {
            let (mut abridger, mut size, mut at) = (Abridger::default(), None, 0);
            let mut held: Option<Vec<u8>> = None;
            loop {
                let mut pipe = redis::pipe();
                pipe.cmd("STRLEN").arg(&key);
                pipe.cmd("GETRANGE").arg(&key).arg(at).arg(at + Document::CHUNK - 1);
                let (now, chunk): (u64, Vec<u8>) = self.0.results.pipe(act, &pipe).await?;
                if now == 0 {
                    return Ok(None);
                }
                if now > Document::LARGEST {
                    let most = Document::LARGEST;
                    return Ok(Some(Err(format!("the result document has {now} bytes, at most {most} are read"))));
                }
                if *size.get_or_insert(now) != now {
                    continue 'again;
                }
                if at == 0 && result::compressed(&chunk).is_some() {
                    if now > Document::COMPRESSED {
                        let most = Document::COMPRESSED;
                        return Ok(Some(Err(format!(
                            "the compressed result document has {now} bytes, at most {most} are read"
                        ))));
                    }
                    held = Some(Vec::new());
                }
                at += chunk.len();
                if let Some(held) = &mut held {
                    held.extend_from_slice(&chunk);
                    if at as u64 >= now || chunk.is_empty() {
                        let read = result::compressed(held).map(|(method, body)| inflated(method, body, &mut take));
                        return Ok(Some(read.unwrap_or_else(|| Err("the result document has changed".to_owned()))));
                    }
                    continue;
                }
                if let Err(error) = abridger.take(&chunk, &mut take) {
                    return Ok(Some(Err(format!("the result document of {now} bytes cannot be read: {error}"))));
                }
                if at as u64 >= now || chunk.is_empty() {
                    let unreadable = |error| format!("the result document of {now} bytes cannot be read: {error}");
                    return Ok(Some(abridger.end().map_err(unreadable)));
                }
            }
        }
        Err(Error::unexpected(act, "a result document that changes while it is read"))
    }

    /// Makes Redis keep a result for so long from now, or longer if it would anyway. Says whether there is a result.
    pub async fn extend_result(&self, task: TaskId, ttl: Duration) -> Result<bool, Error> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 12);
        let mut call = EXTEND.key(self.0.names.result(task));
        self.0.results.script("extending a result's life", call.arg(millis)).await
    }

    /// Whether a document says that the attempt ended; a failure is removed first where that is asked for.
    pub(super) async fn clear(&self, act: &'static str, task: TaskId, clear_result: bool) -> Result<bool, Error> {
        let mut call = CLEAR.key("");
        call.key(self.0.names.result(task)).arg("").arg(u8::from(clear_result));
        if let Some((document, state)) = self.compressed_result(act, task).await? {
            call.arg(document).arg(state.as_str());
        }
        self.0.results.script(act, &call).await
    }

    /// The result where it is compressed, which no script can read, and its state.
    pub(super) async fn compressed_result(
        &self,
        act: &'static str,
        task: TaskId,
    ) -> Result<Option<(Vec<u8>, State)>, Error> {
        let key = self.0.names.result(task);
        let mut ask = redis::cmd("GETRANGE");
        let head: Vec<u8> = self.0.results.query(act, ask.arg(&key).arg(0).arg(255)).await?;
        if result::compressed(&head).is_none() {
            return Ok(None);
        }
        let document: Vec<u8> = self.0.results.query(act, redis::cmd("GET").arg(&key)).await?;
        let state = result::state_of_prefix(&document);
        Ok(state.map(|state| (document, state)))
    }

    pub(super) async fn has_result(&self, act: &'static str, task: TaskId) -> Result<bool, Error> {
        self.0.results.query(act, redis::cmd("EXISTS").arg(self.0.names.result(task))).await
    }
}
