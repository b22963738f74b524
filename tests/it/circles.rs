//! No file imports another one that imports it back, directly or through others, and the rooms of the operator lie above
//! each other. Held by reading the code: `use` lines, and paths from `crate::` and `super::`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module by its path below the crate.
type Module = Vec<String>;

/// Its inhabitants know their world, and the world them.
const EXEMPT: &str = "core::sim";

/// The rooms of `src/operator`, from the bottom. An import goes to the same room or to one before it.
const ROOMS: [&str; 6] = ["state", "context", "job", "pool", "watch", "run"];

#[test]
fn no_file_imports_itself_through_others_outside_of_the_simulation() {
    let house = House::read();
    let circles: Vec<String> = house
        .circles()
        .into_iter()
        .filter(|circle| !circle.iter().all(|module| module.join("::").starts_with(EXEMPT)))
        .map(|circle| circle.iter().map(|module| house.files[module].as_str()).collect::<Vec<_>>().join(", "))
        .collect();
    assert!(circles.is_empty(), "these files import each other:\n{}", circles.join("\n"));
}

#[test]
fn imports_between_the_rooms_of_the_operator_point_down() {
    let house = House::read();
    let room = |module: &Module| match module.as_slice() {
        [operator, room, ..] if operator == "operator" => ROOMS.iter().position(|it| it == room),
        _ => None,
    };
    let mut up = Vec::new();
    for (from, targets) in &house.imports {
        for to in targets {
            if let (Some(lower), Some(upper)) = (room(from), room(to))
                && upper > lower
            {
                up.push(format!("{} imports {}", house.files[from], house.files[to]));
            }
        }
    }
    assert!(up.is_empty(), "{}", up.join("\n"));
    let found = house.files.keys().filter_map(room).collect::<BTreeSet<_>>();
    assert_eq!(found.len(), ROOMS.len(), "every room exists");
}

/// The files, and what each of them imports.
struct House {
    files: BTreeMap<Module, String>,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl House {
    fn read() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut texts = BTreeMap::new();
        collect(&source, &mut Vec::new(), &mut texts);
        let files: BTreeMap<Module, String> =
            texts.iter().map(|(module, (file, _))| (module.clone(), file.clone())).collect();
        let (mut named, mut reexported) = (BTreeMap::new(), BTreeMap::new());
        for (module, (_, text)) in &texts {
            let mut paths = Vec::new();
            let rest = without_uses(text, |is_public, tree| {
                for path in expand(tree) {
                    let Some(path) = absolute(&files, module, &path) else { continue };
                    if is_public && let Some(name) = path.last() {
                        reexported.insert((module.clone(), name.clone()), path);
                    } else {
                        paths.push(path);
                    }
                }
            });
            paths.extend(inline(&rest).iter().filter_map(|path| absolute(&files, module, path)));
            named.insert(module.clone(), paths);
        }
        let target = |path: &[String]| resolve(&files, &reexported, path, 0);
        let imports = named.into_iter().map(|(module, paths)| {
            let targets = paths.iter().filter_map(|path| target(path)).filter(|to| *to != module).collect();
            (module, targets)
        });
        Self { imports: imports.collect(), files }
    }

    /// Sets of more than one file of which each reaches all others.
    fn circles(&self) -> Vec<Vec<Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.files.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in &reached {
            let circle: Vec<Module> =
                others.iter().filter(|other| reached[**other].contains(*module)).map(|it| (*it).clone()).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reached_from(&self, start: &Module) -> BTreeSet<&Module> {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            for to in &self.imports[module] {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    }
}

/// Reads the files below a folder; of each without its tests and comments.
fn collect(folder: &Path, at: &mut Module, into: &mut BTreeMap<Module, (String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" {
            continue;
        }
        at.push(name.clone());
        if path.is_dir() {
            collect(&path, at, into);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let is_folders = name == "mod" || (name == "lib" && at.len() == 1);
            let module = if is_folders { at[..at.len() - 1].to_vec() } else { at.clone() };
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            into.insert(module, (path.display().to_string(), code.join("\n")));
        }
        at.pop();
    }
}

/// Hands each `use` to `take`, and whether it is public; returns the rest.
fn without_uses(text: &str, mut take: impl FnMut(bool, &str)) -> String {
    let (mut rest, mut begun) = (String::new(), None::<(bool, String)>);
    for line in text.lines() {
        let code = line.trim();
        let (is_public, code) = match (&begun, code.split_once("use ")) {
            (Some((is_public, _)), _) => (*is_public, code),
            (None, Some((before, tree))) if before.is_empty() || before.starts_with("pub") => {
                (before.starts_with("pub"), tree)
            }
            (None, _) => {
                rest.push_str(line);
                rest.push('\n');
                continue;
            }
        };
        let tree = begun.take().map_or_else(String::new, |(_, tree)| tree) + code;
        match tree.strip_suffix(';') {
            Some(tree) => take(is_public, tree),
            None => begun = Some((is_public, tree)),
        }
    }
    rest
}

/// The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().to_owned()];
    };
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for character in inner.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if character == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    let named = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    named.flat_map(|part| expand(&format!("{before}{part}"))).collect()
}

/// Paths that stand in the code itself.
fn inline(code: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("crate::") || word.starts_with("super::")).map(ToOwned::to_owned).collect()
}

/// A path from the crate's root; `None` for other crates.
fn absolute(files: &BTreeMap<Module, String>, module: &Module, path: &str) -> Option<Module> {
    let parts: Module = path.split("::").map(ToOwned::to_owned).filter(|part| !part.is_empty()).collect();
    let (first, rest) = parts.split_first()?;
    if first == "crate" {
        return Some(rest.to_vec());
    }
    let is_relative = |part: &&String| matches!(part.as_str(), "super" | "self");
    let ups = parts.iter().take_while(is_relative).filter(|part| *part == "super").count();
    let skipped = parts.iter().take_while(is_relative).count();
    if skipped > 0 {
        let base = &module[..module.len().checked_sub(ups)?];
        return Some([base, &parts[skipped..]].concat());
    }
    let child = [module.as_slice(), std::slice::from_ref(first)].concat();
    files.contains_key(&child).then(|| [module.as_slice(), &parts].concat())
}

/// The file in which what a path names is: behind re-exports, where it is re-exported.
fn resolve(
    files: &BTreeMap<Module, String>,
    reexported: &BTreeMap<(Module, String), Module>,
    path: &[String],
    depth: u8,
) -> Option<Module> {
    for length in (0..=path.len()).rev() {
        let module = path[..length].to_vec();
        if files.contains_key(&module) {
            let behind = path.get(length).and_then(|name| reexported.get(&(module.clone(), name.clone())));
            return match behind {
                Some(behind) if depth < 5 => {
                    resolve(files, reexported, &[behind.as_slice(), &path[length + 1..]].concat(), depth + 1)
                }
                _ => Some(module),
            };
        }
    }
    None
}
