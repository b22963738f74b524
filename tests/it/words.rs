//! Things are named by their nouns: no comment, name, message or document calls a Pod, process, run, worker or message
//! by a pronoun that is for persons.

use std::fs;
use std::path::Path;

/// Words that stand for persons. `whose` is good English for things, too.
const PRONOUNS: &[&str] = &[
    "who",
    "whoever",
    "whom",
    "whos",
    "nobody",
    "nobodys",
    "somebody",
    "somebodys",
    "anybody",
    "anybodys",
    "everybody",
    "everybodys",
    "someone",
    "someones",
    "anyone",
    "anyones",
    "everyone",
    "everyones",
    "himself",
    "him",
    "his",
];

/// Persons: a `who` directly after one of these is right.
const PERSONS: &[&str] = &["administrator", "administrators", "author", "authors", "people", "person", "user", "users"];

/// Texts that are quoted, or cannot be changed.
const ALLOWED: &[(&str, &str)] = &[
    ("CONTRIBUTING.md", "never by who, he, whoever or nobody"),
    // The schema of the resource and the help of the program, which stay as they were released. Both mean persons.
    ("src/api/pool.rs", "Whoever may edit a pool decides what may run."),
    ("src/worker/config.rs", "Send no task events until somebody asks for them."),
];

/// Texts of others, recordings of Celery and the calls that were recorded, what is generated from `src`, and this file.
const EXEMPT: &[&str] =
    &["LICENSE", "tests/golden/", "crds/", "charts/crewjob-operator/crds/", "docs/api.md", "tests/it/words.rs"];

#[test]
fn no_text_of_the_tree_calls_a_pod_process_run_worker_or_message_by_a_pronoun_for_persons() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut met = Vec::new();
    for path in crate::documents::files() {
        if EXEMPT.iter().any(|exempt| path.starts_with(exempt)) {
            continue;
        }
        wrong.extend(pronouns(&path).map(|pronoun| format!("{path}: {pronoun} in its name")));
        // An archive or an image is no text.
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        for (index, line) in text.lines().enumerate() {
            let mut own = line.to_owned();
            for (_, quote) in ALLOWED.iter().filter(|(file, quote)| *file == path && line.contains(quote)) {
                met.push(*quote);
                own = own.replace(quote, "");
            }
            wrong.extend(pronouns(&own).map(|pronoun| format!("{path}:{}: {pronoun}: {}", index + 1, line.trim())));
        }
    }
    assert!(wrong.is_empty(), "name the thing by its noun:\n{}", wrong.join("\n"));
    for (file, quote) in ALLOWED {
        assert!(met.contains(quote), "{file} no longer says: {quote}");
    }
}

#[test]
fn pronouns_for_persons_are_found_in_sentences_and_in_names() {
    let found = |line: &str| pronouns(line).collect::<Vec<_>>();
    assert_eq!(found("/// Whoever has the lease, and nobody's message."), ["whoever", "nobody"]);
    assert_eq!(found("async fn who_ignores_a_stop_is_killed() { Holding::Nobody }"), ["who", "nobody"]);
    assert_eq!(found("SentBySomebody, test_the_choice_of_nobodys"), ["somebody", "nobodys"]);
    assert_eq!(found("users who may write Pods; the whole Pod, whose container ends"), Vec::<String>::new());
}

fn pronouns(line: &str) -> impl Iterator<Item = String> {
    let words = words(line);
    (0..words.len()).filter_map(move |at| {
        let word = &words[at];
        let is_of_a_person =
            word == "who" && at.checked_sub(1).is_some_and(|before| PERSONS.contains(&words[before].as_str()));
        (PRONOUNS.contains(&word.as_str()) && !is_of_a_person).then(|| word.clone())
    })
}

/// The words of a sentence, of a `snake_case` name and of a `CamelCase` name.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for letter in line.chars() {
        let is_start = letter.is_uppercase() && was_lower;
        if is_start || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        was_lower = letter.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}
