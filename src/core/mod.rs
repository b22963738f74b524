//! The core layer.
