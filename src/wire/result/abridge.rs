//! Reading a result document of any size in chunks: what is long is left out, and the text of `result` is handed on.

use super::super::json::{Error, Reason};

/// Bytes that are kept of one string.
const STRING: usize = 48 << 10;
/// Bytes that are kept of one member of the document; one that has more becomes `null`.
const MEMBER: usize = 128 << 10;
/// Bytes that are kept of the document.
const DOCUMENT: usize = 512 << 10;
/// Deepest nesting.
const DEPTH: usize = 1 << 16;
/// Longest escape in a string.
const ESCAPE: usize = 6;

/// A piece of the text of a document's `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The text begins here. The last one counts if the field occurs twice.
    Begins,
    /// The text goes on.
    Text(&'a str),
}

/// Makes a short document of a result document of any size, with the same fields. It takes the document in chunks and
/// holds no more than it keeps.
#[derive(Debug)]
pub struct Abridger {
    out: Vec<u8>,
    state: State,
    /// The closing brackets to come, the innermost last.
    open: Vec<u8>,
    /// The beginning of a character whose end has not come yet.
    character: Vec<u8>,
    /// Bytes taken.
    offset: usize,
    /// Where the value of the present member begins in what is kept, and whether it has become too long.
    member: Option<(usize, bool)>,
    /// Where the present string begins in what is kept, and bytes that may still be kept of it.
    string: (usize, usize),
    is_escaped: bool,
    /// The next value is that of `result`.
    is_result_next: bool,
    /// The present value is that of `result`, or inside it.
    is_result: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    Next,
    Text { is_key: bool },
    Escape { is_key: bool, is_kept: bool },
    Hex { is_key: bool, is_kept: bool, left: u8 },
    Word(&'static [u8]),
    Number(Digits),
    End,
}

/// Where in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Digits {
    fn after(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Some(Self::Whole),
            (Self::Zero | Self::Whole, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::Sign),
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Some(Self::Power),
            _ => None,
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }
}

impl Default for Abridger {
    fn default() -> Self {
        Self {
            out: Vec::new(),
            state: State::Value,
            open: Vec::new(),
            character: Vec::new(),
            offset: 0,
            member: None,
            string: (0, 0),
            is_escaped: false,
            is_result_next: false,
            is_result: false,
        }
    }
}

impl Abridger {
    /// Takes the next chunk, and hands on what it has of the text of `result`.
    pub fn take(&mut self, chunk: &[u8], mut result: impl FnMut(Piece<'_>)) -> Result<(), Error> {
        let joined;
        let bytes = if self.character.is_empty() {
            chunk
        } else {
            joined = [&*self.character, chunk].concat();
            self.character.clear();
            &*joined
        };
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_some() => {
                return Err(self.error(error.valid_up_to(), Reason::InvalidUtf8));
            }
            Err(error) => {
                let (text, character) = bytes.split_at(error.valid_up_to());
                self.character.extend_from_slice(character);
                std::str::from_utf8(text).map_err(|_| self.error(0, Reason::InvalidUtf8))?
            }
        };
        self.scan(text, &mut result)?;
        self.offset += text.len();
        Ok(())
    }

    /// The short document, when all of it was taken.
    pub fn end(self) -> Result<Vec<u8>, Error> {
        if self.state == State::End && self.character.is_empty() {
            Ok(self.out)
        } else {
            Err(self.error(0, Reason::UnexpectedEnd))
        }
    }

    fn error(&self, at: usize, reason: Reason) -> Error {
        Error { offset: self.offset + at, reason }
    }

