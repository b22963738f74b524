//! What every request has at hand.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::body::Room;
use super::caller::Callers;
use super::config::Mcp;
use super::form::Fields;
use super::limit::Limiter;
use super::metrics::Metrics;
use super::page::Desk;
use super::upstream::Upstream;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::gateway::seats::{Full, Seats};

/// The gateway.
pub struct Gateway {
    /// What all paths begin with.
    pub prefix: String,
    /// Namespace of jobs that name none.
    pub home: String,
    /// Which caller a request is of.
    pub callers: Arc<Callers>,
    /// How many requests each may make.
    pub limiter: Limiter,
    /// The room for bodies.
    pub room: Room,
    /// The API server.
    pub upstream: Upstream,
    /// What a job can be submitted with.
    pub fields: Fields,
    /// What the page needs, where it is enabled.
    pub desk: Option<Desk>,
    /// Which tools agents are offered.
    pub mcp: Mcp,
    /// The description of the interface.
    pub openapi: axum::body::Bytes,
    /// Streams that are open.
    pub seats: Mutex<Seats>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when no further request is served.
    pub stop: CancellationToken,
}

/// A stream that is open, until this is dropped.
pub struct Seat {
    gateway: Arc<Gateway>,
    caller: String,
}

impl Gateway {
    /// Opens a stream of a caller.
    pub fn seat(self: &Arc<Self>, caller: &str) -> Result<Seat, Problem> {
        let taken = self.seats.lock().take(caller);
        taken.map_err(|full| {
            let detail = match full {
                Full::InAll(count) => format!("this replica has {count} open, which is as many as it may"),
                Full::OfOne(count) => {
                    format!("this caller has {count} open at this replica, which is as many as it may")
                }
            };
            Problem::new(Kind::TooManyStreams, detail).again_after(std::time::Duration::from_secs(5))
        })?;
        self.metrics.streams.inc();
        Ok(Seat { gateway: self.clone(), caller: caller.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gateway.seats.lock().leave(&self.caller);
        self.gateway.metrics.streams.dec();
    }
}
