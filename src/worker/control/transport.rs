//! The names of keys and bands, as kombu's transport options have them.

use crate::wire::Object;
use crate::worker::config::Config;

/// What Celery shows of a setting whose name has `key` in it.
pub(super) const MASK: &str = "********";

/// What kombu calls the names of keys. `shown` is what is shown of an option whose name has `key` in it.
pub(super) fn transport_options(config: &Config, shown: impl Fn(&str) -> String) -> Object {
    let steps: Vec<i64> = config.priority_steps.iter().map(|step| i64::from(*step)).collect();
    let mut options = Object::new()
        .with("visibility_timeout", config.visibility_timeout)
        .with("priority_steps", steps)
        .with("sep", config.separator.as_str())
        .with("unacked_key", shown(&config.unacked_key));
    if !config.global_keyprefix.is_empty() {
        options.insert("global_keyprefix", shown(&config.global_keyprefix));
    }
    options
}

/// The same of the results.
pub(super) fn result_options(config: &Config) -> Object {
    let prefix = config.result_keyprefix.as_ref().unwrap_or(&config.global_keyprefix);
    if prefix.is_empty() { Object::new() } else { Object::new().with("global_keyprefix", MASK) }
}
