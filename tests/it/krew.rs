//! The manifest of the plugin names what is built here.

use std::fs;
use std::path::Path;

use serde_json::Value;

#[test]
fn the_manifest_for_krew_names_this_program_and_this_version() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/krew.yaml");
    let plugin: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(plugin["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    // kubectl finds it as `kubectl-crewjob`, the name under which the program is the plugin.
    assert_eq!(plugin["metadata"]["name"], "crewjob");
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    assert_eq!(plugin["spec"]["version"], version);
    assert!(plugin["spec"]["shortDescription"].as_str().unwrap().len() <= 50, "Krew cuts it off");
    let program = Path::new(env!("CARGO_BIN_EXE_crewjob")).file_name().unwrap().to_str().unwrap();
    let platforms = plugin["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2);
    for platform in platforms {
        let of = |name: &str| platform["selector"]["matchLabels"][name].as_str().unwrap();
        let archive = format!("/crewjob-{version}-{}-{}.tar.gz", of("os"), of("arch"));
        assert!(platform["uri"].as_str().unwrap().ends_with(&archive), "{platform}");
        assert_eq!((&platform["bin"], platform["sha256"].as_str().unwrap().len()), (&Value::from(program), 64));
    }
}
