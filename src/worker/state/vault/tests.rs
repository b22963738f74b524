//! States in a folder that workers share. Those on Redis are tested with a server, in `tests/it/channel/job_states.rs`.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const JOBS: [&str; 2] = ["one", "../another, whose id is chosen by its sender"];

/// What a run does, given as job, run and what it does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Open { anew: bool },
    Save(u8),
    Forget,
}

struct Shared {
    vault: Vault,
    folder: TempDir,
}

impl Shared {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { vault: Vault::Folder(folder.path().to_owned()), folder }
    }

    async fn save(&self, id: &Id, content: &str) -> Option<Saved> {
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("step"), content).unwrap();
        let inventory = Inventory::of(source.path()).unwrap();
        let (copied, _) = self.vault.copy(id, source.path(), inventory).unwrap();
        self.vault.save(id, copied).await.unwrap()
    }

    /// The content that a run finds; none where nothing is saved.
    async fn open(&self, id: &Id, other: Option<&str>, anew: bool) -> Option<String> {
        let target = tempfile::tempdir().unwrap();
        match self.vault.open(id, other, anew, target.path()).await.unwrap() {
            Opened::Restored(..) => Some(fs::read_to_string(target.path().join("step")).unwrap()),
            Opened::Nothing => None,
            Opened::OtherVersion => Some("another version".to_owned()),
        }
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }
}

fn id(job: &str, run: u8) -> Id {
    let keep = Duration::from_hours(1);
    Id { job: job.to_owned(), run: format!("run {run}"), version: "v1".to_owned(), keep, limit: 1 << 20 }
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![any::<bool>().prop_map(|anew| Act::Open { anew }), any::<u8>().prop_map(Act::Save), Just(Act::Forget)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever runs of two jobs do, in whatever order: a run finds what the latest run before it has saved last, never
    /// something older, and never something of the other job.
    #[test]
    fn a_run_finds_what_the_latest_run_of_its_job_saved_last(
        acts in prop::collection::vec((0_usize..2, 0_u8..4, any_act()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let shared = Shared::new();
            // The run that may save, and what is saved.
            let mut model: [(Option<u8>, Option<String>); 2] = Default::default();
            for (number, (job, run, act)) in acts.into_iter().enumerate() {
                let (owner, saved) = &mut model[job];
                let is_owner = owner.is_none_or(|owner| owner == run);
                let id = id(JOBS[job], run);
                match act {
                    Act::Open { anew } => {
                        if anew {
                            *saved = None;
                        }
                        *owner = Some(run);
                        assert_eq!(shared.open(&id, None, anew).await, *saved);
                    }
                    Act::Save(content) => {
                        let content = format!("{number}: {content}");
                        let is_saved = shared.save(&id, &content).await.is_some();
                        assert_eq!(is_saved, is_owner);
                        if is_saved {
                            (*owner, *saved) = (Some(run), Some(content));
                        }
                    }
                    Act::Forget => {
                        shared.vault.forget(&id).await.unwrap();
                        if is_owner {
                            (*owner, *saved) = (None, None);
                        }
                    }
                }
            }
            assert!(shared.files().iter().all(|name| !name.contains(".new")), "nothing is left half: {:?}", shared.files());
        });
    }
}

#[tokio::test]
async fn a_job_begins_with_the_state_of_another_one_until_it_has_saved_its_own() {
    let shared = Shared::new();
    shared.save(&id("old", 1), "old").await.unwrap();
    assert_eq!(shared.open(&id("new", 2), Some("old"), false).await.as_deref(), Some("old"));
    shared.save(&id("new", 2), "new").await.unwrap();
    assert_eq!(shared.open(&id("new", 3), Some("old"), false).await.as_deref(), Some("new"));
    assert_eq!(shared.open(&id("old", 4), None, false).await.as_deref(), Some("old"), "it is left alone");
}

#[tokio::test]
async fn what_another_version_has_saved_or_what_is_no_state_is_not_used() {
    let shared = Shared::new();
    shared.save(&id("job", 1), "before").await.unwrap();
    let other = Id { version: "v2".to_owned(), ..id("job", 2) };
    assert_eq!(shared.open(&other, None, false).await.as_deref(), Some("another version"));
    let path = shared.folder.path().join(format!("{}.state", hash("job")));
    for broken in [&b""[..], b"no line", b"{\"version\": \"v1\"}\nno archive", &[b'x'; 10_000]] {
        fs::write(&path, broken).unwrap();
        let target = tempfile::tempdir().unwrap();
        let opened = shared.vault.open(&id("job", 3), None, false, target.path()).await;
        assert!(matches!(opened, Ok(Opened::OtherVersion) | Err(VaultError::Archive(_))), "{opened:?}");
    }
}

#[tokio::test]
async fn what_is_older_than_states_are_kept_is_swept_and_other_files_are_left_alone() {
    let shared = Shared::new();
    shared.save(&id("old", 1), "old").await.unwrap();
    shared.save(&id("young", 1), "young").await.unwrap();
    fs::write(shared.folder.path().join("notes.txt"), "of a person").unwrap();
    let long_ago = SystemTime::from(clock::now()) - Duration::from_hours(2);
    for name in shared.files() {
        if !name.starts_with(&hash("young")) {
            let file = File::options().write(true).open(shared.folder.path().join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
    }
    assert_eq!(sweep(shared.folder.path(), Duration::from_hours(1)).unwrap(), 2);
    assert_eq!(shared.open(&id("young", 2), None, false).await.as_deref(), Some("young"));
    assert!(shared.folder.path().join("notes.txt").exists());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said() {
    let vault = Vault::Folder("/proc/nowhere".into());
    let source = tempfile::tempdir().unwrap();
    let copied = vault.copy(&id("job", 1), source.path(), Inventory::default());
    assert!(matches!(copied, Err(VaultError::Folder { .. })));
    let opened = vault.open(&id("job", 1), None, false, source.path()).await;
    assert!(opened.unwrap_err().to_string().starts_with("\"/proc/nowhere/"));
}
