use crate::wire::json::{Number, Object, Value};

/// Containers nested deeper are shown as `[...]`.
const MAX_LEVELS: usize = 3;

/// Celery's `saferepr` of a list, as in `argsrepr`: cut after about [`MAX_CHARS`](super::MAX_CHARS), nothing but quotes
/// escaped.
pub fn safe_repr_array(elements: &[Value]) -> String {
    let mut out = Safe::new();
    out.array(elements);
    out.text
}

/// The same of a tuple, which has a comma after its only element.
pub fn safe_repr_tuple(elements: &[Value]) -> String {
    let mut out = Safe::new();
    out.elements("(", elements, if elements.len() == 1 { ",)" } else { ")" });
    out.text
}

/// Celery's `saferepr` of a dict, as in `kwargsrepr`.
pub fn safe_repr_object(members: &Object) -> String {
    let mut out = Safe::new();
    out.object(members);
    out.text
}

/// Celery's `saferepr` of a value, as in the results that events carry.
pub fn safe_repr(value: &Value) -> String {
    let mut out = Safe::new();
    out.value(value);
    out.text
}

struct Safe {
    text: String,
    left: usize,
    level: usize,
    cut: bool,
}

impl Safe {
    fn new() -> Self {
        Self { text: String::new(), left: super::MAX_CHARS, level: 0, cut: false }
    }

    /// Whether there is room for another token; says so where it ends.
    fn room(&mut self) -> bool {
        if self.left == 0 && !self.cut {
            self.text.push_str(", ...");
            self.cut = true;
        }
        !self.cut
    }

    fn push(&mut self, token: &str) {
        if self.room() {
            self.text.push_str(token);
            self.left = self.left.saturating_sub(token.chars().count());
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.plain("None"),
            Value::Bool(true) => self.plain("True"),
            Value::Bool(false) => self.plain("False"),
            Value::Number(number) => self.plain(&Number::to_python(number)),
            Value::String(text) => self.string(text),
            Value::Array(_) if self.level >= MAX_LEVELS => self.push("[...]"),
            Value::Object(_) if self.level >= MAX_LEVELS => self.push("{...}"),
            Value::Array(elements) => self.array(elements),
            Value::Object(members) => self.object(members),
            Value::Verbatim(text) => self.plain(text.as_str()),
        }
    }

    fn plain(&mut self, token: &str) {
        let token = truncate(token, self.left);
        self.push(&token);
    }

    fn string(&mut self, text: &str) {
        let token = format!("'{}'", truncate(text, self.left).replace('\'', "\\'"));
        self.push(&token);
    }

    fn array(&mut self, elements: &[Value]) {
        self.elements("[", elements, "]");
    }

    fn elements(&mut self, open: &str, elements: &[Value], close: &str) {
        self.contained(open, close, |out| {
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(", ");
                }
                if out.cut {
                    return;
                }
                out.value(element);
            }
        });
    }

    fn object(&mut self, members: &Object) {
        self.contained("{", "}", |out| {
            for (index, (key, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(", ");
                }
                if out.cut {
                    return;
                }
                out.string(key);
                out.push(": ");
                out.value(value);
            }
        });
    }

    /// What was opened before the end is closed after it; what would be opened after it is not shown.
    fn contained(&mut self, open: &str, close: &str, content: impl FnOnce(&mut Self)) {
        self.push(open);
        if self.cut {
            return;
        }
        self.level += 1;
        content(self);
        self.level -= 1;
        self.text.push_str(close);
        self.left = self.left.saturating_sub(close.len());
    }
}

/// At most `chars` characters, cut at a space if there is one.
fn truncate(text: &str, chars: usize) -> String {
    if text.len() < chars {
        return text.to_owned();
    }
    let Some((end, _)) = text.char_indices().nth(chars.saturating_sub(1)) else { return text.to_owned() };
    let end = text[end..].chars().next().map_or(end, |last| end + last.len_utf8());
    let kept = &text[..end];
    format!("{}...", kept.rsplit_once(' ').map_or(kept, |(words, _)| words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, expected: &str) {
        assert_eq!(safe_repr(&Value::parse(json.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn only_quotes_are_escaped() {
        check(r#"["it's", "a\nb", null, true, 1.5e-7, {}]"#, "['it\\'s', 'a\nb', None, True, 1.5e-07, {}]");
    }

    #[test]
    fn tuples_of_one_have_a_comma() {
        assert_eq!(safe_repr_tuple(&["it's".into()]), "('it\\'s',)");
        assert_eq!(safe_repr_tuple(&[2.into(), Value::Array(vec![])]), "(2, [])");
        assert_eq!(safe_repr_tuple(&[]), "()");
    }

    #[test]
    fn values_that_are_nested_too_deep_are_left_out() {
        check(r#"{"a": [{"b": [1], "c": {}}]}"#, "{'a': [{'b': [...], 'c': {...}}]}");
    }

    #[test]
    fn a_repr_that_is_too_long_is_cut_and_closed() {
        let long = "x".repeat(2000);
        assert_eq!(safe_repr(&vec![long.as_str()].into()), format!("['{}...']", "x".repeat(1023)));
        let nested: Value = vec![Value::from(vec![long.as_str(), "never"]), "shown".into()].into();
        assert_eq!(safe_repr(&nested), format!("[['{}...', ...]]", "x".repeat(1022)));
        let words = "word ".repeat(400);
        assert!(safe_repr(&words.into()).ends_with("word word...'"));
    }
}
