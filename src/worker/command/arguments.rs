//! Arguments of a call for commands that read no JSON: in their command line and in their environment. Pure.
//!
//! `{{kwargs.topic}}`, `{{args.0}}` and `{{job.name}}` in a part of `command` are replaced by that member of the call. The
//! result is one argument, whatever is in it. Other braces stay as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::spec::{Call, Job};
use crate::wire::{Object, Value};
use crate::worker::outcome::limits;

/// Longest value of a variable, most bytes of all, and how many there are. Linux takes 128 KiB for one string of a new
/// program, and usually 2 MiB for all. What is longer is on standard input only.
const LONGEST: usize = 32 << 10;
const ALL: usize = 256 << 10;
const MOST: usize = 500;

/// Programs that run the argument after `-c` or `-e`.
const INTERPRETERS: [&str; 19] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "busybox", "python", "pypy", "node", "nodejs", "deno", "bun",
    "perl", "ruby", "php", "lua", "pwsh",
];

/// Why the command line of a task cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// Each sender could choose the program.
    #[error("the program cannot be an argument of the call")]
    Program,
    /// Each sender could write a part of the script.
    #[error(
        "a script must not be made of arguments of the call, which could be code: use the variables CREWJOB_ARGS_0, \
         CREWJOB_KWARGS_name and so on in it"
    )]
    Script,
    /// It is started before there is a call.
    #[error("a command that stays reads its calls on standard input, and cannot have them in `command`")]
    Server,
}

/// Whether arguments of calls may stand where they stand in this command line.
pub fn check(command: &[String], stays: bool) -> Result<(), Misplaced> {
    let is_filled = |part: &String| next(part).is_some();
    if command.first().is_some_and(is_filled) {
        return Err(Misplaced::Program);
    }
    if stays && command.iter().any(is_filled) {
        return Err(Misplaced::Server);
    }
    let is_script = |at: usize| {
        let (before, flag) = (&command[..at - 1], &command[at - 1]);
        let is_flag =
            flag.starts_with('-') && flag.ends_with(['c', 'e', 'p', 'r']) || flag == "--eval" || flag == "--print";
        is_flag && before.iter().any(|program| is_interpreter(program))
    };
    if (1..command.len()).any(|at| is_filled(&command[at]) && is_script(at)) { Err(Misplaced::Script) } else { Ok(()) }
}

/// `/usr/bin/python3.11` is `python`.
fn is_interpreter(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    INTERPRETERS.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'))
}

/// A part of the command line for this call, or the name of what the call does not have.
pub(super) fn fill<'a>(part: &'a str, call: &Call) -> Result<Cow<'a, str>, String> {
    let Some(mut found) = next(part) else { return Ok(part.into()) };
    let mut filled = String::new();
    loop {
        let Found { before, path, after } = found;
        filled.push_str(before);
        filled.push_str(&lookup(call, path).ok_or_else(|| path.to_owned())?);
        let Some(another) = next(after) else {
            filled.push_str(after);
            return Ok(filled.into());
        };
        found = another;
    }
}

struct Found<'a> {
    before: &'a str,
    path: &'a str,
    after: &'a str,
}

/// The first place to be filled.
fn next(part: &str) -> Option<Found<'_>> {
    let mut from = 0;
    while let Some(at) = part[from..].find("{{").map(|at| from + at) {
        let (inside, after) = part[at + 2..].split_once("}}")?;
        let path = inside.trim();
        if is_path(path) {
            return Some(Found { before: &part[..at], path, after });
        }
        from = at + 1;
    }
    None
}

/// Whether it names a member of the arguments or of the job.
fn is_path(path: &str) -> bool {
    let Some((root, rest)) = path.split_once('.') else { return false };
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    ["args", "kwargs", "job"].contains(&root) && rest.split('.').all(is_name)
}

fn lookup(call: &Call, path: &str) -> Option<String> {
    let (root, rest) = path.split_once('.')?;
    if root == "job" {
        let Job { name, namespace, uid } = call.job.as_ref()?;
        return [("name", name), ("namespace", namespace), ("uid", uid)]
            .into_iter()
            .find_map(|(member, text)| (member == rest).then(|| text.clone()));
    }
    let mut names = rest.split('.').peekable();
    let first = names.next()?;
    let given = if root == "args" { call.args.get(first.parse::<usize>().ok()?)? } else { call.kwargs.get(first)? };
    let taken_apart;
    let mut value = given;
    if let Value::Verbatim(text) = given
        && names.peek().is_some()
    {
        taken_apart = text.parse(&limits(text.as_str())).ok()?;
        value = &taken_apart;
    }
    for name in names {
        value = match value.as_array() {
            Some(elements) => elements.get(name.parse::<usize>().ok()?)?,
            None => value.get(name)?,
        };
    }
    Some(text(value))
}

/// A string as it is, nothing for `null`, and JSON for the rest.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(_) => value.as_str().unwrap_or_default().to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) | Value::Verbatim(_) => value.to_json(),
    }
}

