//! What kubectl completes behind `kubectl crewjob`: verbs, options, and the names of what is in the cluster.
//!
//! kubectl runs `kubectl_complete-crewjob` with the words that are typed, the last of which is to be completed, and reads
//! what Cobra programs print: a candidate, a tab and its description on each line, and at last a colon and a directive.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory as _};
use kube::ResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams};
use tokio::time::timeout;

use super::args::{Connection, Plugin};
use super::cluster::Cluster;
use super::error::Error;
use super::{show, view};
use k8s_openapi::api::core::v1::Namespace;

/// The helper, which kubectl looks for on the `PATH`.
pub const HELPER: &str = "\
#!/bin/sh
# kubectl_complete-crewjob: completes `kubectl crewjob`.
exec kubectl-crewjob __complete -- \"$@\"
";

/// How long the cluster may take to say what it has: a key was pressed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Names that are offered.
const OFFERED: u32 = 500;
/// Cobra's directive that the shell offers no files.
const NO_FILES: u8 = 4;
/// Cobra's directive that the shell does what it usually does: offer files.
const FILES: u8 = 0;

/// What a word may be.
#[derive(Debug, PartialEq, Eq)]
enum Candidates {
    /// One of these, with what it means.
    Words(Vec<(String, String)>),
    Jobs,
    Pools,
    Schedules,
    Namespaces,
    Files,
    Nothing,
}

/// Prints the candidates for the last of the words.
pub async fn complete(words: &[String]) -> Result<(), Error> {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let candidates = candidates(before, typed);
    let directive = if candidates == Candidates::Files { FILES } else { NO_FILES };
    let words = match candidates {
        Candidates::Words(words) => words,
        Candidates::Files | Candidates::Nothing => Vec::new(),
        Candidates::Jobs | Candidates::Pools | Candidates::Schedules | Candidates::Namespaces => {
            let asked = timeout(PATIENCE, names(&connection(before), &candidates)).await;
            asked.ok().and_then(Result::ok).unwrap_or_default()
        }
    };
    let mut text = String::new();
    for (word, meaning) in words.iter().filter(|(word, _)| word.starts_with(typed)) {
        let _ = writeln!(text, "{word}\t{}", view::one_line(meaning));
    }
    show::print(&format!("{text}:{directive}\n"))
}

/// What the word after these may be.
fn candidates(before: &[String], typed: &str) -> Candidates {
    let mut command = Plugin::command();
    command.build();
    let (mut command, mut words, mut waiting) = (&command, before.iter(), None);
    for word in words.by_ref() {
        waiting = match (waiting.take(), command.find_subcommand(word)) {
            (Some(_), _) => None,
            (None, Some(verb)) => {
                command = verb;
                None
            }
            (None, None) => option(command, word).filter(|option| option.get_action().takes_values()),
        };
    }
    if let Some(option) = waiting {
        return values(option);
    }
    if typed.starts_with('-') {
        let options = command.get_arguments().filter(|option| !option.is_hide_set());
        return Candidates::Words(options.filter_map(|option| Some((long(option)?, help(option)))).collect());
    }
    let mut verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).peekable();
    if verbs.peek().is_some() {
        let about = |verb: &Command| verb.get_about().map(ToString::to_string).unwrap_or_default();
        return Candidates::Words(verbs.map(|verb| (verb.get_name().to_owned(), about(verb))).collect());
    }
    command.get_positionals().last().map_or(Candidates::Nothing, values)
}

/// The option of that name, unless its value is behind an equals sign.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix("--");
    let short = word.strip_prefix('-').filter(|word| word.chars().count() == 1).and_then(|word| word.chars().next());
    let is_it =
        |arg: &&Arg| (long.is_some() && arg.get_long() == long) || (short.is_some() && arg.get_short() == short);
    command.get_arguments().find(is_it)
}

fn long(option: &Arg) -> Option<String> {
    option.get_long().map(|name| format!("--{name}"))
}

fn help(option: &Arg) -> String {
    option.get_help().map(ToString::to_string).unwrap_or_default()
}

