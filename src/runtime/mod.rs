//! What every long-running command needs: clock, logs, metrics, the admin server, shutdown.

pub(crate) mod admin;
pub mod clock;
pub(crate) mod metrics;
pub(crate) mod shutdown;
pub(crate) mod telemetry;
