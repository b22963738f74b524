//! What happened, in order, for the reader of a failing seed.

use std::fmt;

/// Lines with their time.
#[derive(Debug)]
pub struct Story {
    told: bool,
    lines: Vec<(i64, String)>,
}

impl Story {
    pub fn new(told: bool) -> Self {
        Self { told, lines: Vec::new() }
    }

    /// Whether it is going to be read.
    pub fn is_told(&self) -> bool {
        self.told
    }

    pub fn tell(&mut self, millis: i64, line: String) {
        self.lines.push((millis, line));
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (millis, line) in &self.lines {
            writeln!(f, "{:>4}.{:03}  {line}", millis / 1_000, millis % 1_000)?;
        }
        Ok(())
    }
}
