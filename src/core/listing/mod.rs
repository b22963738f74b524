//! The jobs that the gateway's page lists: slim rows in a table, and what of them a query shows.
//!
//! The table is fed by one watch. It is bounded: a job costs at most about 3 kB, and no more jobs are held than it is told.

mod action;
mod changes;
mod filter;
mod order;
mod query;
mod row;
mod scope;
mod table;

pub use action::{Action, MOST};
pub use changes::Changes;
pub use filter::{FACETS, Facet, Filter, Fit};
pub use order::{By, Cursor, Order};
pub use query::Query;
pub use row::{LABELS, PHASES, Row, SHORT, TOPIC, cut};
pub use scope::Scope;
pub use table::{Page, Table};

#[cfg(test)]
mod tests;
