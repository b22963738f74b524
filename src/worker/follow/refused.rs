use crate::worker::outcome::Failure;

/// Why something cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) kind: &'static str,
    pub(super) why: String,
}

impl Refused {
    pub(super) fn chord() -> Self {
        Self::unsupported("the sending of chords")
    }

    pub(super) fn unsupported(what: &str) -> Self {
        Self { kind: "NotImplementedError", why: format!("this worker does not take part in {what}") }
    }

    pub(super) fn malformed(why: impl Into<String>) -> Self {
        Self { kind: "ValueError", why: why.into() }
    }
}

impl From<Refused> for Failure {
    fn from(Refused { kind, why }: Refused) -> Self {
        Self::new("builtins", kind, why)
    }
}
