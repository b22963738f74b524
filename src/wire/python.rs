//! Python's `repr` and Celery's variant of it, for fields that people read: `argsrepr`, `kwargsrepr`, events, messages of
//! exceptions.

mod canonical;
mod safe;

use super::json::{Number, Object, Value};

pub use canonical::canonical_json;
pub use safe::{safe_repr, safe_repr_array, safe_repr_object, safe_repr_tuple};

/// Celery cuts a `repr` after about this many characters.
pub const MAX_CHARS: usize = 1024;

/// `repr` of any value, cut after [`MAX_CHARS`].
pub fn repr(value: &Value) -> String {
    let mut out = Repr::new();
    out.value(value);
    out.text
}

/// `repr` of a tuple, which has a comma after its only element.
pub fn repr_tuple(elements: &[Value]) -> String {
    let mut out = Repr::new();
    out.array('(', elements, if elements.len() == 1 { ',' } else { ')' });
    if elements.len() == 1 {
        out.push(')');
    }
    out.text
}

/// `str()` of a value: a string as it is, anything else its `repr`.
pub fn str(value: &Value) -> String {
    value.as_str().map_or_else(|| repr(value), |text| cut(text, MAX_CHARS))
}

/// At most `chars` characters, with `...` where something is missing.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

struct Repr {
    text: String,
    left: usize,
}

impl Repr {
    fn new() -> Self {
        Self { text: String::new(), left: MAX_CHARS }
    }

    /// Whether everything has been said that fits.
    fn full(&self) -> bool {
        self.left == 0
    }

    fn push(&mut self, c: char) {
        if self.full() {
            return;
        }
        self.text.push(c);
        self.left -= 1;
        if self.full() {
            self.text.push_str("...");
        }
    }

    fn push_str(&mut self, text: &str) {
        for c in text.chars().take(self.left) {
            self.push(c);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.push_str("None"),
            Value::Bool(true) => self.push_str("True"),
            Value::Bool(false) => self.push_str("False"),
            Value::Number(number) => self.push_str(&Number::to_python(number)),
            Value::String(text) => self.string(text),
            Value::Array(elements) => self.array('[', elements, ']'),
            Value::Object(members) => self.object(members),
            Value::Verbatim(text) => self.push_str(text.as_str()),
        }
    }

    fn array(&mut self, open: char, elements: &[Value], close: char) {
        self.push(open);
        for (index, element) in elements.iter().enumerate() {
            if self.full() {
                return;
            }
            if index > 0 {
                self.push_str(", ");
            }
            self.value(element);
        }
        self.push(close);
    }

    fn object(&mut self, members: &Object) {
        self.push('{');
        for (index, (key, value)) in members.iter().enumerate() {
            if self.full() {
                return;
            }
            if index > 0 {
                self.push_str(", ");
            }
            self.string(key);
            self.push_str(": ");
            self.value(value);
        }
        self.push('}');
    }

    fn string(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        self.push(quote);
        for c in text.chars() {
            if self.full() {
                return;
            }
            match c {
                '\\' => self.push_str("\\\\"),
                '\n' => self.push_str("\\n"),
                '\r' => self.push_str("\\r"),
                '\t' => self.push_str("\\t"),
                c if c == quote => {
                    self.push('\\');
                    self.push(c);
                }
                c if !is_printable(c) => self.escape(c),
                c => self.push(c),
            }
        }
        self.push(quote);
    }

    fn escape(&mut self, c: char) {
        let code = u32::from(c);
        match code {
            0..0x100 => self.push_str(&format!("\\x{code:02x}")),
            0x100..0x1_0000 => self.push_str(&format!("\\u{code:04x}")),
            _ => self.push_str(&format!("\\U{code:08x}")),
        }
    }
}

/// Python's `str.isprintable`, without its tables: controls, separators, the common format characters, private use.
fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(repr(&Value::parse(json.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn values_look_as_python_shows_them() {
        check(
            r#"{"inputs": {"topic": "AI"}, "bypass_cache": false}"#,
            "{'inputs': {'topic': 'AI'}, 'bypass_cache': False}",
        );
        check("[null, true, 1, -0.5, 1e22, 1E-7, 100.0]", "[None, True, 1, -0.5, 1e+22, 1e-07, 100.0]");
        check("[NaN, Infinity, -Infinity]", "[nan, inf, -inf]");
        check("1180591620717411303424", "1180591620717411303424");
    }

    #[test]
    fn strings_are_quoted_and_escaped_as_python_does() {
        check(r#""it's""#, r#""it's""#);
        check(r#""it's \"so\"""#, r#"'it\'s "so"'"#);
        check(r#""a\\b\n\r\t\u0000\u007f\u200b\ue000""#, r"'a\\b\n\r\t\x00\x7f\u200b\ue000'");
        check(r#""é 日 😀 \u00a0""#, r"'é 日 😀 \xa0'");
    }

    #[test]
    fn tuples_of_one_have_a_comma() {
        assert_eq!(repr_tuple(&["x".into()]), "('x',)");
        assert_eq!(repr_tuple(&[2.into(), false.into()]), "(2, False)");
        assert_eq!(repr_tuple(&[]), "()");
    }

    #[test]
    fn a_repr_that_is_too_long_ends_in_dots() {
        let text = repr(&Value::from("é".repeat(5000)));
        assert_eq!(text.chars().count(), MAX_CHARS + 3);
        assert!(text.ends_with("éé..."));
    }
}
