//! Streams that are open at once: so many in all, and so many of one caller, so that a caller leaves room for others.

use std::collections::HashMap;

/// The streams that are open.
#[derive(Debug)]
pub struct Seats {
    in_all: usize,
    of_one: usize,
    taken: usize,
    by_caller: HashMap<String, usize>,
}

/// Why no further stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The process has so many.
    InAll(usize),
    /// The caller has so many.
    OfOne(usize),
}

impl Seats {
    /// Room for so many, and so many of one caller.
    pub fn new(in_all: usize, of_one: usize) -> Self {
        Self { in_all, of_one, taken: 0, by_caller: HashMap::new() }
    }

    /// Streams that are open.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Opens one.
    pub fn take(&mut self, caller: &str) -> Result<(), Full> {
        let own = self.by_caller.get(caller).copied().unwrap_or(0);
        if own >= self.of_one {
            return Err(Full::OfOne(self.of_one));
        }
        if self.taken >= self.in_all {
            return Err(Full::InAll(self.in_all));
        }
        self.taken += 1;
        self.by_caller.insert(caller.to_owned(), own + 1);
        Ok(())
    }

    /// Closes one.
    pub fn leave(&mut self, caller: &str) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(own) = self.by_caller.get_mut(caller) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_caller.remove(caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_takes_all_it_may_leaves_room_for_others_and_a_closed_stream_makes_room() {
        let mut seats = Seats::new(3, 2);
        assert_eq!([seats.take("a"), seats.take("a"), seats.take("a")], [Ok(()), Ok(()), Err(Full::OfOne(2))]);
        assert_eq!([seats.take("b"), seats.take("c")], [Ok(()), Err(Full::InAll(3))]);
        seats.leave("a");
        assert_eq!((seats.take("c"), seats.taken()), (Ok(()), 3));
        for caller in ["a", "b", "c"] {
            seats.leave(caller);
        }
        assert!(seats.taken() == 0 && seats.by_caller.is_empty());
    }
}
