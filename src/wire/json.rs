//! JSON as Python reads and writes it.
//!
//! Two things set it apart from RFC 8259: `NaN`, `Infinity` and `-Infinity` are numbers, and an integer may have any
//! number of digits. [`Number`] therefore keeps its text. Lone surrogate escapes (`"\ud800"`), which Python accepts but
//! no Rust string can hold, become U+FFFD.

mod inspect;
mod number;
mod object;
mod parse;
mod print;
mod raw;
mod scan;

use std::fmt;

pub use number::Number;
pub use object::Object;
pub use raw::RawJson;
pub(crate) use scan::Scanner;

/// A JSON value.
///
/// Two objects are equal when they have equal members in any order; two numbers when they have the same text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number of any size.
    Number(Number),
    /// A string.
    String(String),
    /// An array; Python's tuples arrive as this too.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
    /// An array or object that is carried as its text, in one line: it has more values, or is nested deeper, than is taken
    /// apart. Made by the decoder of messages only.
    Verbatim(RawJson),
}

/// How much input a decoder accepts, and with that, how much memory and stack it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest document, in bytes. Strings take about what they took there.
    pub bytes: usize,
    /// Deepest nesting of arrays and objects. Values above [`Limits::MAX_DEPTH`] mean that.
    pub depth: usize,
    /// Most values, the inner ones included. Each takes 32 to 250 bytes, although `[]` is only two bytes long.
    pub values: usize,
}

impl Limits {
    /// No decoder nests deeper than this, so that recursion fits any thread's stack.
    pub const MAX_DEPTH: usize = 256;

    /// The same limits with another length.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// The same limits with another number of values.
    #[must_use]
    pub fn values(self, values: usize) -> Self {
        Self { values, ..self }
    }

    /// The same limits with another depth.
    #[must_use]
    pub fn depth(self, depth: usize) -> Self {
        Self { depth, ..self }
    }
}

impl Default for Limits {
    /// 16 MiB, 128 levels and 250,000 values.
    fn default() -> Self {
        Self { bytes: 16 << 20, depth: 128, values: 250_000 }
    }
}

/// Why a document is not JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct Error {
    /// Position in the document, in bytes from its start.
    pub offset: usize,
    /// What is wrong there.
    pub reason: Reason,
}

/// What is wrong with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The document is longer than [`Limits::bytes`].
    #[error("the document is longer than {0} bytes")]
    TooLarge(usize),
    /// Arrays and objects are nested deeper than [`Limits::depth`].
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// There are more values than [`Limits::values`].
    #[error("more than {0} values")]
    TooManyValues(usize),
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// The document ends inside a value.
    #[error("unexpected end")]
    UnexpectedEnd,
    /// Something else than the named token.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A backslash that starts no escape.
    #[error("invalid escape in a string")]
    InvalidEscape,
    /// An unescaped character below U+0020.
    #[error("control character in a string")]
    ControlCharacter,
    /// Something after the end of the value.
    #[error("data after the end of the value")]
    TrailingData,
}

impl Value {
    /// Parses a document within the default [`Limits`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse_within(bytes, &Limits::default())
    }

    /// Parses a document within `limits`.
    pub fn parse_within(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        parse::parse(bytes, limits)
    }

    /// Parses a document within `limits`. Bytes that are not UTF-8 become U+FFFD.
    pub(in crate::wire) fn parse_lossy(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        match parse::parse(bytes, limits) {
            Err(Error { reason: Reason::InvalidUtf8, .. }) => {
                let text = String::from_utf8_lossy(bytes);
                parse::parse(text.as_bytes(), &Limits { bytes: text.len(), ..*limits })
            }
            parsed => parsed,
        }
    }

    /// The value of this text, which the scanner has accepted, without taking it apart.
    pub(in crate::wire) fn verbatim(text: &str) -> Self {
        let lines = |c| c == '\n' || c == '\r';
        Self::Verbatim(if text.contains(lines) {
            RawJson::verbatim(&text.replace(lines, " "))
        } else {
            RawJson::verbatim(text)
        })
    }

    /// The compact JSON text, non-ASCII characters as they are.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        print::value(&mut text, self);
        text
    }

    /// The member `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_object()?.get(key)
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number.
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(value) = self { Some(value) } else { None }
    }

    /// The number as `i64`, if it is an integer in range.
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// The number as the nearest `f64`.
    pub fn as_f64(&self) -> Option<f64> {
        Some(self.as_number()?.as_f64())
    }

    /// The string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(value) = self { Some(value) } else { None }
    }

    /// The elements.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(value) = self { Some(value) } else { None }
    }

    /// The object.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(value) = self { Some(value) } else { None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        i64::from(value).into()
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        i64::from(value).into()
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value.into())
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Self {
        Self::Object(value)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The text of these bytes; what is not UTF-8 becomes U+FFFD.
pub(in crate::wire) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
pub(crate) mod tests;