/// The arguments as variables: `CREWJOB_ARGS_0`, `CREWJOB_KWARGS_topic`, and `CREWJOB_KWARGS_inputs_topic` for a member of
/// an object. There is none for `null`, for what is too long, and for a name that no shell could write.
pub(super) fn variables(call: &Call) -> BTreeMap<String, String> {
    let (mut set, mut bytes) = (BTreeMap::new(), 0);
    let args = call.args.iter().enumerate().map(|(at, value)| (format!("CREWJOB_ARGS_{at}"), value));
    let kwargs = call.kwargs.iter().map(|(name, value)| (format!("CREWJOB_KWARGS_{name}"), value));
    let mut all: Vec<(String, &Value)> = args.chain(kwargs).take(MOST).collect();
    for at in 0..all.len() {
        let (name, value) = (&all[at].0, all[at].1);
        let members = value.as_object().into_iter().flat_map(Object::iter).take(MOST);
        let members: Vec<_> = members.map(|(member, value)| (format!("{name}_{member}"), value)).collect();
        all.extend(members);
        if all.len() > 2 * MOST {
            break;
        }
    }
    for (name, value) in all {
        if value.as_str().is_some_and(|text| text.len() > LONGEST) {
            continue;
        }
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if value.is_null() || !is_name || set.contains_key(&name) || set.len() == MOST {
            continue;
        }
        let text = text(value);
        let size = name.len() + text.len();
        if text.len() <= LONGEST && bytes + size <= ALL && !text.contains('\0') {
            bytes += size;
            set.insert(name, text);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        let value = |text: &str| Value::parse(text.as_bytes()).unwrap();
        let kwargs = value(
            r#"{"topic": "Café \"noir\"; $HOME", "n": 1.50, "none": null, "no name": 1,
            "inputs": {"topic": "bees", "tags": ["a", "b"]}, "inputs_topic": "first"}"#,
        );
        Call {
            task: "t".into(),
            id: "i".into(),
            args: value(r#"["a b", {"width": 3}, "{{kwargs.n}}"]"#).as_array().unwrap().to_vec(),
            kwargs: kwargs.as_object().unwrap().clone(),
            job: Some(Job { name: "report".into(), namespace: "team".into(), uid: "u".into() }),
            idempotency_key: "i".into(),
            retries: 0,
            worker: "w".into(),
            soft: None,
            hard: None,
            state_dir: None,
            trace: Object::new(),
        }
    }

    #[test]
    fn a_part_of_the_command_line_is_filled_with_arguments_of_the_call() {
        for (part, filled) in [
            ("{{kwargs.topic}}", "Café \"noir\"; $HOME"),
            ("--width={{ args.1.width }}px", "--width=3px"),
            ("{{args.0}}/{{kwargs.n}}", "a b/1.50"),
            ("{{kwargs.inputs}}", r#"{"topic":"bees","tags":["a","b"]}"#),
            ("{{kwargs.inputs.tags.1}}", "b"),
            ("[{{kwargs.none}}]", "[]"),
            ("{{job.namespace}}/{{job.name}}", "team/report"),
            ("{{args.2}}", "{{kwargs.n}}"),
        ] {
            assert_eq!(fill(part, &call()).unwrap(), filled, "{part}");
        }
    }

    #[test]
    fn other_braces_stay_as_they_are_and_an_argument_that_is_missing_is_named() {
        for part in ["{{.State}}", "{{ args }}", "{{id}}", "{a}", "{{kwargs.topic", "{{kwargs..x}}", "}}{{"] {
            assert_eq!(fill(part, &call()).unwrap(), part);
        }
        assert_eq!(fill("{{{kwargs.n}}}", &call()).unwrap(), "{1.50}");
        for path in ["kwargs.size", "args.9", "args.one", "kwargs.inputs.size", "job.size"] {
            assert_eq!(fill(&format!("x{{{{{path}}}}}"), &call()).unwrap_err(), path);
        }
        assert_eq!(fill("{{job.name}}", &Call { job: None, ..call() }).unwrap_err(), "job.name");
    }

    #[test]
    fn arguments_are_variables_too() {
        let set = variables(&call());
        for (name, value) in [
            ("CREWJOB_ARGS_0", "a b"),
            ("CREWJOB_ARGS_1_width", "3"),
            ("CREWJOB_KWARGS_n", "1.50"),
            ("CREWJOB_KWARGS_inputs", r#"{"topic":"bees","tags":["a","b"]}"#),
            ("CREWJOB_KWARGS_inputs_topic", "first"),
        ] {
            assert_eq!(set.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!set.contains_key("CREWJOB_KWARGS_none") && !set.keys().any(|name| name.contains(' ')));
    }

    #[test]
    fn variables_are_bounded() {
        let long = Value::from("x".repeat(LONGEST + 1));
        let args = [long, "a\0b".into()].into_iter().chain((0..1000).map(|_| "x".repeat(1000).into())).collect();
        let set = variables(&Call { args, ..call() });
        assert!(!set.contains_key("CREWJOB_ARGS_0") && !set.contains_key("CREWJOB_ARGS_1"));
        let bytes: usize = set.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(set.len() <= MOST && bytes <= ALL && bytes > ALL / 2, "{} variables, {bytes} bytes", set.len());
    }

    #[test]
    fn no_argument_is_a_program_or_a_part_of_a_script() {
        let check =
            |parts: &[&str], stays| check(&parts.iter().map(|&part| part.to_owned()).collect::<Vec<_>>(), stays);
        assert_eq!(check(&["{{args.0}}"], false), Err(Misplaced::Program));
        for script in [
            &["/bin/sh", "-c", "echo {{args.0}}"][..],
            &["env", "X=1", "bash", "-ec", "echo {{args.0}}"],
            &["/usr/bin/python3.11", "-c", "print('{{args.0}}')"],
            &["node", "--eval", "{{args.0}}"],
        ] {
            assert_eq!(check(script, false), Err(Misplaced::Script), "{script:?}");
        }
        assert_eq!(check(&["crew", "{{args.0}}"], true), Err(Misplaced::Server));
        for fine in [&["crew", "-c", "{{args.0}}"][..], &["sh", "-c", "echo \"$1\"", "sh", "{{args.0}}"], &["crew.py"]]
        {
            assert_eq!(check(fine, false), Ok(()), "{fine:?}");
        }
        assert_eq!(check(&["crew", "{{.State}}"], true), Ok(()));
    }
}
