//! Questions about whole values.

use std::fmt::Write;

use super::Value;

impl Value {
    /// How deep arrays and objects are nested: 0 for a scalar, 1 for `[]`, 2 for `[{}]`.
    pub fn depth(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => 0,
            Self::Array(elements) => 1 + elements.iter().map(Self::depth).max().unwrap_or(0),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
        }
    }

    /// The path, like `outline[2].due`, of the first object with exactly the keys `__type__` and `__value__`; empty if it
    /// is the value itself.
    ///
    /// kombu decodes such an object into a Python type, and a worker drops the whole message when it does not know it.
    pub fn contains_reserved_type_object(&self) -> Option<String> {
        let mut path = String::new();
        self.find_reserved(&mut path).then_some(path)
    }

    fn find_reserved(&self, path: &mut String) -> bool {
        let length = path.len();
        match self {
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => {}
            Self::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    let _ = write!(path, "[{index}]");
                    if element.find_reserved(path) {
                        return true;
                    }
                    path.truncate(length);
                }
            }
            Self::Object(members) => {
                if members.len() == 2 && members.contains_key("__type__") && members.contains_key("__value__") {
                    return true;
                }
                for (key, value) in members.iter() {
                    push_key(path, key);
                    if value.find_reserved(path) {
                        return true;
                    }
                    path.truncate(length);
                }
            }
        }
        false
    }

    /// Whether every number can be held exactly by Kubernetes' JSON, which knows `int64` and finite `float64`.
    ///
    /// False means that a strict reader would refuse the value or an API server would change it.
    pub fn has_exact_json_numbers(&self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::String(_) => true,
            Self::Number(number) => number.is_exact(),
            Self::Array(elements) => elements.iter().all(Self::has_exact_json_numbers),
            Self::Object(members) => members.iter().all(|(_, value)| value.has_exact_json_numbers()),
        }
    }
}

fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !plain {
        path.push('[');
        super::print::string(path, key);
        path.push(']');
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}
