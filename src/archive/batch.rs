//! Lines that are written at once, and the jobs that may be deleted after that.

/// Lines in a batch.
const LINES: usize = 1000;
/// Bytes of a batch to which no further line is added.
const BYTES: usize = 4 << 20;

/// A job that is deleted once its line is kept, as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub version: String,
}

/// Lines that are not kept yet.
#[derive(Debug, Default)]
pub struct Batch {
    lines: String,
    jobs: Vec<Listed>,
}

impl Batch {
    /// Adds a job and its line; without one where its line is kept already.
    pub fn add(&mut self, job: Listed, line: &str) {
        self.lines.push_str(line);
        self.jobs.push(job);
    }

    /// Whether it is to be written before another job is added. It takes no more memory than this and one line.
    pub fn is_full(&self) -> bool {
        self.jobs.len() >= LINES || self.lines.len() >= BYTES
    }

    /// The lines.
    pub fn lines(&self) -> &str {
        &self.lines
    }

    /// The jobs that may be deleted now that the lines are kept.
    pub fn into_jobs(self) -> Vec<Listed> {
        self.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Listed {
        Listed { namespace: "team".into(), name: "tea".into(), uid: "7".into(), version: "1".into() }
    }

    #[test]
    fn a_batch_is_full_at_a_thousand_lines_or_four_mebibytes() {
        let mut many = Batch::default();
        for _ in 1..LINES {
            many.add(job(), "{}\n");
        }
        assert!(!many.is_full());
        many.add(job(), "");
        assert!(many.is_full());
        let mut large = Batch::default();
        large.add(job(), &"x".repeat(BYTES));
        assert!(large.is_full());
    }
}
