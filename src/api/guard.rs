//! Reading lists and watches in which one object may be unreadable.

use std::borrow::Cow;

use kube::{
    Resource,
    core::{ObjectMeta, error_boundary::InvalidObject},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// An object, or why it cannot be read; an unreadable one does not keep the others of its list or watch from being read.
///
/// Unlike [`kube::core::DeserializeGuard`] it takes the object as text first: that copes with any depth of nesting, and
/// builds no second tree of every object.
#[derive(Clone, Debug)]
pub struct Guard<K>(pub Result<K, InvalidObject>);

/// What is left of an object that cannot be read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).map_err(|error| InvalidObject {
            // It may quote the object.
            error: super::text::head(&error.to_string(), 512).to_owned(),
            metadata: serde_json::from_str::<MetadataOnly>(text.get()).unwrap_or_default().metadata,
        })))
    }
}

impl<K: Resource> Resource for Guard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(invalid) => &invalid.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::{ResourceExt, core::WatchEvent};
    use serde_json::json;

    use super::*;
    use crate::api::{CrewJob, Phase};

    fn job(name: &str, phase: &str) -> String {
        json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": { "name": name },
            "spec": { "topic": "bees" }, "status": { "phase": phase },
        })
        .to_string()
    }

    #[test]
    fn an_unreadable_object_leaves_its_name_and_the_others_alone() {
        let list = format!("[{}, {}]", job("bad", "Sideways"), job("good", "Running"));
        let read: Vec<Guard<CrewJob>> = serde_json::from_str(&list).unwrap();
        let error = read[0].0.as_ref().unwrap_err();
        assert_eq!((read[0].name_any(), read[1].name_any()), ("bad".to_owned(), "good".to_owned()));
        assert!(error.to_string().contains("Sideways"), "{error}");
        assert_eq!(read[1].0.as_ref().unwrap().status.as_ref().unwrap().phase, Phase::Running);
    }

    #[test]
    fn an_object_that_nests_too_deeply_is_unreadable_and_still_has_its_name() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let object = format!(r#"{{"metadata": {{"name": "deep"}}, "unknown": {deep}, "spec": {deep}}}"#);
        let read: Guard<CrewJob> = serde_json::from_str(&object).unwrap();
        assert!(read.0.is_err());
        assert_eq!(read.name_any(), "deep");
    }

    #[test]
    fn a_watch_event_can_carry_either() {
        for (phase, readable) in [("Running", true), ("Sideways", false)] {
            let line = format!(r#"{{"type": "MODIFIED", "object": {}}}"#, job("a", phase));
            let event: WatchEvent<Guard<CrewJob>> = serde_json::from_str(&line).unwrap();
            let WatchEvent::Modified(object) = event else { panic!("{event:?}") };
            assert_eq!(object.0.is_ok(), readable);
        }
    }
}
