//! The file to which a command may write its result.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::values::Printed;
use crate::worker::scratch;

/// The file of one run. It does not exist until the command writes it, and is removed when this is dropped.
pub(super) struct ResultFile(Option<PathBuf>);

impl ResultFile {
    /// A name that no other run has; none if there is no place for temporary files.
    pub(super) fn new() -> Self {
        Self(scratch::path())
    }

    /// Where it is.
    pub(super) fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// What the command has written, if it has written anything but blanks. At most `limit` bytes.
    pub(super) fn read(&self, limit: usize) -> Option<Printed> {
        let path = self.path()?;
        // To open anything else, such as a named pipe, could block.
        if !fs::symlink_metadata(path).ok()?.is_file() {
            return None;
        }
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut text = Vec::new();
        let read = fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut text));
        if let Err(error) = read {
            tracing::warn!(path = %path.display(), %error, "reading the file of a result failed; standard output counts");
            return None;
        }
        if text.len() > limit {
            return Some(Printed::TooLarge(limit));
        }
        (!text.trim_ascii().is_empty()).then_some(Printed::Text(text))
    }
}

impl Drop for ResultFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Usually it is not there.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_within_its_bound_and_removed() {
        let file = ResultFile::new();
        let path = file.path().unwrap().to_owned();
        assert_eq!(file.read(3), None);
        for (text, read) in [
            ("", None),
            (" \n", None),
            ("abc", Some(Printed::Text("abc".into()))),
            ("abcd", Some(Printed::TooLarge(3))),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(file.read(3), read, "{text:?}");
        }
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let file = ResultFile::new();
        std::os::unix::fs::symlink("/etc/hostname", file.path().unwrap()).unwrap();
        assert_eq!(file.read(100), None);
    }
}
