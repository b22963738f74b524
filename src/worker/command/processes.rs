//! What `/proc` says about processes.

use std::collections::BTreeMap;
use std::fs;

/// The beginning of `/proc/<process>/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    pub process: i32,
    pub zombie: bool,
    /// Whether it is stopped, or has ended: it is not about to start another process.
    pub still: bool,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// When it was started, in clock ticks since the machine was.
    pub start: u64,
}

impl Stat {
    /// Of the process that has this number now.
    pub(super) fn of(process: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
    }

    /// Of all processes.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::of(entry.file_name().to_str()?.parse().ok()?))
    }

    /// The name in the middle may contain anything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (process, rest) = text.split_once(" (")?;
        let fields: Vec<&str> = rest.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.trim().parse().ok();
        Some(Self {
            process: process.parse().ok()?,
            zombie: *fields.first()? == "Z",
            still: matches!(*fields.first()?, "T" | "t" | "Z" | "X"),
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            start: fields.get(19)?.trim().parse().ok()?,
        })
    }
}

/// All processes by their parents.
pub(super) struct Table(BTreeMap<i32, Vec<i32>>);

impl Table {
    pub(super) fn read() -> Self {
        let mut table: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Stat { process, parent, .. } in Stat::all() {
            table.entry(parent).or_default().push(process);
        }
        Self(table)
    }

    pub(super) fn children(&self, parent: i32) -> &[i32] {
        self.0.get(&parent).map_or(&[], Vec::as_slice)
    }
}

/// The children of a process, whichever of its threads has started them. Kernels can be built without these lists; then
/// there are none.
pub(super) fn children(process: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let rest = "1 31 31 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 777 0";
        let stat = Stat::parse(&format!("31 (a) S (b) Z {rest}")).unwrap();
        assert_eq!(
            stat,
            Stat { process: 31, zombie: true, still: true, parent: 1, group: 31, session: 31, start: 777 }
        );
        let of = |state: &str| Stat::parse(&format!("31 (a) {state} {rest}")).unwrap();
        assert!(of("T").still && of("t").still && !of("R").still && !of("S").still && !of("D").still);
        assert_eq!(Stat::parse("30 (sleep"), None);
        assert_eq!(Stat::parse("30 (sleep) Z 1 29 1"), None);
    }

    #[test]
    fn children_are_found_by_either_way_whichever_thread_has_them() {
        let mut child =
            std::thread::spawn(|| std::process::Command::new("sleep").arg("60").spawn()).join().unwrap().unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Table::read().children(own).contains(&number));
        assert!(children(own).contains(&number));
        assert_eq!(Stat::of(number).unwrap().parent, own);
        child.kill().and_then(|()| child.wait()).unwrap();
    }
}
