//! What tests start.

pub mod redis;
