//! Files of lines, one a day for each replica: `crewjobs-2026-11-28-POD.jsonl`, and `….2.jsonl` when that has its size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::Error;

/// What the names of the files begin and end with.
const STEM: &str = "crewjobs-";
const END: &str = ".jsonl";
/// Bytes after which a file is followed by another one: the oldest file is what makes room.
const FILE: u64 = 64 << 20;

/// A folder with the files of all replicas.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// Bytes that all files may have together.
    limit: Option<u64>,
    replica: String,
    file: u64,
}

impl Folder {
    /// A folder, which is made when the first line is written.
    pub fn new(path: &Path, mib: u64, replica: &str) -> Self {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '-';
        let replica = replica.chars().map(|it| if is_plain(it) { it } else { '-' }).collect();
        let limit = Some(mib).filter(|mib| *mib > 0).map(|mib| mib.saturating_mul(1 << 20));
        let file = limit.map_or(FILE, |limit| FILE.min(limit / 4).max(1));
        Self { path: path.to_owned(), limit, replica, file }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes these lines: when this returns, they are on the disk.
    pub fn append(&self, lines: &str, now: Timestamp) -> Result<(), Error> {
        let failed = |act, path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { act, path, source }
        };
        fs::create_dir_all(&self.path).map_err(failed("creating", &self.path))?;
        let path = self.current(now).map_err(failed("listing", &self.path))?;
        let is_new = !path.exists();
        write(&path, lines).map_err(failed("writing", &path))?;
        if is_new {
            // The name of a new file is on the disk only when its folder is.
            File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(failed("writing", &self.path))?;
        }
        self.make_room(&path).map_err(failed("clearing", &self.path))
    }

    /// The file of today that is not full.
    fn current(&self, now: Timestamp) -> io::Result<PathBuf> {
        let stem = format!("{STEM}{}-{}", now.strftime("%Y-%m-%d"), self.replica);
        let last = files(&self.path)?.into_iter().rev().find_map(|path| {
            let (own, number) = numbered(&path);
            (own == stem).then_some((path, number))
        });
        match last {
            Some((path, _)) if fs::metadata(&path)?.len() < self.file => Ok(path),
            Some((_, number)) => Ok(self.path.join(format!("{stem}.{}{END}", number.saturating_add(1)))),
            None => Ok(self.path.join(format!("{stem}{END}"))),
        }
    }

    /// Deletes the oldest files beyond the limit, but not the one that was written last.
    fn make_room(&self, current: &Path) -> io::Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let measured = |path: PathBuf| fs::metadata(&path).map(|file| (path, file.len())).ok();
        let sizes: Vec<(PathBuf, u64)> = files(&self.path)?.into_iter().filter_map(measured).collect();
        let mut all: u64 = sizes.iter().map(|(_, size)| size).sum();
        for (path, size) in sizes {
            if all <= limit {
                break;
            }
            if path != current {
                fs::remove_file(&path)?;
                all -= size;
                tracing::warn!(file = %path.display(), "the archive has its size; its oldest file is deleted");
            }
        }
        Ok(())
    }
}

/// The files of an archive in this folder, the oldest first.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(STEM) && name.ends_with(END) {
            found.push(path);
        }
    }
    found.sort_by_cached_key(|path| numbered(path));
    Ok(found)
}

/// What a file is called without its number and its end, and its number: 2 of `x.2.jsonl`, 1 of `x.jsonl`.
fn numbered(path: &Path) -> (String, u32) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(END);
    match name.rsplit_once('.').and_then(|(stem, number)| Some((stem.to_owned(), number.parse().ok()?))) {
        Some(numbered) => numbered,
        None => (name.to_owned(), 1),
    }
}

/// Appends lines to a file and has them on the disk. A line that was cut off by a crash is ended first, and what cannot be
/// written whole is taken back.
fn write(path: &Path, lines: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    let mut last = [b'\n'];
    if before > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let end = if last == [b'\n'] { "" } else { "\n" };
    let written =
        file.write_all(end.as_bytes()).and_then(|()| file.write_all(lines.as_bytes())).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = file.set_len(before); // what stays is ended before the next line
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        files(folder).unwrap().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_day_and_a_replica_have_a_file() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("made/when/needed");
        let (a, b) = (Folder::new(&path, 1024, "operator-a"), Folder::new(&path, 1024, "../b"));
        a.append("1\n", at("2026-11-28T23:59:59Z")).unwrap();
        a.append("2\n3\n", at("2026-11-28T23:59:59Z")).unwrap();
        a.append("4\n", at("2026-11-29T00:00:00Z")).unwrap();
        b.append("5\n", at("2026-11-29T00:00:00Z")).unwrap();
        assert_eq!(
            names(&path),
            [
                "crewjobs-2026-11-28-operator-a.jsonl",
                "crewjobs-2026-11-29----b.jsonl",
                "crewjobs-2026-11-29-operator-a.jsonl"
            ]
        );
        assert_eq!(fs::read_to_string(path.join("crewjobs-2026-11-28-operator-a.jsonl")).unwrap(), "1\n2\n3\n");
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_spoils_no_other() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("crewjobs-2026-11-28-a.jsonl");
        fs::write(&file, "whole\ncut o").unwrap();
        Folder::new(temporary.path(), 1024, "a").append("next\n", at("2026-11-28T12:00:00Z")).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "whole\ncut o\nnext\n");
    }

    #[test]
    fn a_file_that_has_its_size_is_followed_by_another_and_the_oldest_make_room() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder { limit: Some(100), file: 25, ..Folder::new(temporary.path(), 1, "a") };
        for number in 10..40 {
            folder.append(&format!("line {number}\n"), at("2026-11-28T12:00:00Z")).unwrap();
        }
        assert_eq!(names(temporary.path()), [6, 7, 8].map(|number| format!("crewjobs-2026-11-28-a.{number}.jsonl")));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("a-file");
        fs::write(&file, "").unwrap();
        let error = Folder::new(&file, 1, "a").append("1\n", at("2026-11-28T12:00:00Z")).unwrap_err();
        assert_eq!(error.to_string(), format!("creating {}", file.display()));
    }
}
