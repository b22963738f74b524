//! How often tasks of one name may begin. Pure: `now` is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The rate limits that were set by remote control.
#[derive(Debug, Clone, Default)]
pub struct Rates(BTreeMap<String, Rate>);

#[derive(Debug, Clone)]
struct Rate {
    text: String,
    interval: Duration,
    next: Timestamp,
}

impl Rates {
    /// Sets a limit, or takes it off.
    pub fn set(&mut self, task: String, text: String, per_second: Option<f64>, now: Timestamp) {
        let interval = per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        match interval {
            Some(interval) => drop(self.0.insert(task, Rate { text, interval, next: now })),
            None => drop(self.0.remove(&task)),
        }
    }

    /// Whether a task may begin now, which counts, or how long it has to wait.
    pub fn begin(&mut self, task: &str, now: Timestamp) -> Option<Duration> {
        let rate = self.0.get_mut(task)?;
        if rate.next > now {
            return Some(rate.next.duration_since(now).unsigned_abs());
        }
        rate.next = now.checked_add(rate.interval).unwrap_or(Timestamp::MAX);
        None
    }

    /// Takes back that a task has begun: it has not.
    pub fn give_back(&mut self, task: &str) {
        if let Some(rate) = self.0.get_mut(task) {
            rate.next = rate.next.checked_sub(rate.interval).unwrap_or(Timestamp::MIN);
        }
    }

    /// The limits as they were set, by task.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(task, rate)| (task.clone(), rate.text.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_task_begins_as_often_as_it_may_and_others_at_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut rates = Rates::default();
        rates.set("slow".into(), "6/m".into(), Some(0.1), at(0));
        assert_eq!(rates.begin("slow", at(0)), None);
        assert_eq!(rates.begin("slow", at(4)), Some(Duration::from_secs(6)));
        assert_eq!(rates.begin("other", at(4)), None);
        assert_eq!(rates.begin("slow", at(10)), None);
        rates.give_back("slow");
        assert_eq!(rates.begin("slow", at(11)), None, "what has not begun does not count");
        assert_eq!(rates.begin("slow", at(12)), Some(Duration::from_secs(9)));
        assert_eq!(rates.texts()["slow"], "6/m");
        rates.set("slow".into(), String::new(), None, at(12));
        assert_eq!(rates.begin("slow", at(12)), None);
    }
}
