//! Hands messages to what a native worker does with them. `make fuzz` runs it on the recorded messages.
#![no_main]

#[path = "../task.rs"]
mod task;

libfuzzer_sys::fuzz_target!(|data: &[u8]| task::message(data));