    fn scan(&mut self, text: &str, result: &mut impl FnMut(Piece<'_>)) -> Result<(), Error> {
        let bytes = text.as_bytes();
        let mut at = 0;
        // Where the text of `result` begins in this chunk.
        let mut from = 0;
        while let Some(&byte) = bytes.get(at) {
            if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') && self.is_between_tokens() {
                if self.open.len() > 1 {
                    self.keep(&[byte]).map_err(|reason| self.error(at, reason))?;
                }
                at += 1;
                continue;
            }
            let before = self.is_result;
            let taken = self.step(byte, &bytes[at..]).map_err(|reason| self.error(at, reason))?;
            if self.is_result && !before {
                from = at;
                result(Piece::Begins);
            }
            at += taken;
            if before && !self.is_result {
                result(Piece::Text(&text[from..at]));
            }
        }
        if self.is_result {
            result(Piece::Text(&text[from..]));
        }
        Ok(())
    }

    fn is_between_tokens(&self) -> bool {
        match self.state {
            State::Value
            | State::FirstElement
            | State::FirstKey
            | State::Key
            | State::Colon
            | State::Next
            | State::End => true,
            State::Text { .. } | State::Escape { .. } | State::Hex { .. } | State::Word(_) | State::Number(_) => false,
        }
    }

    /// Takes the next byte, or as many as belong together; says how many. A number ends before what comes next.
    fn step(&mut self, byte: u8, rest: &[u8]) -> Result<usize, Reason> {
        match self.state {
            State::FirstElement if byte == b']' => self.close(byte)?,
            State::Value | State::FirstElement => self.value(byte)?,
            State::FirstKey if byte == b'}' => self.close(byte)?,
            State::FirstKey | State::Key if byte == b'"' => self.string(true),
            State::FirstKey | State::Key => return Err(Reason::Expected("a string")),
            State::Colon if byte == b':' => {
                self.keep(b":")?;
                if self.open.len() == 1 {
                    self.member = Some((self.out.len(), false));
                }
                self.state = State::Value;
            }
            State::Colon => return Err(Reason::Expected("':'")),
            State::Next if byte == b',' => {
                self.keep(b",")?;
                self.state = if self.open.last() == Some(&b'}') { State::Key } else { State::Value };
            }
            State::Next => self.close(byte)?,
            State::Text { is_key } => return self.text(is_key, rest),
            State::Escape { is_key, is_kept } => {
                self.state = match byte {
                    b'u' => State::Hex { is_key, is_kept, left: 4 },
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::Text { is_key },
                    _ => return Err(Reason::InvalidEscape),
                };
                self.keep_if(is_kept, byte)?;
            }
            State::Hex { is_key, is_kept, left } => {
                if !byte.is_ascii_hexdigit() {
                    return Err(Reason::InvalidEscape);
                }
                self.state =
                    if left == 1 { State::Text { is_key } } else { State::Hex { is_key, is_kept, left: left - 1 } };
                self.keep_if(is_kept, byte)?;
            }
            State::Word(word) => {
                if word.first() != Some(&byte) {
                    return Err(Reason::Expected("a value"));
                }
                self.keep(&[byte])?;
                if word.len() == 1 { self.ended() } else { self.state = State::Word(&word[1..]) }
            }
            State::Number(Digits::Minus) if byte == b'I' => {
                self.keep(b"I")?;
                self.state = State::Word(b"nfinity");
            }
            State::Number(digits) => match digits.after(byte) {
                Some(digits) => {
                    self.keep(&[byte])?;
                    self.state = State::Number(digits);
                }
                None if digits.is_whole() => {
                    self.ended();
                    return Ok(0);
                }
                None => return Err(Reason::Expected("a value")),
            },
            State::End => return Err(Reason::TrailingData),
        }
        Ok(1)
    }

