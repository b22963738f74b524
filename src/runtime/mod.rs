//! What every long-running command needs: clock, logs, metrics, the admin server, shutdown.

pub mod admin;
pub mod clock;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
