//! The headers by which a trace goes on from one process to the next: W3C Trace Context.
//!
//! OpenTelemetry's instrumentation of Celery reads and writes them at the top level of a message's headers.

use std::fmt;

use super::json::{Object, Value};

/// The header that names the span that a message comes from.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what vendors add to it.
pub const TRACESTATE: &str = "tracestate";

/// Longest value of [`TRACESTATE`] that has to be passed on.
const LONGEST_STATE: usize = 512;

/// A span, as the header [`TRACEPARENT`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id, never 0.
    pub trace: u128,
    /// Span id, never 0.
    pub span: u64,
    /// Whether the sender records its spans.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`. A later version may have more after that.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (trace, rest) = rest.split_once('-')?;
        let (span, rest) = rest.split_once('-')?;
        let (flags, further) = rest.split_once('-').map_or((rest, None), |(flags, further)| (flags, Some(further)));
        let is_known = version == "00" && further.is_none() || version != "00" && version != "ff";
        (is_known && hex(version, 2).is_some()).then_some(())?;
        let (trace, span, flags) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?, hex(flags, 2)?);
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// So many lower-case hex digits, at most 32.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// What the headers of a message say of its trace, to be passed on: the two headers, as far as they are well-formed.
pub fn passed_on(headers: &Object) -> Object {
    let text = |name| headers.get(name).and_then(Value::as_str);
    let Some(parent) = text(TRACEPARENT).filter(|text| TraceParent::parse(text).is_some()) else {
        return Object::new();
    };
    let state =
        text(TRACESTATE).filter(|text| text.len() <= LONGEST_STATE && text.bytes().all(|b| (b' '..=b'~').contains(&b)));
    let passed = Object::new().with(TRACEPARENT, parent);
    match state {
        Some(state) => passed.with(TRACESTATE, state),
        None => passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says_and_written_back() {
        let read = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!((read.trace, read.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(read.is_sampled);
        assert_eq!(read.to_string(), EXAMPLE);
        let unsampled = EXAMPLE.replace("-01", "-00");
        assert_eq!(TraceParent::parse(&unsampled).unwrap().to_string(), unsampled);
        assert!(TraceParent::parse(&EXAMPLE.replace("-01", "-03")).unwrap().is_sampled, "other flags may be set");
        let later = format!("{}-more", EXAMPLE.replacen("00", "cc", 1));
        assert_eq!(TraceParent::parse(&later), Some(read), "later versions begin alike");
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let upper = EXAMPLE.to_uppercase();
        let long = format!("{EXAMPLE}-more");
        let version_ff = EXAMPLE.replacen("00", "ff", 1);
        let no_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let no_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let sign = EXAMPLE.replacen("00f0", "+0f0", 1);
        for text in ["", "-", "00", &upper, &long, &version_ff, &no_trace, &no_span, &sign, &EXAMPLE[1..], "00-é"] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_well_formed_headers_are_passed_on() {
        let both = Object::new().with("traceparent", EXAMPLE).with("tracestate", "a=b").with("other", 1);
        assert_eq!(passed_on(&both), Object::new().with("traceparent", EXAMPLE).with("tracestate", "a=b"));
        let without_parent = Object::new().with("tracestate", "a=b");
        let no_text = Object::new().with("traceparent", 1);
        let malformed = Object::new().with("traceparent", "x\0y").with("tracestate", "a=b");
        for headers in [without_parent, no_text, malformed] {
            assert_eq!(passed_on(&headers), Object::new(), "{headers:?}");
        }
        for state in ["a\0b".to_owned(), "a".repeat(513)] {
            let headers = Object::new().with("traceparent", EXAMPLE).with("tracestate", state);
            assert_eq!(passed_on(&headers), Object::new().with("traceparent", EXAMPLE));
        }
    }
}
