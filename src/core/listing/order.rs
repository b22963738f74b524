//! In which order jobs are listed, and where a page ends.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::Row;

/// By what jobs are sorted. Equal ones are in the order of namespace and name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// When they were created.
    #[default]
    Created,
    /// Namespace and name.
    Name,
    /// The phase, in the order of a job's life.
    Phase,
    /// The pool.
    Pool,
    /// How urgent they are.
    Priority,
    /// Runs begun.
    Attempts,
    /// When the last attempt began.
    Started,
    /// When they ended.
    Finished,
}

const WORDS: [(&str, By); 8] = [
    ("created", By::Created),
    ("name", By::Name),
    ("phase", By::Phase),
    ("pool", By::Pool),
    ("priority", By::Priority),
    ("attempts", By::Attempts),
    ("started", By::Started),
    ("finished", By::Finished),
];

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: By,
    /// The greatest first.
    pub descending: bool,
}

impl Default for Order {
    /// The newest first.
    fn default() -> Self {
        Self { by: By::Created, descending: true }
    }
}

/// By what two jobs are compared. Missing times are the smallest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Text(String),
}

/// The place of a job in an order: the next page begins behind it, also when the job itself is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    key: Key,
    namespace: String,
    name: String,
}

impl Order {
    /// `created` or, the greatest first, `-created`. The error says which words there are.
    pub fn read(text: &str) -> Result<Self, String> {
        let (descending, word) = text.strip_prefix('-').map_or((false, text), |word| (true, word));
        let found = WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, by)| Self { by: *by, descending }).ok_or_else(|| {
            let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            format!("sort is one of {}, with a - before it for the greatest first", words.join(", "))
        })
    }

    fn key(self, row: &Row) -> Key {
        let time = |at: Option<Timestamp>| Key::Number(at.map_or(i64::MIN, Timestamp::as_millisecond));
        match self.by {
            By::Created => time(Some(row.created)),
            By::Name => Key::Text(String::new()),
            By::Phase => Key::Number(i64::try_from(row.stage()).unwrap_or(i64::MAX)),
            By::Pool => Key::Text((*row.pool).to_owned()),
            By::Priority => Key::Number(row.priority.into()),
            By::Attempts => Key::Number(row.attempts.into()),
            By::Started => time(row.started),
            By::Finished => time(row.finished),
        }
    }

    /// How two jobs compare.
    pub fn compare(self, one: &Row, other: &Row) -> Ordering {
        let by = match self.by {
            By::Created => one.created.cmp(&other.created),
            By::Name => Ordering::Equal,
            By::Phase => one.stage().cmp(&other.stage()),
            By::Pool => one.pool.cmp(&other.pool),
            By::Priority => one.priority.cmp(&other.priority),
            By::Attempts => one.attempts.cmp(&other.attempts),
            By::Started => one.started.cmp(&other.started),
            By::Finished => one.finished.cmp(&other.finished),
        };
        self.turned(by.then_with(|| (&*one.namespace, &*one.name).cmp(&(&*other.namespace, &*other.name))))
    }

    fn turned(self, ordering: Ordering) -> Ordering {
        if self.descending { ordering.reverse() } else { ordering }
    }

    /// Where the job stands.
    pub fn cursor(self, row: &Row) -> Cursor {
        Cursor { key: self.key(row), namespace: (*row.namespace).to_owned(), name: (*row.name).to_owned() }
    }

    /// Whether the job comes behind that place.
    pub fn is_behind(self, row: &Row, cursor: &Cursor) -> bool {
        let by = self.key(row).cmp(&cursor.key);
        let ordering =
            by.then_with(|| (&*row.namespace, &*row.name).cmp(&(cursor.namespace.as_str(), cursor.name.as_str())));
        self.turned(ordering) == Ordering::Greater
    }
}

impl Cursor {
    /// As text, to be read again.
    pub fn text(&self) -> String {
        let (kind, key) = match &self.key {
            Key::Number(number) => ('n', number.to_string()),
            Key::Text(text) => ('t', text.clone()),
        };
        // Neither namespaces nor names have a slash; a key may.
        format!("{kind}{key}/{}/{}", self.namespace, self.name)
    }

    /// What `text` has written; `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, '/');
        let (name, namespace, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = match key.strip_prefix('n') {
            Some(number) => Key::Number(number.parse().ok()?),
            None => Key::Text(key.strip_prefix('t')?.to_owned()),
        };
        Some(Self { key, namespace: namespace.to_owned(), name: name.to_owned() })
    }
}
