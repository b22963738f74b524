//! What every long-running command needs: clock, back-off, logs, metrics, the admin server, shutdown.

pub(crate) mod admin;
pub(crate) mod backoff;
pub mod clock;
pub(crate) mod logs;
pub mod metrics;
pub(crate) mod shutdown;
pub(crate) mod telemetry;
pub(crate) mod traces;
