//! What the runs of a job say of themselves beside their outcome: what they consumed, and what became of its state.

use std::sync::Arc;

use jiff::Timestamp;

use super::usage::Usage;

/// What is known of the state of a job: the folder that each attempt finds as the last one left it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedState {
    /// When the last snapshot was saved.
    pub saved_at: Option<Timestamp>,
    /// The size of its archive.
    pub bytes: u64,
    /// Whether the run began with what an earlier one had left.
    pub is_resumed: bool,
    /// Why the state could not be read or saved.
    pub problem: Option<Arc<str>>,
}

/// A count of what was consumed, which only grows. Several runs under one task id may go on with the same count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Count {
    /// Tells it from other counts. Empty where nothing was counted.
    pub id: Arc<str>,
    /// What was counted.
    pub usage: Usage,
}

/// What a run says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// What was consumed.
    pub count: Count,
    /// The job's state, if it has one.
    pub state: Option<SavedState>,
}

/// What all runs of a job have consumed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spent {
    /// By all counts before the last one.
    pub before: Usage,
    /// The last count.
    pub last: Count,
    /// When it was read.
    pub at: Timestamp,
}

/// What all runs of a job have said of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobAccount {
    /// What they have consumed.
    pub spent: Spent,
    /// What became of the job's state.
    pub state: Option<SavedState>,
}

impl JobAccount {
    /// Whether anything of what a run says is new.
    pub fn is_news(&self, Account { count, state }: &Account) -> bool {
        let is_spent = !count.usage.is_empty() && self.spent.last != *count;
        is_spent || state.as_ref().is_some_and(|state| self.state.as_ref() != Some(&self.with(state)))
    }

    /// The same when no run goes on.
    #[must_use]
    pub fn settled(self) -> Self {
        Self { spent: self.spent.settled(), ..self }
    }

    /// Takes what a run says.
    pub fn hear(&mut self, Account { count, state }: &Account, now: Timestamp) {
        self.spent.hear(count, now);
        if let Some(state) = state {
            self.state = Some(self.with(state));
        }
    }

    /// What is known of the state when a run says this: one that has saved nothing knows nothing of what is saved.
    fn with(&self, said: &SavedState) -> SavedState {
        match self.state.as_ref().filter(|_| said.saved_at.is_none()) {
            Some(known) => SavedState { saved_at: known.saved_at, bytes: known.bytes, ..said.clone() },
            None => said.clone(),
        }
    }
}

impl Account {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.count.usage.is_empty() && self.state.is_none()
    }
}

impl Spent {
    /// All of it.
    pub fn total(&self) -> Usage {
        let mut total = self.before.clone();
        total.add(&self.last.usage);
        total
    }

    /// The same when no more news of the last count is awaited.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { before: self.total(), last: Count::default(), at: self.at }
    }

    /// Takes the news of a count, or another one, which began with nothing.
    pub fn hear(&mut self, count: &Count, now: Timestamp) {
        if count.usage.is_empty() {
            return;
        }
        if self.last.id != count.id {
            self.before.add(&self.last.usage);
        }
        self.last = count.clone();
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::Consumed;
    use super::*;

    fn count(id: &str, input: u64) -> Count {
        Count { id: id.into(), usage: Usage::of("m", Consumed { input, ..Consumed::default() }) }
    }

    #[test]
    fn a_count_replaces_its_own_earlier_news_and_is_added_to_other_counts() {
        let mut spent = Spent::default();
        for (id, input, total) in [("a", 1, 1), ("a", 5, 5), ("b", 2, 7), ("b", 2, 7), ("b", 4, 9), ("c", 1, 10)] {
            spent.hear(&count(id, input), Timestamp::UNIX_EPOCH);
            assert_eq!(spent.total().total().input, total, "{id} {input}");
        }
        spent.hear(&Count::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(spent.total().total().input, 10, "no news");
    }
}
