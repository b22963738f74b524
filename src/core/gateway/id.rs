//! The id of a job in paths and answers: `namespace.name`.
//!
//! A namespace has no dot, so that the first one ends it, whatever the name is; and all letters of it stand in a URL as they are.

use std::fmt;

/// A job of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JobId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl JobId {
    /// Reads an id. One without a dot is a name in the namespace `home`. `None` for what is no id.
    pub fn parse(text: &str, home: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('.').unwrap_or((home, text));
        (is_namespace(namespace) && is_name(name)).then(|| Self { namespace: namespace.into(), name: name.into() })
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// Whether Kubernetes would take it as the name of a namespace: a label of DNS.
pub fn is_namespace(text: &str) -> bool {
    text.len() <= 63 && is_label(text)
}

/// Whether Kubernetes would take it as the name of an object: labels of DNS between dots.
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let [first, .., last] = text.as_bytes() else { return text.bytes().next().is_some_and(is_letter) };
    is_letter(*first) && is_letter(*last) && text.bytes().all(|byte| is_letter(byte) || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, String)> {
        JobId::parse(text, "home").map(|id| (id.namespace, id.name))
    }

    #[test]
    fn an_id_ends_its_namespace_at_the_first_dot_and_is_written_as_it_was_read() {
        for (text, namespace, name) in
            [("a.b", "a", "b"), ("team-1.v1.2.report-x7", "team-1", "v1.2.report-x7"), ("report", "home", "report")]
        {
            assert_eq!(read(text), Some((namespace.to_owned(), name.to_owned())), "{text}");
        }
        assert_eq!(JobId::parse("a.b.c", "home").unwrap().to_string(), "a.b.c");
        assert_eq!(JobId::parse("b", "home").unwrap().to_string(), "home.b");
    }

    #[test]
    fn what_kubernetes_would_not_take_as_a_name_is_no_id() {
        let long = format!("a.{}", "b".repeat(254));
        for text in
            ["", ".", "a.", ".b", "a..b", "A.b", "a.b/c", "a.%2e", "a.b-", "-a.b", "a.b c", "a_b.c", "é.b", &long]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(!is_namespace("a.b") && !is_namespace(&"a".repeat(64)) && is_namespace(&"a".repeat(63)));
    }
}
