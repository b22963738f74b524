//! A folder as a compressed archive, and back: the format `tar`, compressed with gzip.
//!
//! Only plain files and folders are in it. What else a program puts there (links, pipes, devices) is left out, and an
//! archive that holds anything else, or a path outside, is refused: another program may have written it.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use tar::{Archive, Builder, EntryType, Header};

/// Most files and folders of a state.
const ENTRIES: usize = 10_000;
/// How deep folders may be nested.
const DEEPEST: usize = 32;
/// How much larger than its archive a state may be: what compresses better was made to fill a disk.
const RATIO: u64 = 100;

/// Why a state is not saved or not read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is too large.
    #[error("the state has more than {0} bytes when it is compressed")]
    TooLarge(u64),
    /// It is larger than what it was compressed to can hold.
    #[error("the state has more than {0} bytes when it is decompressed")]
    TooLargeInside(u64),
    /// It has too many parts.
    #[error("the state has more than {ENTRIES} files, or folders nested deeper than {DEEPEST}")]
    TooMany,
    /// It changed whenever it was copied.
    #[error("the state changed while it was copied")]
    Changing,
    /// It holds what no program of ours writes.
    #[error("the saved state holds {0:?}, which is no plain file or folder inside it")]
    Foreign(PathBuf),
    /// It cannot be read or written.
    #[error("{act} of the state: {source}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// What was seen.
        #[source]
        source: io::Error,
    },
}

/// What a folder held when it was looked at: each path with size and time of the last change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory(BTreeMap<PathBuf, (u64, SystemTime)>);

impl Inventory {
    /// Looks at a folder.
    pub fn of(folder: &Path) -> Result<Self, ArchiveError> {
        let mut found = BTreeMap::new();
        let mut folders = vec![(folder.to_owned(), 0)];
        while let Some((at, depth)) = folders.pop() {
            for entry in fs::read_dir(&at).map_err(io("reading a folder"))? {
                let path = entry.map_err(io("reading a folder"))?.path();
                // What was removed since is not there.
                let Ok(about) = fs::symlink_metadata(&path) else { continue };
                let is_folder = about.is_dir();
                if !is_folder && !about.is_file() {
                    continue;
                }
                if found.len() == ENTRIES || depth == DEEPEST {
                    return Err(ArchiveError::TooMany);
                }
                let size = if is_folder { 0 } else { about.len() };
                found.insert(relative(folder, &path), (size, changed_at(&about)));
                if is_folder {
                    folders.push((path, depth + 1));
                }
            }
        }
        Ok(Self(found))
    }

    /// Whether nothing has changed for so long before `now`.
    pub fn is_at_rest(&self, now: SystemTime, time: Duration) -> bool {
        let is_old = |changed: &SystemTime| now.duration_since(*changed).is_ok_and(|age| age >= time);
        self.0.values().all(|(_, changed)| is_old(changed))
    }
}

/// Writes what the inventory lists into an archive of at most `limit` bytes. An error, and not half an archive, where the
/// folder has changed meanwhile.
pub fn pack(folder: &Path, inventory: &Inventory, out: impl Write, limit: u64) -> Result<(), ArchiveError> {
    let most = limit.saturating_mul(RATIO);
    if inventory.0.values().map(|(size, _)| *size).fold(0, u64::saturating_add) > most {
        return Err(ArchiveError::TooLargeInside(most));
    }
    let bounded = Bounded { out, left: limit, is_over: false };
    let mut archive = Builder::new(GzEncoder::new(bounded, Compression::fast()));
    let written =
        inventory.0.iter().try_for_each(|(path, (size, changed))| append(&mut archive, folder, path, *size, *changed));
    let ended = written.and_then(|()| archive.into_inner().and_then(|gzip| gzip.finish().map(|_| ())));
    match ended {
        Ok(()) if Inventory::of(folder)? == *inventory => Ok(()),
        Ok(()) => Err(ArchiveError::Changing),
        Err(error) if error.kind() == io::ErrorKind::StorageFull && is_bound(&error) => {
            Err(ArchiveError::TooLarge(limit))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
            Err(ArchiveError::Changing)
        }
        Err(source) => Err(ArchiveError::Io { act: "copying a file", source }),
    }
}

