//! One copy of each name that many jobs share: of a namespace, a pool, a queue or a task.

use std::collections::HashSet;
use std::sync::Arc;

/// How many names there may be before unused ones are dropped for the first time.
const SWEEP_AT: usize = 1024;

/// Names that are in use.
#[derive(Debug)]
pub struct Names {
    known: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_AT }
    }
}

impl Names {
    /// Makes `name` the one copy of itself.
    pub fn share(&mut self, name: &mut Arc<str>) {
        if let Some(known) = self.known.get(name) {
            *name = known.clone();
            return;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = (self.known.len() * 2).max(SWEEP_AT);
        }
        self.known.insert(name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_copy() {
        let mut names = Names::default();
        let (mut one, mut other): (Arc<str>, Arc<str>) = ("default".into(), "default".into());
        names.share(&mut one);
        names.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn names_that_no_job_has_any_more_are_dropped() {
        let mut names = Names::default();
        let mut used: Arc<str> = "used".into();
        names.share(&mut used);
        for n in 0..10 * SWEEP_AT {
            names.share(&mut format!("pool-{n}").into());
        }
        assert!(names.known.len() <= SWEEP_AT && names.known.contains("used"));
    }
}
