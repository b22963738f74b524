//! The operator layer.
