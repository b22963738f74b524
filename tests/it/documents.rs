//! What the documents name exists: paths, links and their headings, modules, and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Endings by which a name without a folder is one of this tree's files.
const ENDINGS: &[&str] = &[".rs", ".py", ".lua", ".sh", ".md", ".acl"];

#[test]
fn every_path_in_the_documents_exists() {
    let tree = Tree::read();
    fail_for(documents().iter().flat_map(|document| {
        // A command may name files of its own by names without a folder.
        let named = document.code.iter().chain(document.commands.iter().filter(|word| word.text.contains('/')));
        named.flat_map(|code| expanded(&code.text).into_iter().map(|path| (code.line, path))).filter_map(
            |(line, path)| {
                (!tree.has_what_is_called(&path)).then(|| format!("{}:{line}: there is no {path}", document.name))
            },
        )
    }));
}

#[test]
fn every_link_in_the_documents_leads_to_a_file_and_a_heading() {
    fail_for(documents().iter().flat_map(|document| {
        document.links.iter().filter_map(|link| {
            let (path, heading) = link.text.split_once('#').unwrap_or((&link.text, ""));
            let target = if path.is_empty() {
                root().join(&document.name)
            } else {
                without_parents(&root().join(&document.name).parent().unwrap().join(path))
            };
            let is_there = target.exists() && (heading.is_empty() || headings(&target).contains(heading));
            (!is_there).then(|| format!("{}:{}: nothing is at {}", document.name, link.line, link.text))
        })
    }));
}

#[test]
fn every_module_in_the_documents_exists() {
    let modules = Tree::read().modules();
    fail_for(documents().iter().flat_map(|document| {
        document.code.iter().filter(|code| is_module(&code.text)).flat_map(|code| {
            expanded(&code.text).into_iter().filter_map(|name| {
                let ending = format!("::{name}");
                let exists = modules.iter().any(|module| *module == name || module.ends_with(&ending));
                (!exists).then(|| format!("{}:{}: there is no module {name}", document.name, code.line))
            })
        })
    }));
}

/// Its words are compared with the reference, which is made from the code.
#[test]
fn every_reason_and_every_condition_is_in_the_troubleshooting_guide() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (reference, guide) = (read("docs/api.md"), read("docs/troubleshooting.md"));
    let (guide, conditions) = guide.split_once("## Conditions").unwrap();
    for (heading, place, least) in [("## Reasons", guide, 50), ("## Conditions", conditions, 15)] {
        let table = reference.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
        let words: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        assert!(words.len() > least, "{words:?}");
        // The first cell of a row may name several.
        let rows: Vec<&str> = place.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
        fail_for(
            words
                .into_iter()
                .filter(|word| !rows.iter().any(|row| row.contains(&format!("`{word}`"))))
                .map(|word| format!("no {word} below {heading}")),
        );
    }
}

#[test]
fn every_test_named_in_the_documents_exists() {
    let tree = Tree::read();
    let code: String = tree.sources().map(|path| fs::read_to_string(root().join(path)).unwrap()).collect();
    fail_for(documents().iter().flat_map(|document| {
        document.code.iter().filter(|span| is_test(&span.text)).filter_map(|span| {
            // An ellipsis stands for the rest of a long name.
            let name = span.text.strip_suffix('…').map_or_else(|| format!("{}(", span.text), str::to_owned);
            let is_function = code.contains(&format!("fn {name}")) || code.contains(&format!("def {name}"));
            let is_file = span.text.starts_with("test_") && tree.has_what_is_called(&format!("{}.py", span.text));
            (!is_function && !is_file)
                .then(|| format!("{}:{}: there is no test {}", document.name, span.line, span.text))
        })
    }));
}

/// The files of this tree, by their paths.
pub fn files() -> Vec<String> {
    Tree::read().0.into_iter().filter(|path| !path.ends_with('/')).collect()
}

#[track_caller]
fn fail_for(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

// === What the documents say ===

struct Document {
    /// Its path in the tree.
    name: String,
    /// What stands between backticks.
    code: Vec<Text>,
    /// The words of indented code and of code between fences.
    commands: Vec<Text>,
    links: Vec<Text>,
}

struct Text {
    line: usize,
    text: String,
}

fn documents() -> Vec<Document> {
    let mut names: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "charts/crewjob-operator/README.md"]
            .map(str::to_owned)
            .to_vec();
    names.extend(files().into_iter().filter(|path| path.starts_with("docs/")));
    names.into_iter().map(read).collect()
}

