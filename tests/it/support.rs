//! What tests start.

pub mod compressed;
pub mod gate;
pub mod monitor;
pub mod redis;