    fn value(&mut self, byte: u8) -> Result<(), Reason> {
        if self.open.is_empty() && byte != b'{' {
            return Err(Reason::Expected("an object"));
        }
        self.is_result |= std::mem::take(&mut self.is_result_next);
        if byte == b'"' {
            self.string(false);
            return Ok(());
        }
        self.keep(&[byte])?;
        match byte {
            b'{' | b'[' => {
                if self.open.len() == DEPTH {
                    return Err(Reason::TooDeep(DEPTH));
                }
                self.open.push(if byte == b'{' { b'}' } else { b']' });
                self.state = if byte == b'{' { State::FirstKey } else { State::FirstElement };
            }
            b't' => self.state = State::Word(b"rue"),
            b'f' => self.state = State::Word(b"alse"),
            b'n' => self.state = State::Word(b"ull"),
            b'N' => self.state = State::Word(b"aN"),
            b'I' => self.state = State::Word(b"nfinity"),
            b'-' => self.state = State::Number(Digits::Minus),
            b'0' => self.state = State::Number(Digits::Zero),
            b'1'..=b'9' => self.state = State::Number(Digits::Whole),
            _ => return Err(Reason::Expected("a value")),
        }
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<(), Reason> {
        if self.open.last() != Some(&byte) {
            let is_object = self.open.last() == Some(&b'}');
            return Err(Reason::Expected(if is_object { "',' or '}'" } else { "',' or ']'" }));
        }
        self.open.pop();
        self.keep(&[byte])?;
        self.ended();
        Ok(())
    }

    fn string(&mut self, is_key: bool) {
        // A quote more or less is within the bounds that the next byte is checked against.
        if !self.is_left_out() {
            self.out.push(b'"');
        }
        self.string = (self.out.len(), STRING);
        self.is_escaped = false;
        self.state = State::Text { is_key };
    }

    /// What a string has up to its next quote or backslash, and that.
    fn text(&mut self, is_key: bool, rest: &[u8]) -> Result<usize, Reason> {
        let plain = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20).unwrap_or(rest.len());
        let mut kept = plain.min(self.string.1);
        while kept < plain && !is_first_of_character(rest[kept]) {
            kept -= 1;
        }
        self.string.1 = if kept < plain { 0 } else { self.string.1 - kept };
        self.keep(&rest[..kept])?;
        match rest.get(plain) {
            None => return Ok(plain),
            Some(b'"') => {
                self.keep(b"\"")?;
                if is_key { self.named()? } else { self.ended() }
            }
            Some(b'\\') => {
                let is_kept = self.string.1 >= ESCAPE;
                self.string.1 = if is_kept { self.string.1 - ESCAPE } else { 0 };
                self.is_escaped = true;
                self.keep_if(is_kept, b'\\')?;
                self.state = State::Escape { is_key, is_kept };
            }
            Some(_) => return Err(Reason::ControlCharacter),
        }
        Ok(plain + 1)
    }

    /// The name of a member has ended.
    fn named(&mut self) -> Result<(), Reason> {
        self.state = State::Colon;
        if self.open.len() == 1 {
            // Written otherwise it could be `result` all the same. No encoder escapes the names that Celery gives.
            if self.is_escaped {
                return Err(Reason::Expected("a name without escapes"));
            }
            self.is_result_next = self.out[self.string.0..] == *b"result\"";
        }
        Ok(())
    }

    fn ended(&mut self) {
        self.state = if self.open.is_empty() { State::End } else { State::Next };
        if self.open.len() <= 1
            && let Some((from, true)) = self.member
        {
            self.out.truncate(from);
            self.out.extend_from_slice(b"null");
        }
        if self.open.len() <= 1 {
            (self.member, self.is_result) = (None, false);
        }
    }

    fn is_left_out(&self) -> bool {
        matches!(self.member, Some((_, true)))
    }

    fn keep_if(&mut self, is_kept: bool, byte: u8) -> Result<(), Reason> {
        if is_kept { self.keep(&[byte]) } else { Ok(()) }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        if self.is_left_out() {
            return Ok(());
        }
        if let Some((from, is_too_long)) = &mut self.member
            && self.out.len() - *from + bytes.len() > MEMBER
        {
            *is_too_long = true;
            self.out.truncate(*from);
            return Ok(());
        }
        if self.out.len() + bytes.len() > DOCUMENT {
            return Err(Reason::TooLarge(DOCUMENT));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

fn is_first_of_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests;
