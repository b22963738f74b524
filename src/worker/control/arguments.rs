use crate::wire::python;
use crate::wire::{Number, Object, Value};

/// The `repr` of the Python exception that a stock worker answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

impl Refusal {
    pub(super) fn new(class: &str, message: &str) -> Self {
        Self(format!("{class}({})", python::repr(&message.into())))
    }
}

/// The arguments of a command.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a> {
    method: &'a str,
    given: &'a Object,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(method: &'a str, given: &'a Object) -> Self {
        Self { method, given }
    }

    /// The same if these are there.
    pub(super) fn with(self, required: &[&str]) -> Result<Self, Refusal> {
        let missing = required.iter().filter(|name| !self.given.contains_key(name));
        let missing: Vec<String> = missing.map(|name| format!("'{name}'")).collect();
        if missing.is_empty() {
            return Ok(self);
        }
        let plural = if missing.len() == 1 { "" } else { "s" };
        let (method, count, names) = (self.method, missing.len(), missing.join(" and "));
        let text = format!("{method}() missing {count} required positional argument{plural}: {names}");
        Err(Refusal::new("TypeError", &text))
    }

    /// The same if there are no others than these. Most commands accept any, and ignore them.
    pub(super) fn only(self, known: &[&str]) -> Result<Self, Refusal> {
        let unexpected = |name: &str| format!("{}() got an unexpected keyword argument '{name}'", self.method);
        match self.given.keys().find(|name| !known.contains(name)) {
            Some(name) => Err(Refusal::new("TypeError", &unexpected(name))),
            None => Ok(self),
        }
    }

    /// The argument, `null` being as good as nothing.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name).filter(|value| !value.is_null())
    }

    /// Whether Python takes the argument for true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.get(name).map(|value| value.as_str().ok_or_else(|| self.wrong(name, "a string"))).transpose()
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<&'a Number>, Refusal> {
        let number = |value: &'a Value| value.as_number().filter(|number| number.as_f64() >= 0.0);
        self.get(name).map(|value| number(value).ok_or_else(|| self.wrong(name, "a number of seconds"))).transpose()
    }

    /// A number of processes.
    pub(super) fn count(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let count = |value: &Value| value.as_i64().and_then(|count| u32::try_from(count).ok()).filter(|&n| n <= MOST);
        self.get(name)
            .map(|value| count(value).ok_or_else(|| self.wrong(name, &format!("a number from 0 to {MOST}"))))
            .transpose()
    }

    /// One text or a list of them.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, Refusal> {
        let texts = match self.get(name) {
            None => Some(Vec::new()),
            Some(Value::String(text)) => Some(vec![text.as_str()]),
            Some(value) => value.as_array().and_then(|texts| texts.iter().map(Value::as_str).collect()),
        };
        texts.ok_or_else(|| self.wrong(name, "a string or a list of strings"))
    }

    fn wrong(&self, name: &str, expected: &str) -> Refusal {
        Refusal::new("TypeError", &format!("{}() argument '{name}' must be {expected}", self.method))
    }
}

/// Larger numbers of processes are refused.
const MOST: u32 = 1024;

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != 0.0,
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Verbatim(_) => true,
    }
}