/// What an argument may be.
fn values(arg: &Arg) -> Candidates {
    let known = arg.get_possible_values();
    if !known.is_empty() {
        let help = |help: Option<&clap::builder::StyledStr>| help.map(ToString::to_string).unwrap_or_default();
        return Candidates::Words(known.iter().map(|it| (it.get_name().to_owned(), help(it.get_help()))).collect());
    }
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match name {
        "JOB" => Candidates::Jobs,
        "POOL" => Candidates::Pools,
        "SCHEDULE" => Candidates::Schedules,
        "NAMESPACE" => Candidates::Namespaces,
        "FILE" => Candidates::Files,
        "PHASE" => Candidates::Words(view::PHASES.map(|phase| (phase.to_owned(), String::new())).into()),
        _ => Candidates::Nothing,
    }
}

/// The options that say which cluster and namespace, among those that are typed.
fn connection(words: &[String]) -> Connection {
    let value = |names: [&str; 2]| {
        words.iter().enumerate().rev().find_map(|(place, word)| match word.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
            None if names.contains(&word.as_str()) => words.get(place + 1).cloned(),
            Some(_) | None => None,
        })
    };
    Connection {
        namespace: value(["-n", "--namespace"]),
        context: value(["--context", "--context"]),
        kubeconfig: value(["--kubeconfig", "--kubeconfig"]).map(Into::into),
    }
}

/// The names of what is in the cluster. Where that cannot be read there are none: this is no place for an error.
async fn names(connection: &Connection, of: &Candidates) -> Result<Vec<(String, String)>, Error> {
    let cluster = Cluster::connect(connection).await?;
    let params = ListParams::default().limit(OFFERED);
    let listing = || Error::call("listing names");
    if *of == Candidates::Namespaces {
        let found: Api<Namespace> = cluster.everywhere();
        let found = found.list(&params).await.map_err(listing())?;
        return Ok(found.iter().map(|namespace| (namespace.name_any(), String::new())).collect());
    }
    let objects = match of {
        Candidates::Pools => cluster.pools(),
        Candidates::Schedules => cluster.schedules(),
        Candidates::Words(_) | Candidates::Jobs | Candidates::Namespaces | Candidates::Files | Candidates::Nothing => {
            cluster.jobs()
        }
    };
    let found = objects.list(&params).await.map_err(listing())?;
    let meaning =
        |object: &DynamicObject| if *of == Candidates::Jobs { view::phase(object).to_owned() } else { String::new() };
    Ok(found.iter().map(|object| (object.name_any(), meaning(object))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(words: &str, typed: &str) -> Candidates {
        candidates(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), typed)
    }

    fn words(candidates: Candidates) -> Vec<String> {
        let Candidates::Words(words) = candidates else { panic!("{candidates:?}") };
        words.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn the_first_word_is_a_verb_and_the_next_one_a_job() {
        let verbs = words(after("", ""));
        assert!(["run", "logs", "cancel"].iter().all(|verb| verbs.contains(&(*verb).to_owned())), "{verbs:?}");
        assert!(!verbs.iter().any(|verb| verb.starts_with("__")), "{verbs:?}");
        for before in ["logs", "-n team logs", "logs --follow", "cancel one", "wait --timeout 3s", "priority 9"] {
            assert_eq!(after(before, ""), Candidates::Jobs, "{before}");
        }
        assert_eq!(after("list", ""), Candidates::Nothing);
    }

    #[test]
    fn behind_an_option_comes_its_value() {
        for (before, expected) in [
            ("list -n", Candidates::Namespaces),
            ("--namespace", Candidates::Namespaces),
            ("run --pool", Candidates::Pools),
            ("run --from", Candidates::Jobs),
            ("run --inputs-file", Candidates::Files),
            ("run --topic", Candidates::Nothing),
        ] {
            assert_eq!(after(before, ""), expected, "{before}");
        }
        assert_eq!(words(after("list -o", "")), ["name", "wide", "json", "yaml"]);
        assert!(words(after("list --phase", "")).contains(&"Queued".to_owned()));
        assert!(words(after("run", "--to")).contains(&"--topic".to_owned()));
    }

    #[test]
    fn names_are_asked_for_where_the_words_say() {
        let words: Vec<String> = ["-n", "a", "logs", "--context=c", "--namespace=b"].map(str::to_owned).into();
        let found = connection(&words);
        assert_eq!((found.namespace.as_deref(), found.context.as_deref()), (Some("b"), Some("c")));
    }
}
