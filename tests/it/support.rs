//! What tests start.

pub mod gate;
pub mod redis;
