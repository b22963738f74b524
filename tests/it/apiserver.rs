//! What a real API server makes of the resources: each rule refuses the bad object with a message that names the field,
//! and accepts the good one.

mod jobs;
mod pools;
mod printed;
mod reading;
mod schedules;
mod statuses;

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;

/// One of the kinds, and what every spec of it starts with.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    plural: &'static str,
    base: &'static str,
}

const JOB: Kind = Kind { name: "CrewJob", plural: "crewjobs", base: "{ topic: bees }" };
const POOL: Kind = Kind { name: "CrewWorkerPool", plural: "crewworkerpools", base: "{ redis: { secretName: redis } }" };

const SCHEDULE: Kind = Kind {
    name: "CrewSchedule",
    plural: "crewschedules",
    base: "{ schedules: ['30 2 * * *'], template: { spec: { topic: bees } } }",
};

impl Kind {
    /// The API server takes an object with these fields in its spec. Gives the spec with the defaults filled in.
    #[track_caller]
    fn accepts(self, spec: &str) -> Value {
        match self.try_create(spec) {
            Ok(object) => object.data["spec"].clone(),
            Err(message) => panic!("{spec}\nis refused: {message}"),
        }
    }

    /// The API server refuses an object with these fields in its spec because of `FIELD: WHY`.
    #[track_caller]
    fn refuses(self, spec: &str, because: &str) {
        match self.try_create(spec) {
            Ok(_) => panic!("{spec}\nis accepted"),
            Err(message) => assert_says(&message, because),
        }
    }

    fn try_create(self, spec: &str) -> Result<DynamicObject, String> {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let server = ControlPlane::shared();
        server.block_on(self.api("default").create(&dry_run, &self.object(spec))).map_err(said)
    }

    /// An object that is really there.
    #[track_caller]
    fn create(self, spec: &str) -> Stored {
        self.create_in("default", spec)
    }

    #[track_caller]
    fn create_in(self, namespace: &str, spec: &str) -> Stored {
        let api = self.api(namespace);
        let created = ControlPlane::shared().block_on(api.create(&PostParams::default(), &self.object(spec)));
        Stored { kind: self, api, name: created.unwrap().metadata.name.unwrap() }
    }

    /// An object whose spec has the base's fields and these.
    fn object(self, spec: &str) -> DynamicObject {
        let mut merged = yaml(self.base);
        merge(&mut merged, yaml(spec));
        let object = json!({
            "apiVersion": "crewjob.dev/v1alpha1",
            "kind": self.name,
            "metadata": { "generateName": "test-" },
            "spec": merged,
        });
        serde_json::from_value(object).unwrap()
    }

    fn api(self, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("crewjob.dev", "v1alpha1", self.name);
        let resource = ApiResource::from_gvk_with_plural(&kind, self.plural);
        Api::namespaced_with(ControlPlane::shared().client(), namespace, &resource)
    }
}

/// An object on the API server.
struct Stored {
    kind: Kind,
    api: Api<DynamicObject>,
    name: String,
}

impl Stored {
    fn get(&self) -> DynamicObject {
        ControlPlane::shared().block_on(self.api.get(&self.name)).unwrap()
    }

    fn status(&self) -> Value {
        self.get().data["status"].clone()
    }

    /// Changes the spec; only to see whether that is accepted.
    fn try_patch(&self, spec: &str) -> Result<(), String> {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": yaml(spec) }));
        ControlPlane::shared().block_on(self.api.patch(&self.name, &params, &patch)).map(drop).map_err(said)
    }

    #[track_caller]
    fn accepts(&self, spec: &str) {
        if let Err(message) = self.try_patch(spec) {
            panic!("{spec}\nis refused: {message}");
        }
    }

    #[track_caller]
    fn refuses(&self, spec: &str, because: &str) {
        match self.try_patch(spec) {
            Ok(()) => panic!("{spec}\nis accepted"),
            Err(message) => assert_says(&message, because),
        }
    }

    /// Writes the status by merge patch; `null` removes a field, or all of it.
    fn merge_status(&self, status: &Value) -> Result<(), String> {
        let patch = Patch::Merge(json!({ "status": status }));
        self.patch_status(&PatchParams::default(), &patch)
    }

    /// Writes the status by a forced server-side apply; what the same manager applied before and leaves out now goes.
    fn apply_status(&self, status: &Value) -> Result<(), String> {
        let mut object = json!({
            "apiVersion": "crewjob.dev/v1alpha1",
            "kind": self.kind.name,
            "metadata": { "name": self.name },
        });
        if !status.is_null() {
            object["status"] = status.clone();
        }
        let params = PatchParams::apply("tests").force();
        self.patch_status(&params, &Patch::Apply(object))
    }

    fn patch_status(&self, params: &PatchParams, patch: &Patch<Value>) -> Result<(), String> {
        ControlPlane::shared().block_on(self.api.patch_status(&self.name, params, patch)).map(drop).map_err(said)
    }

    /// Writes the status by PUT, as it is given.
    fn put_status(&self, status: &Value) -> Result<(), String> {
        let mut object = self.get();
        object.data["status"] = status.clone();
        let params = PostParams::default();
        ControlPlane::shared().block_on(self.api.replace_status(&self.name, &params, &object)).map(drop).map_err(said)
    }
}

fn yaml(text: &str) -> Value {
    if text.is_empty() {
        json!({})
    } else {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
    }
}

/// Puts the fields of `more` over those of `object`.
fn merge(object: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("{more} is not an object") };
    for (key, value) in more {
        object[key] = value;
    }
}

fn said(error: kube::Error) -> String {
    if let kube::Error::Api(status) = error { status.message } else { error.to_string() }
}

/// A message is right when it names the field and says why: `because` is `FIELD: WHY`, or only why.
#[track_caller]
fn assert_says(message: &str, because: &str) {
    let (field, why) = because.split_once(": ").unwrap_or(("", because));
    let names_the_field = field.is_empty() || message.contains(&format!("{field}: "));
    assert!(names_the_field && message.contains(why), "refused, but not because of {because:?}: {message}");
}
