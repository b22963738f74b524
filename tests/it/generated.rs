//! Files in the repository that are made from the code are what the code makes.

use std::{env, fs, path::Path};

use crewjob::{api, cli};

use crate::{api_reference, metrics_reference};

/// Set by `make generate`: write the files instead of complaining about them.
const GENERATE: &str = "CREWJOB_GENERATE";

#[track_caller]
fn check(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let found = fs::read_to_string(&file).unwrap_or_default();
    if found == expected {
        return;
    }
    if env::var_os(GENERATE).is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, expected).unwrap();
        return;
    }
    let line = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count() + 1;
    panic!("{path} is not what the code makes, from line {line} on. Bring it up to date:\n\n    make generate\n");
}

#[test]
fn the_resource_definitions_are_up_to_date() {
    for definition in api::crds() {
        let name = format!("{}.{}", definition.spec.names.plural, definition.spec.group);
        let yaml = cli::crds::yaml(&definition).unwrap();
        check(&format!("crds/{name}.yaml"), &format!("# Made by `make generate` from src/api. Do not edit.\n{yaml}\n"));
    }
}

#[test]
fn the_api_reference_is_up_to_date() {
    check("docs/api.md", &api_reference::render(&api::crds()));
}

#[test]
fn the_metrics_reference_is_up_to_date() {
    check("docs/metrics.md", &metrics_reference::render());
}
