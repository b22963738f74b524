//! The layers of the house, held by reading the code: imports point down only.

use std::fs;
use std::path::{Path, PathBuf};

/// A layer, what it may import from this crate, and outside crates that stop above it.
struct Layer {
    module: &'static str,
    may_import: &'static [&'static str],
    never: &'static [&'static str],
}

const PURE: &[&str] = &["tokio", "redis", "kube", "k8s_openapi", "serde", "serde_json", "futures", "axum", "clap"];

const LAYERS: &[Layer] = &[
    Layer { module: "core", may_import: &["core"], never: PURE },
    Layer { module: "wire", may_import: &["wire"], never: PURE },
    Layer { module: "api", may_import: &["api", "core", "wire"], never: &["redis", "tokio", "axum"] },
    Layer { module: "runtime", may_import: &["runtime", "core"], never: &["kube", "k8s_openapi", "redis"] },
    Layer {
        module: "store",
        may_import: &["store", "runtime", "core", "wire"],
        never: &["kube", "k8s_openapi", "axum"],
    },
    Layer { module: "cluster", may_import: &["cluster", "runtime"], never: &["redis", "axum"] },
    Layer { module: "archive", may_import: &["archive", "runtime"], never: &["kube", "k8s_openapi", "redis", "axum"] },
    Layer {
        module: "operator",
        may_import: &["operator", "api", "archive", "cluster", "store", "runtime", "core", "wire"],
        never: &["redis"],
    },
    Layer {
        module: "gateway",
        may_import: &["gateway", "ctl", "api", "cluster", "store", "runtime", "core"],
        never: &["k8s_openapi", "redis"],
    },
    Layer {
        module: "worker",
        may_import: &["worker", "store", "runtime", "core", "wire"],
        never: &["redis", "kube", "k8s_openapi"],
    },
    Layer {
        module: "ctl",
        may_import: &["ctl", "api", "archive", "store", "runtime", "core", "wire"],
        never: &["redis", "axum"],
    },
    Layer {
        module: "cli",
        may_import: &["cli", "ctl", "gateway", "operator", "worker", "api", "cluster", "runtime", "core"],
        never: &["redis"],
    },
];

#[test]
fn imports_point_down_only() {
    let mut broken = Vec::new();
    for layer in LAYERS {
        for file in rust_files(&source().join(layer.module)) {
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                if let Some(module) = imported(line)
                    && !layer.may_import.contains(&module.as_str())
                {
                    broken.push(format!(
                        "{}:{}: {} imports {module}; it may import {:?}",
                        file.display(),
                        number + 1,
                        layer.module,
                        layer.may_import
                    ));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_drawing_in_the_document_shows_these_imports() {
    let document = fs::read_to_string(source().parent().unwrap().join("ARCHITECTURE.md")).unwrap();
    let drawn: Vec<&str> = document.lines().filter(|line| line.starts_with("src/") && line.contains("─►")).collect();
    let mut expected: Vec<String> = Vec::new();
    for layer in LAYERS.iter().rev() {
        let below = layer.may_import.iter().filter(|module| **module != layer.module);
        let below: Vec<String> = below.map(|module| format!("src/{module}")).collect();
        if !below.is_empty() {
            expected.push(format!("src/{:<8} ─► {}", layer.module, below.join(" ")));
        }
    }
    assert_eq!(sorted(drawn), sorted(expected.iter().map(String::as_str).collect()));
}

#[test]
fn what_only_the_binary_uses_is_private_so_that_rustc_reports_code_without_a_caller() {
    let public = |file: &str| {
        let text = fs::read_to_string(source().join(file)).unwrap();
        text.lines()
            .filter_map(|line| Some(line.strip_prefix("pub mod ")?.trim_end_matches([';', ' ', '{']).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(public("lib.rs"), ["core", "wire", "api", "cli", "runtime", "store", "worker"]);
    assert_eq!(public("runtime/mod.rs"), ["clock", "metrics"]);
    assert_eq!(public("worker/mod.rs"), ["steps"]);
}

fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
    lines.sort_unstable();
    lines
}

#[test]
fn the_types_of_kubernetes_and_redis_stop_where_they_should() {
    let mut broken = Vec::new();
    for layer in LAYERS {
        for file in rust_files(&source().join(layer.module)) {
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                let code = line.trim_start();
                if code.starts_with("//") {
                    continue;
                }
                let reached = layer
                    .never
                    .iter()
                    .find(|name| code.starts_with(&format!("use {name}::")) || code.contains(&format!(" {name}::")));
                if let Some(name) = reached {
                    broken.push(format!("{}:{}: {} reaches {name}", file.display(), number + 1, layer.module));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn features_are_told_apart_in_one_file() {
    let elsewhere: Vec<PathBuf> = rust_files(&source())
        .into_iter()
        .filter(|file| file.file_name().is_some_and(|name| name != "lib.rs"))
        .filter(|file| fs::read_to_string(file).unwrap().contains("cfg(feature"))
        .collect();
    assert!(elsewhere.is_empty(), "cfg(feature) belongs in lib.rs only: {elsewhere:?}");
}

#[test]
fn every_module_is_a_layer() {
    let mut modules: Vec<String> = fs::read_dir(source())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    modules.sort();
    let mut layers: Vec<&str> = LAYERS.iter().map(|layer| layer.module).collect();
    layers.sort_unstable();
    assert_eq!(modules, layers);
}

/// The module that `use crate::module…` names. One module to a `use`, so that this can be read.
fn imported(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("use crate::")?;
    Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files
}
