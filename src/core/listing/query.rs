//! What a list is asked for.

use super::{Cursor, Filter, Order};

/// Jobs of a page that does not say, and the most of one.
const LIMIT: usize = 50;
const MOST: usize = 500;

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which jobs.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// How many of them, 1 to 500.
    pub limit: usize,
    /// Behind which place; `None` for the first page.
    pub after: Option<Cursor>,
}

impl Default for Query {
    fn default() -> Self {
        Self { filter: Filter::default(), order: Order::default(), limit: LIMIT, after: None }
    }
}

impl Query {
    /// Reads words and their values as they stand in a query string. The error names the word.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut query = Self::default();
        for (word, value) in pairs {
            match word {
                "sort" => query.order = Order::read(value)?,
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    query.limit = limit.ok_or_else(|| format!("limit is a number from 1 to {MOST}"))?;
                }
                "continue" if value.is_empty() => {}
                "continue" => {
                    let cursor = Cursor::read(value);
                    query.after = Some(cursor.ok_or("continue is none that a list has given")?);
                }
                _ if query.filter.add(word, value)? => {}
                _ => {
                    return Err(format!(
                        "there is no {word}: namespace, pool, phase, reason, label, name, text, sort, limit and continue are known"
                    ));
                }
            }
        }
        Ok(query)
    }
}