fn append(
    archive: &mut Builder<impl Write>,
    folder: &Path,
    path: &Path,
    size: u64,
    changed: SystemTime,
) -> io::Result<()> {
    let at = folder.join(path);
    let about = fs::symlink_metadata(&at)?;
    let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut header = Header::new_ustar();
    header.set_mtime(since.as_secs());
    header.set_mode(if about.is_dir() || about.mode() & 0o100 != 0 { 0o700 } else { 0o600 });
    header.set_size(size);
    // Files that were written within a second of each other stay in their order.
    let precise = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    archive.append_pax_extensions([("mtime", precise.as_bytes())])?;
    if about.is_dir() {
        header.set_entry_type(EntryType::Directory);
        return archive.append_data(&mut header, path, io::empty());
    }
    header.set_entry_type(EntryType::Regular);
    // What has become a link or a pipe since must not be followed, or waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&at)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut content = BufReader::with_capacity(64 << 10, file).take(size);
    archive.append_data(&mut header, path, &mut content)?;
    if content.limit() > 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// Writes the files of an archive of `size` bytes into an empty folder. What it has written before an error stays.
pub fn unpack(archive: impl Read, size: u64, folder: &Path) -> Result<(), ArchiveError> {
    let most = size.saturating_mul(RATIO).saturating_add(1 << 20);
    let mut archive = Archive::new(GzDecoder::new(archive).take(most));
    let (mut entries, mut inside) = (0, 0_u64);
    let mut folders = Vec::new();
    for entry in archive.entries().map_err(io("reading the archive"))? {
        let mut entry = entry.map_err(io("reading the archive"))?;
        let path = entry.path().map_err(io("reading the archive"))?.into_owned();
        entries += 1;
        if entries > ENTRIES || path.components().count() > DEEPEST {
            return Err(ArchiveError::TooMany);
        }
        let is_inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        let kind = entry.header().entry_type();
        if !is_inside || !(kind.is_file() || kind.is_dir()) || path.as_os_str().as_bytes().contains(&0) {
            return Err(ArchiveError::Foreign(path));
        }
        let changed = precise(&mut entry).unwrap_or_else(|| {
            let seconds = entry.header().mtime().unwrap_or(0);
            UNIX_EPOCH + Duration::from_secs(seconds.min(u32::MAX.into()))
        });
        let at = folder.join(&path);
        if kind.is_dir() {
            fs::create_dir_all(&at).map_err(io("writing a folder"))?;
            folders.push((at, changed));
            continue;
        }
        inside = inside.saturating_add(entry.size());
        if inside > most {
            return Err(ArchiveError::TooLargeInside(most));
        }
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).map_err(io("writing a folder"))?;
        }
        let mode = if entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0) { 0o700 } else { 0o600 };
        let mut file = OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(mode).open(&at).map_err(io("writing a file"))?;
        let copied = io::copy(&mut entry, &mut file).map_err(io("writing a file"))?;
        if copied != entry.size() {
            return Err(io("reading the archive")(io::ErrorKind::UnexpectedEof.into()));
        }
        set_time(&file, changed)?;
    }
    // A file that is written into a folder changes it.
    for (at, changed) in folders {
        set_time(&File::open(at).map_err(io("writing a folder"))?, changed)?;
    }
    Ok(())
}

fn set_time(file: &File, changed: SystemTime) -> Result<(), ArchiveError> {
    file.set_modified(changed).map_err(io("writing a file"))
}

/// The time of the last change, to the nanosecond where the archive has it.
fn precise(entry: &mut tar::Entry<'_, impl Read>) -> Option<SystemTime> {
    let extensions = entry.pax_extensions().ok()??;
    let text = extensions.flatten().find(|it| it.key() == Ok("mtime"))?.value().ok()?.to_owned();
    let (seconds, rest) = text.split_once('.').unwrap_or((&text, ""));
    let seconds: u32 = seconds.parse().ok()?;
    let nanos: u32 = format!("{:0<9}", rest.get(..rest.len().min(9))?).parse().ok()?;
    Some(UNIX_EPOCH + Duration::new(seconds.into(), nanos))
}

/// At most so many bytes.
struct Bounded<W> {
    out: W,
    left: u64,
    is_over: bool,
}

/// The bound of an archive, as an error.
#[derive(Debug, thiserror::Error)]
#[error("more than an archive may have")]
struct Bound;

fn is_bound(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Bound>)
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // The encoder tries once more when it is dropped.
        if self.is_over || size > self.left {
            self.is_over = true;
            return Err(io::Error::new(io::ErrorKind::StorageFull, Bound));
        }
        let written = self.out.write(bytes)?;
        self.left -= u64::try_from(written).unwrap_or(size);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn relative(folder: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(folder).unwrap_or(path).to_owned()
}

fn changed_at(about: &Metadata) -> SystemTime {
    about.modified().unwrap_or(UNIX_EPOCH)
}

fn io(act: &'static str) -> impl Fn(io::Error) -> ArchiveError {
    move |source| ArchiveError::Io { act, source }
}

#[cfg(test)]
mod tests;
