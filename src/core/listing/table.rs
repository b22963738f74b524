//! The jobs that are known, and the page of them that a query asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Changes, Cursor, FACETS, Facet, Filter, Fit, Query, Row, Scope};
use crate::core::index::Names;

/// Values of a facet that a page offers: those that most jobs have.
const OFFERED: usize = 100;

/// Values, each with the number of jobs that have it.
pub type Counts = Vec<(Arc<str>, usize)>;

/// A part of the jobs that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The jobs.
    pub rows: Vec<Arc<Row>>,
    /// How many are meant in all.
    pub total: usize,
    /// How many of them come before this page.
    pub before: usize,
    /// Behind which place the next page begins; `None` for the last page.
    pub next: Option<Cursor>,
    /// For each facet its values, and how many jobs have them that fit otherwise: the most frequent first.
    pub facets: Vec<(Facet, Counts)>,
}

#[derive(Debug)]
struct Entry {
    row: Arc<Row>,
    /// The list in which it was seen last.
    list: u64,
}

/// The jobs that are known.
#[derive(Debug)]
pub struct Table {
    by_namespace: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Entry>>,
    count: usize,
    most: usize,
    /// Jobs that found no room since the last list.
    omitted: usize,
    list: u64,
    names: Names,
    changes: Changes,
}

impl Table {
    /// A table that holds at most so many jobs.
    pub fn holding(most: usize) -> Self {
        Self {
            by_namespace: BTreeMap::new(),
            count: 0,
            most,
            omitted: 0,
            list: 0,
            names: Names::default(),
            changes: Changes::default(),
        }
    }

    /// A list begins. Its number is for `complete`.
    pub fn begin(&mut self) -> u64 {
        self.list += 1;
        self.omitted = 0;
        self.list
    }

    /// A job is there, or has changed. One for which there is no room is counted only.
    pub fn apply(&mut self, mut row: Row) {
        let texts = [&mut row.namespace, &mut row.phase, &mut row.reason, &mut row.pool, &mut row.queue, &mut row.task];
        let labels = row.labels.iter_mut().flat_map(|(name, value)| [name, value]);
        for text in texts.into_iter().chain(labels).chain(row.worker.as_mut()).chain(row.error.as_mut()) {
            self.names.share(text);
        }
        let known = self.by_namespace.get_mut(&row.namespace).and_then(|jobs| jobs.get_mut(&row.name));
        match known {
            Some(entry) => {
                entry.list = self.list;
                if *entry.row != row {
                    let before = std::mem::replace(&mut entry.row, Arc::new(row));
                    self.changes.note(entry.row.clone(), Some(before));
                }
            }
            None if self.count >= self.most => self.omitted += 1,
            None => {
                let row = Arc::new(row);
                self.changes.note(row.clone(), None);
                self.count += 1;
                let jobs = self.by_namespace.entry(row.namespace.clone()).or_default();
                jobs.insert(row.name.clone(), Entry { row, list: self.list });
            }
        }
    }

    /// A job is gone.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let Some(jobs) = self.by_namespace.get_mut(namespace) else { return };
        let Some(entry) = jobs.remove(name) else { return };
        if jobs.is_empty() {
            self.by_namespace.remove(namespace);
        }
        self.count -= 1;
        self.changes.note(entry.row, None);
    }

    /// A list of a namespace, or of all, is complete: what was not seen since it began is gone.
    pub fn complete(&mut self, list: u64, namespace: Option<&str>) {
        let listed = self.by_namespace.iter().filter(|(known, _)| namespace.is_none_or(|it| it == &***known));
        let entries = listed.flat_map(|(_, jobs)| jobs.values());
        let gone: Vec<Arc<Row>> = entries.filter(|entry| entry.list < list).map(|entry| entry.row.clone()).collect();
        for row in gone {
            self.remove(&row.namespace, &row.name);
        }
    }

    /// How many jobs it holds.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Jobs that found no room. They are not in any page.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// What has changed of late.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The namespaces that have jobs, and that the filter means.
    pub fn namespaces(&self, filter: &Filter) -> Vec<Arc<str>> {
        let is_meant =
            |it: &&Arc<str>| filter.namespaces.is_empty() || filter.namespaces.iter().any(|ns| **ns == ***it);
        self.by_namespace.keys().filter(is_meant).cloned().collect()
    }

    fn rows(&self, scope: &Scope) -> impl Iterator<Item = &Arc<Row>> {
        let in_scope = self.by_namespace.iter().filter(|(namespace, _)| scope.has(namespace));
        in_scope.flat_map(|(_, jobs)| jobs.values()).map(|entry| &entry.row)
    }

    /// The jobs that are meant, in the order of their names.
    pub fn meant(&self, filter: &Filter, scope: &Scope) -> Vec<Arc<Row>> {
        self.rows(scope).filter(|row| filter.means(row)).cloned().collect()
    }

    /// The jobs by name, as far as they are known and in scope.
    pub fn get(&self, namespace: &str, name: &str, scope: &Scope) -> Option<Arc<Row>> {
        let entry = self.by_namespace.get(namespace)?.get(name)?;
        scope.has(namespace).then(|| entry.row.clone())
    }

    /// The page that is asked for.
    pub fn page(&self, query: &Query, scope: &Scope) -> Page {
        let mut meant = Vec::new();
        let mut counts: BTreeMap<Facet, BTreeMap<&Arc<str>, usize>> = BTreeMap::new();
        let mut count = |facet: Facet, row| {
            *counts.entry(facet).or_default().entry(value(facet, row)).or_default() += 1;
        };
        for row in self.rows(scope) {
            match query.filter.fit(row) {
                Fit::Whole => {
                    meant.push(row);
                    for facet in FACETS {
                        count(facet, row);
                    }
                }
                Fit::But(facet) => count(facet, row),
                Fit::Not => {}
            }
        }
        meant.sort_unstable_by(|one, other| query.order.compare(one, other));
        let before =
            query.after.as_ref().map_or(0, |cursor| meant.partition_point(|row| !query.order.is_behind(row, cursor)));
        let rows: Vec<Arc<Row>> = meant[before..].iter().take(query.limit).map(|row| Arc::clone(row)).collect();
        let is_last = before + rows.len() >= meant.len();
        let next = rows.last().filter(|_| !is_last).map(|row| query.order.cursor(row));
        let facets = FACETS.into_iter().map(|facet| (facet, offered(counts.remove(&facet).unwrap_or_default())));
        Page { total: meant.len(), before, next, facets: facets.collect(), rows }
    }
}

fn value(facet: Facet, row: &Row) -> &Arc<str> {
    match facet {
        Facet::Namespace => &row.namespace,
        Facet::Pool => &row.pool,
        Facet::Phase => &row.phase,
        Facet::Reason => &row.reason,
    }
}

fn offered(counts: BTreeMap<&Arc<str>, usize>) -> Counts {
    let mut counts: Vec<_> = counts.into_iter().filter(|(value, _)| !value.is_empty()).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(OFFERED);
    counts.into_iter().map(|(value, count)| (value.clone(), count)).collect()
}
