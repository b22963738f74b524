//! Hands bytes to the decoder that their first byte names. `make fuzz` runs it on the recorded messages.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((decoder, bytes)) = data.split_first() {
        exercise::decoder(*decoder, bytes);
    }
});
