use super::arguments::Refusal;
use crate::wire::Value;

const SIGTERM: i32 = 15;

/// Linux's, which are numbered from 1 in this order on the machines that containers run on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The number of a signal that is given by name, with or without `SIG`, or by number; SIGTERM if it is not.
pub(super) fn number(signal: Option<&Value>) -> Result<i32, Refusal> {
    match signal {
        None => Ok(SIGTERM),
        Some(Value::String(name)) if name.is_empty() => Ok(SIGTERM),
        Some(Value::String(name)) if is_upper(name) => by_name(name),
        Some(value) => match value.as_i64() {
            Some(0) => Ok(SIGTERM),
            Some(number @ 1..=64) => Ok(i32::try_from(number).unwrap_or(SIGTERM)),
            Some(_) => Err(Refusal("OSError(22, 'Invalid argument')".to_owned())),
            None => Err(Refusal::new("TypeError", "signal name must be uppercase string.")),
        },
    }
}

fn by_name(name: &str) -> Result<i32, Refusal> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let number = NAMES.iter().zip(1..).find_map(|(known, number)| (*known == short).then_some(number));
    number.ok_or_else(|| Refusal::new("AttributeError", &format!("module 'signal' has no attribute 'SIG{short}'")))
}

/// Python's `str.isupper`, for names of signals.
fn is_upper(name: &str) -> bool {
    name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase)
}
