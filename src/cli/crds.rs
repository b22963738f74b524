//! `crewjob crds`: the resource definitions, printed and installed.

use std::io::{self, Write};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::api;

/// Prints the definitions of all resources as YAML documents, ready for `kubectl apply --server-side -f -`.
pub fn print(out: &mut impl Write) -> io::Result<()> {
    for definition in api::crds() {
        writeln!(out, "---\n{}", yaml(&definition)?)?;
    }
    Ok(())
}

/// One definition as YAML, ending without a line break.
pub fn yaml(definition: &CustomResourceDefinition) -> io::Result<String> {
    let mut value = serde_json::to_value(definition)?;
    write_whole_numbers_as_such(&mut value);
    let text = serde_saphyr::to_string(&value).map_err(io::Error::other)?;
    Ok(text.trim_end().to_owned())
}

/// The Kubernetes types hold bounds as floats, so that a maximum of 10 would read `10.0`.
fn write_whole_numbers_as_such(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Ok(whole) = number.to_string().trim_end_matches(".0").parse::<i64>() {
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers_as_such),
        Value::Object(object) => object.values_mut().for_each(write_whole_numbers_as_such),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_definitions_read_back() {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        let read: Vec<CustomResourceDefinition> =
            serde_saphyr::from_multiple(std::str::from_utf8(&out).unwrap()).unwrap();
        assert_eq!(read, api::crds());
    }
}
