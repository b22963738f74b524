use std::fmt;

use super::{Error, Limits, Scanner, Value};

/// A JSON value that is carried as its text, verbatim, and only parsed on request.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Box<str>);

impl RawJson {
    /// Checks that `text` is one JSON value, of any depth.
    pub fn new(text: &str) -> Result<Self, Error> {
        let mut scanner = Scanner::over(text);
        let value = scanner.skip()?;
        scanner.end()?;
        Ok(Self::verbatim(value))
    }

    /// Takes text that the scanner has accepted.
    pub(in crate::wire) fn verbatim(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }

    /// The value: its text where it has more values, or is nested deeper, than `limits` allow.
    pub fn to_value(&self, limits: &Limits) -> Value {
        self.parse(limits).unwrap_or_else(|_| Value::verbatim(&self.0))
    }

    /// Parses it.
    pub fn parse(&self, limits: &Limits) -> Result<Value, Error> {
        Value::parse_within(self.0.as_bytes(), limits)
    }
}

impl Default for RawJson {
    fn default() -> Self {
        Self::verbatim("null")
    }
}

impl From<&Value> for RawJson {
    fn from(value: &Value) -> Self {
        Self(value.to_json().into())
    }
}

impl fmt::Display for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawJson({})", self.0)
    }
}