fn read(name: String) -> Document {
    let text = fs::read_to_string(root().join(&name)).unwrap();
    let mut document = Document { name, code: Vec::new(), commands: Vec::new(), links: Vec::new() };
    let mut is_fenced = false;
    for (index, line) in text.lines().enumerate() {
        let at = |text: &str| Text { line: index + 1, text: text.to_owned() };
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            document.commands.extend(line.split(|letter: char| " \t\"'=,:".contains(letter)).map(at));
        } else {
            document.code.extend(line.split('`').skip(1).step_by(2).map(at));
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            document.links.extend(targets.filter(|target| !target.contains("://")).map(at));
        }
    }
    document
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(text: &str) -> Vec<String> {
    if let Some((before, rest)) = text.split_once('{')
        && let Some((choices, after)) = rest.split_once('}')
    {
        choices.split(',').flat_map(|choice| expanded(&format!("{before}{choice}{after}"))).collect()
    } else {
        vec![text.to_owned()]
    }
}

fn is_module(text: &str) -> bool {
    text.contains("::") && text.chars().all(|letter| letter.is_ascii_lowercase() || "_:{,}".contains(letter))
}

/// A name that begins as tests in Python do, or is long enough to be a sentence; those of metrics begin as all metrics do.
fn is_test(text: &str) -> bool {
    (text.starts_with("test_") || text.matches('_').count() >= 4)
        && !text.starts_with("crewjob_")
        && !text.starts_with('_')
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_…".contains(letter))
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept = title.to_lowercase().replace(' ', "-");
            kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
        })
        .collect()
}

// === What is there ===

/// Files, and folders with a slash at their end.
struct Tree(BTreeSet<String>);

impl Tree {
    fn read() -> Self {
        let mut paths = BTreeSet::new();
        collect(&root(), "", &mut paths);
        Self(paths)
    }

    /// Whatever does not look like a path of this tree is taken to exist.
    fn has_what_is_called(&self, text: &str) -> bool {
        let is_word = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-./*".contains(letter));
        let top = text.split('/').next().unwrap_or_default();
        if !is_word || text.starts_with('/') {
            true
        } else if text.contains('/') && self.0.contains(&format!("{top}/")) {
            self.0.iter().any(|path| is_called(path, text))
        } else if ENDINGS.iter().any(|ending| text.ends_with(ending)) {
            self.0.iter().any(|path| is_called(path, text) || ends_with_path(path, text))
        } else {
            true
        }
    }

    /// Every source file of crate and tests as a path of modules.
    fn modules(&self) -> BTreeSet<String> {
        let files = self.sources().filter_map(|path| path.strip_suffix(".rs"));
        files
            .filter_map(|path| path.strip_prefix("src/").or_else(|| path.strip_prefix("tests/it/")))
            .map(|path| path.strip_suffix("/mod").unwrap_or(path).replace('/', "::"))
            .collect()
    }

    fn sources(&self) -> impl Iterator<Item = &String> {
        self.0.iter().filter(|path| [".rs", ".py"].iter().any(|ending| path.ends_with(ending)))
    }
}

/// A path may leave out the ending of a source file and the slash of a folder, and have one star.
fn is_called(path: &str, text: &str) -> bool {
    let path = path.trim_end_matches('/');
    let text = text.trim_end_matches('/');
    if let Some((before, after)) = text.split_once('*') {
        return path.len() > text.len() && path.starts_with(before) && path.ends_with(after);
    }
    path == text || path.strip_suffix(".rs") == Some(text) || path.strip_suffix(".py") == Some(text)
}

fn ends_with_path(path: &str, text: &str) -> bool {
    path.strip_suffix(text).is_some_and(|before| before.ends_with('/'))
}

fn collect(folder: &Path, prefix: &str, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if entry.file_type().unwrap().is_dir() {
            // What is built, and what is no file of the project.
            if !["target", "corpus", "__pycache__", ".git"].contains(&name.as_str()) {
                paths.insert(format!("{prefix}{name}/"));
                collect(&entry.path(), &format!("{prefix}{name}/"), paths);
            }
        } else {
            paths.insert(format!("{prefix}{name}"));
        }
    }
}

/// `a/b/../c` as `a/c`, so that it exists only where all of it does.
fn without_parents(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        if part == Component::ParentDir {
            so_far.pop();
        } else {
            so_far.push(part);
        }
        so_far
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
