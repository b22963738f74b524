//! The limits of pools, counted along with each change of their jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::id::ObjectKey;
use super::super::super::limits::Ledger;
use super::entry::Entry;

/// The ledgers of the pools that have limits.
#[derive(Debug, Default)]
pub struct Ledgers {
    pub(super) by_pool: BTreeMap<ObjectKey, Ledger>,
    /// Whether in any of them a permit may be given that could not be before, whatever the time.
    pub(super) is_stirred: bool,
}

impl Ledgers {
    /// Counts along that a job came, changed or went. It may have another pool by now, as a job of the same name can.
    pub(super) fn change<F>(&mut self, key: &ObjectKey, before: Option<&Arc<str>>, now: Option<&Entry<F>>) {
        if self.by_pool.is_empty() {
            return;
        }
        let pool = |name: &Arc<str>| ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
        let after = now.map(|entry| &entry.job.spec.pool);
        if let Some(left) = before.filter(|left| after != Some(left))
            && let Some(ledger) = self.by_pool.get_mut(&pool(left))
        {
            ledger.remove(&key.name);
            self.is_stirred |= ledger.is_stirred();
        }
        if let Some(entry) = now
            && let Some(ledger) = self.by_pool.get_mut(&pool(&entry.job.spec.pool))
        {
            ledger.note(&entry.job, entry.is_out());
            self.is_stirred |= ledger.is_stirred();
        }
    }
}
