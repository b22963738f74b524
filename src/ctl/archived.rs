//! Jobs that were archived, read from files, standard input or the object store.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use kube::ResourceExt as _;
use kube::api::DynamicObject;

use super::args::List;
use super::error::Error;
use super::selector;
use super::show;
use crate::archive::{self, Bucket};
use crate::runtime::clock;

/// Bytes of a line; those of jobs have fewer.
const LINE: u64 = 8 << 20;

/// Calls `each` with the archived jobs that fit, each once. `namespace` is the one that is meant; `None` means all.
pub async fn each(what: &List, namespace: Option<&str>, each: impl FnMut(DynamicObject)) -> Result<(), Error> {
    let selector = what.filter.selector.as_deref().map(selector::parsed).transpose().map_err(Error::Usage)?;
    let now = clock::now();
    let fits = |job: &DynamicObject| {
        use kube::core::SelectorExt as _;
        namespace.is_none_or(|namespace| job.namespace().as_deref() == Some(namespace))
            && selector.as_ref().is_none_or(|selector| selector.matches(job.labels()))
            && what.filter.fits(job, now)
    };
    let mut reading = Reading { each, fits, met: HashSet::new(), skipped: 0 };
    match what.archived.as_deref().unwrap_or_default() {
        "" => match Bucket::open(&what.store).map_err(unopened)? {
            Some(bucket) => from_bucket(&bucket, &mut reading).await?,
            None => {
                return Err(Error::Usage(
                    "--archived needs a file, a folder, - for standard input, or --archive-s3-bucket".into(),
                ));
            }
        },
        "-" => reading.lines(io::stdin().lock()).map_err(unread("standard input"))?,
        path => from_path(Path::new(path), &mut reading)?,
    }
    if reading.skipped > 0 {
        show::say(&format!("{} lines are no CrewJobs and were skipped", reading.skipped));
    }
    Ok(())
}

fn unopened(error: archive::Error) -> Error {
    match error {
        archive::Error::Settings(text) => Error::Usage(text),
        error @ (archive::Error::File { .. } | archive::Error::Store { .. }) => Error::Archive(error),
    }
}

fn unread(path: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Read { path: path.to_owned(), source }
}

fn from_path(
    path: &Path,
    reading: &mut Reading<impl FnMut(DynamicObject), impl Fn(&DynamicObject) -> bool>,
) -> Result<(), Error> {
    let shown = path.display().to_string();
    let files = if path.is_dir() { archive::files(path).map_err(unread(&shown))? } else { vec![path.to_owned()] };
    for file in files {
        let shown = file.display().to_string();
        let read = File::open(&file).and_then(|file| reading.lines(BufReader::new(file)));
        read.map_err(unread(&shown))?;
    }
    Ok(())
}

async fn from_bucket(
    bucket: &Bucket,
    reading: &mut Reading<impl FnMut(DynamicObject), impl Fn(&DynamicObject) -> bool>,
) -> Result<(), Error> {
    let mut next = None;
    loop {
        let (keys, more) = bucket.page(next).await.map_err(Error::Archive)?;
        for key in keys {
            let lines = bucket.get(&key).await.map_err(Error::Archive)?;
            reading.lines(&*lines).map_err(unread(&key))?;
        }
        match more {
            Some(more) => next = Some(more),
            None => return Ok(()),
        }
    }
}

/// What is known while lines are read.
struct Reading<E, F> {
    each: E,
    fits: F,
    /// UIDs: a job may have several lines.
    met: HashSet<String>,
    skipped: usize,
}

impl<E: FnMut(DynamicObject), F: Fn(&DynamicObject) -> bool> Reading<E, F> {
    fn lines(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let job = serde_json::from_slice::<DynamicObject>(&line).ok();
            match job.filter(|job| job.types.as_ref().is_some_and(|types| types.kind == "CrewJob")) {
                Some(job) if !(self.fits)(&job) => {}
                Some(job) => {
                    if job.uid().is_none_or(|uid| self.met.insert(uid)) {
                        (self.each)(job);
                    }
                }
                None if line.iter().all(u8::is_ascii_whitespace) => {}
                None => self.skipped += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_several_lines_is_met_once_and_other_lines_are_counted() {
        let job = |name: &str, uid: u8| {
            format!(
                "{{\"apiVersion\":\"crewjob.dev/v1alpha1\",\"kind\":\"CrewJob\",\"metadata\":{{\"name\":\"{name}\",\"uid\":\"{uid}\"}}}}\n"
            )
        };
        let text =
            [&job("a", 1), "{\"kind\":\"CrewJ\n", "\n", &job("b", 2), &job("a", 1), "{}\n", &job("c", 3)].concat();
        let mut names = Vec::new();
        let mut reading = Reading {
            each: |job: DynamicObject| names.push(job.name_any()),
            fits: |job: &DynamicObject| job.name_any() != "c",
            met: HashSet::new(),
            skipped: 0,
        };
        reading.lines(text.as_bytes()).unwrap();
        assert_eq!(reading.skipped, 2);
        assert_eq!(names, ["a", "b"]);
    }
}
