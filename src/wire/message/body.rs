//! The body of a task, taken apart only as far as that is needed.
//!
//! What a task is called with is handed on, however many values it has and however deep they are nested: what takes more
//! than the limits stays text. So the memory that a message takes is bounded by its length.

use crate::wire::DecodeError;
use crate::wire::error::BODY;
use crate::wire::json::{Error, Limits, Object, Reason, Scanner, Value};

/// A body, by the protocol that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// `[args, kwargs, embed]`.
    Two { args: Vec<Value>, kwargs: Object, embed: Object },
    /// An object with everything in it.
    One { has_args: bool, args: Vec<Value>, kwargs: Object, fields: Object },
}

/// Members of a body of protocol 1 that hold signatures.
const FOLLOWING: [&str; 4] = ["callbacks", "errbacks", "chain", "chord"];
/// Keyword arguments of Celery's own signatures of several tasks that hold signatures.
const SIGNATURES: [&str; 3] = ["tasks", "header", "body"];

pub(super) fn read(text: &str, limits: &Limits) -> Result<Body, DecodeError> {
    let json = |error| DecodeError::json(BODY)(error);
    let mut scanner = Scanner::new(text.as_bytes(), limits).map_err(json)?;
    let mut reader = Reader { limits: *limits, structure: 0 };
    let is_object = scanner.next().map_err(json)? == b'{';
    let read = if is_object { reader.one(&mut scanner) } else { reader.two(&mut scanner) };
    let body = read.and_then(|body| scanner.end().map(|()| body)).map_err(json)?;
    body.ok_or_else(DecodeError::no_task)
}

struct Reader {
    limits: Limits,
    /// Values that are neither arguments nor in them.
    structure: usize,
}

impl Reader {
    fn two(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Body>, Error> {
        if scanner.next()? != b'[' {
            return scanner.skip().map(|_| None);
        }
        let (mut args, mut kwargs, mut embed, mut parts) = (None, None, None, 0);
        scanner.array(|scanner, index| {
            parts = index + 1;
            match index {
                0 => args = self.args(scanner)?,
                1 => kwargs = self.kwargs(scanner, None)?,
                2 => embed = object_or_null(self.signatures(scanner, self.depth())?),
                _ => drop(scanner.skip()?),
            }
            Ok(())
        })?;
        let whole = args.zip(kwargs).zip(embed).filter(|_| parts == 3);
        Ok(whole.map(|((args, kwargs), embed)| Body::Two { args, kwargs, embed }))
    }

    fn one(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Body>, Error> {
        let (mut has_args, mut args, mut kwargs) = (false, Some(Vec::new()), Some(Object::new()));
        let mut fields = Vec::new();
        scanner.object(|scanner, key| {
            match &*key {
                "args" => (has_args, args) = (true, self.args(scanner)?),
                "kwargs" => kwargs = self.kwargs(scanner, None)?,
                name if FOLLOWING.contains(&name) => {
                    fields.push((key.into_owned(), self.signatures(scanner, self.depth())?));
                }
                _ => fields.push((key.into_owned(), Self::argument(scanner)?)),
            }
            Ok(())
        })?;
        let fields = Object::from_iter(fields);
        Ok(args.zip(kwargs).map(|(args, kwargs)| Body::One { has_args, args, kwargs, fields }))
    }

    fn depth(&self) -> usize {
        self.limits.depth.min(Limits::MAX_DEPTH)
    }

    fn count(&mut self, scanner: &Scanner<'_>) -> Result<(), Error> {
        self.structure += 1;
        let most = self.limits.values;
        if self.structure > most { Err(scanner.error(Reason::TooManyValues(most))) } else { Ok(()) }
    }

    /// Positional arguments: none where there is something else than an array.
    fn args(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<Vec<Value>>, Error> {
        if scanner.next()? != b'[' {
            return Ok((scanner.skip()? == "null").then(Vec::new));
        }
        let mut args = Vec::new();
        scanner.array(|scanner, _| {
            self.count(scanner)?;
            args.push(Self::argument(scanner)?);
            Ok(())
        })?;
        Ok(Some(args))
    }

    /// Keyword arguments of a task, or of a signature nested at most so deep: none where there is something else than an
    /// object.
    fn kwargs(&mut self, scanner: &mut Scanner<'_>, signature: Option<usize>) -> Result<Option<Object>, Error> {
        if scanner.next()? != b'{' {
            return Ok((scanner.skip()? == "null").then(Object::new));
        }
        let mut kwargs = Vec::new();
        scanner.object(|scanner, key| {
            self.count(scanner)?;
            let value = match signature {
                Some(depth) if SIGNATURES.contains(&&*key) => self.signatures(scanner, depth)?,
                Some(_) | None => Self::argument(scanner)?,
            };
            kwargs.push((key.into_owned(), value));
            Ok(())
        })?;
        Ok(Some(Object::from_iter(kwargs)))
    }

    /// One argument: its text where it does not fit into the limits.
    fn argument(scanner: &mut Scanner<'_>) -> Result<Value, Error> {
        let before = scanner.mark();
        match scanner.value() {
            Err(Error { reason: Reason::TooManyValues(_) | Reason::TooDeep(_), .. }) => {
                scanner.go_back(before);
                scanner.skip().map(Value::verbatim)
            }
            value => value,
        }
    }

    /// Signatures, in whatever lists and objects: all is taken apart but the arguments.
    fn signatures(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<Value, Error> {
        self.count(scanner)?;
        let inner = depth.checked_sub(1).ok_or_else(|| scanner.error(Reason::TooDeep(self.depth())));
        match scanner.next()? {
            b'[' => {
                let (inner, mut elements) = (inner?, Vec::new());
                scanner.array(|scanner, _| {
                    elements.push(self.signatures(scanner, inner)?);
                    Ok(())
                })?;
                Ok(Value::Array(elements))
            }
            b'{' => {
                let (inner, mut members) = (inner?, Vec::new());
                scanner.object(|scanner, key| {
                    let value = match (&*key, scanner.next()?) {
                        ("args", b'[') => Value::Array(self.args(scanner)?.unwrap_or_default()),
                        ("kwargs", b'{') => Value::Object(self.kwargs(scanner, Some(inner))?.unwrap_or_default()),
                        _ => self.signatures(scanner, inner)?,
                    };
                    members.push((key.into_owned(), value));
                    Ok(())
                })?;
                Ok(Value::Object(Object::from_iter(members)))
            }
            _ => scanner.value(),
        }
    }
}

fn object_or_null(value: Value) -> Option<Object> {
    match value {
        Value::Object(members) => Some(members),
        Value::Null => Some(Object::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Verbatim(_) => None,
    }
}

#[cfg(test)]
mod tests;
