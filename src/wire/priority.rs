//! Priorities. Celery on Redis has a list per band of priorities; **0 is the most urgent**, 9 the least.

use super::json::{Number, Value};

/// kombu's separator, between a queue and its band and between the parts of a binding.
pub const SEPARATOR: &str = "\u{6}\u{16}";

/// The bands of a queue: kombu's transport options `priority_steps` and `sep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bands {
    steps: Vec<u8>,
    separator: String,
}

/// Why bands are not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBands {
    /// There is no step.
    #[error("there must be at least one priority step")]
    NoSteps,
    /// The steps do not increase.
    #[error("priority steps must increase: {0} follows {1}")]
    NotIncreasing(u8, u8),
    /// A message is never put there.
    #[error("priority step {0} is above 9, the largest priority there is")]
    TooLarge(u8),
}

impl Bands {
    /// Bands that start at the given priorities, for example `[0, 3, 6, 9]`.
    pub fn new(steps: Vec<u8>, separator: impl Into<String>) -> Result<Self, InvalidBands> {
        if steps.is_empty() {
            return Err(InvalidBands::NoSteps);
        }
        if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(InvalidBands::NotIncreasing(pair[1], pair[0]));
        }
        if let Some(step) = steps.iter().find(|step| **step > 9) {
            return Err(InvalidBands::TooLarge(*step));
        }
        Ok(Self { steps, separator: separator.into() })
    }

    /// The step of a message's priority: the largest that is not above it. No priority means 0.
    pub fn step(&self, priority: Option<i64>) -> u8 {
        let priority = priority.unwrap_or(0).clamp(0, 9);
        let below = self.steps.partition_point(|step| i64::from(*step) <= priority);
        // kombu indexes with `bisect(steps, n) - 1`, and Python's index -1 is the last one.
        let index = below.checked_sub(1).unwrap_or(self.steps.len() - 1);
        self.steps[index]
    }

    /// The list that holds messages of `queue` with this priority.
    pub fn key(&self, queue: &str, priority: Option<i64>) -> String {
        self.key_of_step(queue, self.step(priority))
    }

    /// All lists of `queue`, the most urgent first.
    pub fn keys(&self, queue: &str) -> Vec<String> {
        self.steps.iter().map(|step| self.key_of_step(queue, *step)).collect()
    }

    /// The order in which a worker looks into the lists of its queues: by band first, then by queue.
    pub fn pop_order(&self, queues: &[&str]) -> Vec<String> {
        self.steps.iter().flat_map(|step| queues.iter().map(|queue| self.key_of_step(queue, *step))).collect()
    }

    /// The steps in increasing order.
    pub fn steps(&self) -> &[u8] {
        &self.steps
    }

    /// What stands between the queue and the step.
    pub fn separator(&self) -> &str {
        &self.separator
    }

    fn key_of_step(&self, queue: &str, step: u8) -> String {
        if step == 0 { queue.to_owned() } else { format!("{queue}{}{step}", self.separator) }
    }
}

impl Default for Bands {
    /// kombu's own: 0, 3, 6 and 9, separated by the bytes 06 16.
    fn default() -> Self {
        Self { steps: vec![0, 3, 6, 9], separator: SEPARATOR.to_owned() }
    }
}

/// What kombu makes of `properties.priority`: Python's `int()` of it.
pub(super) fn read(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.truncated(),
        Value::String(text) => read_text(text),
        Value::Bool(value) => Some((*value).into()),
        Value::Null | Value::Array(_) | Value::Object(_) | Value::Verbatim(_) => None,
    }
}

pub(super) fn read_text(text: &str) -> Option<i64> {
    Number::parse(text.trim()).filter(Number::is_integer)?.truncated()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_fall_into_the_bands_of_kombu() {
        let bands = Bands::default();
        for (priorities, key) in [
            (vec![-1, 0, 1, 2], "crew_jobs"),
            (vec![3, 4, 5], "crew_jobs\u{6}\u{16}3"),
            (vec![6, 7, 8], "crew_jobs\u{6}\u{16}6"),
            (vec![9, 10, 11, 255, i64::MAX], "crew_jobs\u{6}\u{16}9"),
        ] {
            for priority in priorities {
                assert_eq!(bands.key("crew_jobs", Some(priority)), key, "{priority}");
            }
        }
        assert_eq!(bands.key("crew_jobs", None), "crew_jobs");
    }

    #[test]
    fn workers_look_into_urgent_bands_of_all_queues_first() {
        let bands = Bands::new(vec![0, 5], ":").unwrap();
        assert_eq!(bands.pop_order(&["a", "b"]), ["a", "b", "a:5", "b:5"]);
        assert_eq!(bands.keys("a"), ["a", "a:5"]);
    }

    #[test]
    fn a_priority_below_the_first_step_falls_into_the_last_band() {
        let bands = Bands::new(vec![3, 6], ":").unwrap();
        assert_eq!(bands.key("q", Some(0)), "q:6");
        assert_eq!(bands.key("q", Some(4)), "q:3");
    }

    #[test]
    fn unusable_steps_are_refused() {
        assert_eq!(Bands::new(vec![], ":"), Err(InvalidBands::NoSteps));
        assert_eq!(Bands::new(vec![3, 3], ":"), Err(InvalidBands::NotIncreasing(3, 3)));
        assert_eq!(Bands::new(vec![0, 10], ":"), Err(InvalidBands::TooLarge(10)));
    }
}
