//! Tokens. Everything here is iterative and allocates nothing but unescaped strings.

use std::borrow::Cow;

use super::{Error, Limits, Reason};

/// A position in a JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    limits: Limits,
    values: usize,
}

impl<'a> Scanner<'a> {
    /// Checks length and UTF-8.
    pub(crate) fn new(bytes: &'a [u8], limits: &Limits) -> Result<Self, Error> {
        if bytes.len() > limits.bytes {
            return Err(Error { offset: limits.bytes, reason: Reason::TooLarge(limits.bytes) });
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error { offset: error.valid_up_to(), reason: Reason::InvalidUtf8 })?;
        Ok(Self { text, at: 0, limits: *limits, values: 0 })
    }

    /// For text of any length from which no values are built.
    pub(crate) fn over(text: &'a str) -> Self {
        Self { text, at: 0, limits: Limits::default().bytes(usize::MAX), values: 0 }
    }

    /// Where it is, to come back to.
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.at, self.values)
    }

    /// Goes back to where it was; what was built since is gone.
    pub(crate) fn go_back(&mut self, to: (usize, usize)) {
        (self.at, self.values) = to;
    }

    /// Counts a value that is built.
    pub(super) fn count(&mut self) -> Result<(), Error> {
        self.values += 1;
        if self.values > self.limits.values {
            Err(self.error(Reason::TooManyValues(self.limits.values)))
        } else {
            Ok(())
        }
    }

    /// How deep arrays and objects may be nested.
    pub(super) fn depth(&self) -> usize {
        self.limits.depth.min(Limits::MAX_DEPTH)
    }

    pub(super) fn too_deep(&self) -> Error {
        self.error(Reason::TooDeep(self.depth()))
    }

    pub(crate) fn error(&self, reason: Reason) -> Error {
        Error { offset: self.at, reason }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte of the next token, without taking it.
    pub(crate) fn next(&mut self) -> Result<u8, Error> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte().ok_or_else(|| self.error(Reason::UnexpectedEnd))
    }

    /// Takes the next token if it is this one-byte token.
    pub(crate) fn eat(&mut self, token: u8) -> bool {
        let found = self.next().is_ok_and(|byte| byte == token);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn expect(&mut self, token: u8, name: &'static str) -> Result<(), Error> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(name)) }
    }

    fn unexpected(&self, name: &'static str) -> Error {
        self.error(if self.byte().is_none() { Reason::UnexpectedEnd } else { Reason::Expected(name) })
    }

    /// Nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        if self.next().is_ok() { Err(self.error(Reason::TrailingData)) } else { Ok(()) }
    }

    pub(crate) fn literal(&mut self, word: &'static str) -> Result<(), Error> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// A number at the current position, as its text.
    pub(crate) fn number(&mut self) -> Result<&'a str, Error> {
        let rest = &self.text[self.at..];
        for word in ["NaN", "Infinity", "-Infinity"] {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(&rest[..word.len()]);
            }
        }
        let bytes = rest.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = usize::from(bytes.first() == Some(&b'-'));
        end += match bytes.get(end) {
            Some(b'0') => 1,
            Some(b'1'..=b'9') => digits(end),
            _ => return Err(self.unexpected("a value")),
        };
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if digits((end + 1 + sign).min(bytes.len())) > 0 {
                end += 1 + sign + digits(end + 1 + sign);
            }
        }
        self.at += end;
        Ok(&rest[..end])
    }

    /// A string, quotes included, at the next token.
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        if self.plain()? == b'"' {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut unescaped = self.text[start..self.at].to_owned();
        loop {
            self.at += 1;
            unescaped.push(self.escape()?);
            let start = self.at;
            let stop = self.plain()?;
            unescaped.push_str(&self.text[start..self.at]);
            if stop == b'"' {
                self.at += 1;
                return Ok(Cow::Owned(unescaped));
            }
        }
    }

    fn skip_string(&mut self) -> Result<(), Error> {
        self.expect(b'"', "a string")?;
        while self.plain()? != b'"' {
            self.at += 1;
            self.escape()?;
        }
        self.at += 1;
        Ok(())
    }

    /// Moves to the next quote or backslash and returns it.
    fn plain(&mut self) -> Result<u8, Error> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20);
        self.at += length.unwrap_or(rest.len());
        match self.byte() {
            Some(stop @ (b'"' | b'\\')) => Ok(stop),
            Some(_) => Err(self.error(Reason::ControlCharacter)),
            None => Err(self.error(Reason::UnexpectedEnd)),
        }
    }

    /// The character of an escape whose backslash has been taken.
    fn escape(&mut self) -> Result<char, Error> {
        let byte = self.byte().ok_or_else(|| self.error(Reason::UnexpectedEnd))?;
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.error(Reason::InvalidEscape)),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let first = self.hex4(self.at + 1).ok_or_else(|| self.error(Reason::InvalidEscape))?;
        self.at += 5;
        if (0xd800..0xdc00).contains(&first)
            && self.text.as_bytes()[self.at..].starts_with(b"\\u")
            && let Some(second @ 0xdc00..0xe000) = self.hex4(self.at + 2)
        {
            self.at += 6;
            let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&self, from: usize) -> Option<u32> {
        let digits = self.text.as_bytes().get(from..from + 4)?;
        digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
    }

    /// Steps over one value of any depth, and returns its text.
    pub(crate) fn skip(&mut self) -> Result<&'a str, Error> {
        self.next()?;
        let start = self.at;
        let mut open = Vec::new();
        loop {
            match self.next()? {
                b'{' => {
                    self.at += 1;
                    if !self.eat(b'}') {
                        open.push(b'}');
                        self.skip_key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if !self.eat(b']') {
                        open.push(b']');
                        continue;
                    }
                }
                _ => self.skip_scalar()?,
            }
            loop {
                let Some(&close) = open.last() else { return Ok(&self.text[start..self.at]) };
                if self.eat(close) {
                    open.pop();
                } else {
                    self.expect(b',', if close == b'}' { "',' or '}'" } else { "',' or ']'" })?;
                    break;
                }
            }
            if open.last() == Some(&b'}') {
                self.skip_key()?;
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Error> {
        self.next()?;
        self.skip_string()?;
        self.expect(b':', "':'")
    }

    fn skip_scalar(&mut self) -> Result<(), Error> {
        match self.next()? {
            b'"' => self.skip_string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number().map(|_| ()),
        }
    }

    /// Calls `member` for every member of an object; it must take the value.
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'{', "an object")?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "':'")?;
            member(self, key)?;
            if self.eat(b'}') {
                return Ok(());
            }
            self.expect(b',', "',' or '}'")?;
        }
    }

    /// Calls `element` with the index of every element of an array; it must take the value.
    pub(crate) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'[', "an array")?;
        if self.eat(b']') {
            return Ok(());
        }
        for index in 0.. {
            element(self, index)?;
            if self.eat(b']') {
                return Ok(());
            }
            self.expect(b',', "',' or ']'")?;
        }
        Ok(())
    }
}
