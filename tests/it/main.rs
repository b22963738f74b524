//! One test binary; the file name states the level.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod api_reference;
mod apiserver;
mod architecture;
mod channel;
mod circles;
mod control_plane;
mod documents;
mod generated;
mod golden_wire;
mod krew;
mod metrics_reference;
mod redis;
mod support;
mod words;
mod worker;
