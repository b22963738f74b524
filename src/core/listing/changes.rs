//! What has changed of late, so that a page that shows a part of the jobs hears only of that part.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Filter, Row, Scope};

/// Changes that are remembered. A reader that is further behind is told that something has changed.
const REMEMBERED: usize = 2048;

/// The last changes of a table.
#[derive(Debug, Default)]
pub struct Changes {
    /// How many there were in all.
    count: u64,
    /// The job as it was or is, and as it was before where it has changed.
    last: VecDeque<(Arc<Row>, Option<Arc<Row>>)>,
}

impl Changes {
    /// Remembers that a job came, changed or went.
    pub fn note(&mut self, row: Arc<Row>, before: Option<Arc<Row>>) {
        self.count += 1;
        self.last.push_back((row, before));
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    /// How many changes there were so far: what a reader that has seen all of them hands to `since`.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether any change after the first `seen` is of a job that is meant, or was before it changed.
    pub fn since(&self, seen: u64, filter: &Filter, scope: &Scope) -> bool {
        let missed = usize::try_from(self.count.saturating_sub(seen)).unwrap_or(usize::MAX);
        if missed > self.last.len() {
            return true;
        }
        let is_meant = |row: &Row| scope.has(&row.namespace) && filter.means(row);
        let mut news = self.last.iter().rev().take(missed);
        news.any(|(row, before)| is_meant(row) || before.as_deref().is_some_and(is_meant))
    }
}
