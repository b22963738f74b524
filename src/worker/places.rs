//! Where ends of runs are marked on Redis, so that one that is repeated has no second effect.

use parking_lot::Mutex;

/// Places of one worker: as many as ends that it has brought about at once.
#[derive(Debug)]
pub struct Places {
    worker: String,
    free: Mutex<(Vec<u32>, u32)>,
}

/// A place for one end, until its answer was heard.
#[derive(Debug)]
pub struct Place<'a> {
    number: u32,
    of: &'a Places,
}

impl Places {
    /// Places of a worker with this id.
    pub fn of(worker: String) -> Self {
        Self { worker, free: Mutex::default() }
    }

    /// A place that is free.
    pub fn take(&self) -> Place<'_> {
        let mut free = self.free.lock();
        let number = free.0.pop().unwrap_or_else(|| {
            free.1 += 1;
            free.1
        });
        Place { number, of: self }
    }
}

impl Place<'_> {
    /// Its name.
    pub fn name(&self) -> String {
        format!("{}:{}", self.of.worker, self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.free.lock().0.push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ends_at_once_are_marked_at_two_places_and_one_after_the_other_at_one() {
        let places = Places::of("w".into());
        let (first, second) = (places.take(), places.take());
        assert_eq!([first.name(), second.name()], ["w:1", "w:2"]);
        drop(second);
        assert_eq!(places.take().name(), "w:2");
    }
}
