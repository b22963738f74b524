use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 1 << 20;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn packed(folder: &Path) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Vec::new();
    pack(folder, &Inventory::of(folder)?, &mut archive, LIMIT).map(|()| archive)
}

fn unpacked(archive: &[u8]) -> Result<TempDir, ArchiveError> {
    let folder = folder();
    unpack(archive, archive.len() as u64, folder.path()).map(|()| folder)
}

/// An archive of one entry of this kind, which `pack` would not write.
fn foreign(kind: EntryType, path: &str, link: Option<&str>) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    if let Some(link) = link {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.append(&header, io::empty()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn a_folder_comes_back_with_its_files_folders_times_and_whether_a_file_can_be_executed() {
    let before = folder();
    fs::create_dir_all(before.path().join("deep/er")).unwrap();
    fs::create_dir(before.path().join("empty")).unwrap();
    let large = vec![0xff; 70_000];
    for (name, content) in [("a", &b""[..]), ("deep/b", b"text"), ("deep/er/c", &*large), ("\u{e9} x", b"1")] {
        fs::write(before.path().join(name), content).unwrap();
    }
    let long = "n".repeat(200);
    fs::write(before.path().join(&long), "long").unwrap();
    fs::set_permissions(before.path().join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    let changed = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    File::options().write(true).open(before.path().join("a")).unwrap().set_modified(changed).unwrap();

    let after = unpacked(&packed(before.path()).unwrap()).unwrap();
    assert_eq!(Inventory::of(after.path()).unwrap(), Inventory::of(before.path()).unwrap());
    assert_eq!(fs::read(after.path().join("deep/er/c")).unwrap(), large);
    assert_eq!(fs::read_to_string(after.path().join(&long)).unwrap(), "long");
    let mode = |name: &str| fs::metadata(after.path().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("a"), mode("deep/b")), (0o700, 0o600), "the owner alone may read it");
}

#[test]
fn links_pipes_and_sockets_are_left_out_and_nothing_waits_for_them() {
    let before = folder();
    fs::write(before.path().join("file"), "x").unwrap();
    symlink("/etc/hostname", before.path().join("link")).unwrap();
    symlink("/etc", before.path().join("folder link")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(before.path().join("pipe")).status().unwrap();
    assert!(pipe.success());
    let _socket = std::os::unix::net::UnixListener::bind(before.path().join("socket")).unwrap();
    let after = unpacked(&packed(before.path()).unwrap()).unwrap();
    assert_eq!(fs::read_dir(after.path()).unwrap().count(), 1);
}

#[test]
fn an_archive_with_a_path_outside_or_anything_but_files_and_folders_is_refused() {
    for (kind, path, link) in [
        (EntryType::Regular, "../outside", None),
        (EntryType::Regular, "/tmp/outside", None),
        (EntryType::Regular, "a/../../outside", None),
        (EntryType::Symlink, "link", Some("/etc")),
        (EntryType::Link, "hard", Some("/etc/hostname")),
        (EntryType::Fifo, "pipe", None),
        (EntryType::Char, "null", None),
        (EntryType::Block, "disk", None),
    ] {
        let archive = foreign(kind, path, link);
        let target = folder();
        let refused = unpack(&archive[..], archive.len() as u64, target.path());
        assert!(matches!(refused, Err(ArchiveError::Foreign(_))), "{path}: {refused:?}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{path}");
    }
}

#[test]
fn a_file_that_comes_twice_is_refused_and_what_is_no_archive_too() {
    let mut twice = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for _ in 0..2 {
        let mut header = Header::new_ustar();
        header.set_size(0);
        twice.append_data(&mut header, "same", io::empty()).unwrap();
    }
    let twice = twice.into_inner().unwrap().finish().unwrap();
    let whole = packed(folder().path()).unwrap();
    for broken in [&twice[..], b"no archive", b"", &whole[..whole.len() / 2]] {
        assert!(matches!(unpacked(broken), Err(ArchiveError::Io { .. })), "{} bytes", broken.len());
    }
}

#[test]
fn a_state_that_is_too_large_has_too_many_files_or_is_nested_too_deep_is_refused() {
    let large = folder();
    let mut number = 1_u64;
    let mut noise = vec![0; 1_200_000];
    for byte in &mut noise {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        *byte = number.to_le_bytes()[3];
    }
    fs::write(large.path().join("noise"), noise).unwrap();
    assert!(matches!(packed(large.path()), Err(ArchiveError::TooLarge(LIMIT))));

    let hollow = folder();
    File::create(hollow.path().join("hollow")).unwrap().set_len(LIMIT * RATIO + 1).unwrap();
    assert!(matches!(packed(hollow.path()), Err(ArchiveError::TooLargeInside(_))));

    let deep = folder();
    fs::create_dir_all(deep.path().join(vec!["d"; DEEPEST + 1].join("/"))).unwrap();
    assert!(matches!(packed(deep.path()), Err(ArchiveError::TooMany)));

    let many = folder();
    for number in 0..=ENTRIES {
        File::create(many.path().join(number.to_string())).unwrap();
    }
    assert!(matches!(packed(many.path()), Err(ArchiveError::TooMany)));
}

#[test]
fn an_archive_that_holds_more_than_its_size_allows_fills_no_disk() {
    let mut bomb = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let mut header = Header::new_ustar();
    header.set_size(400 << 20);
    bomb.append_data(&mut header, "zeros", io::repeat(0).take(400 << 20)).unwrap();
    let bomb = bomb.into_inner().unwrap().finish().unwrap();
    assert!(matches!(unpacked(&bomb), Err(ArchiveError::TooLargeInside(_))), "{} bytes", bomb.len());
}

#[test]
fn a_file_that_changes_while_it_is_copied_gives_no_archive() {
    for change in ["grow", "shrink", "remove", "replace"] {
        let before = folder();
        let file = before.path().join("file");
        fs::write(&file, "0123456789").unwrap();
        let inventory = Inventory::of(before.path()).unwrap();
        match change {
            "grow" => fs::write(&file, "0123456789 and more").unwrap(),
            "shrink" => fs::write(&file, "01").unwrap(),
            "remove" => fs::remove_file(&file).unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                symlink("/etc/hostname", &file).unwrap();
            }
        }
        let torn = pack(before.path(), &inventory, Vec::new(), LIMIT);
        let is_refused = matches!(torn, Err(ArchiveError::Changing | ArchiveError::Io { .. }));
        assert!(is_refused, "{change}: {torn:?}");
    }
}

#[test]
fn a_folder_is_at_rest_when_nothing_has_changed_for_a_while() {
    let before = folder();
    fs::write(before.path().join("file"), "x").unwrap();
    let inventory = Inventory::of(before.path()).unwrap();
    let now = SystemTime::from(crate::runtime::clock::now());
    assert!(!inventory.is_at_rest(now, Duration::from_mins(1)));
    assert!(inventory.is_at_rest(now + Duration::from_mins(2), Duration::from_mins(1)));
    assert!(!inventory.is_at_rest(now - Duration::from_mins(1), Duration::ZERO), "a clock that went back");
}
