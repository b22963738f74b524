//! What the operator reads back.

use std::time::Duration;

use crewjob::api::{CrewJob, CrewWorkerPool, Guard, Phase};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
    core::Request,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{JOB, POOL};
use crate::control_plane::ControlPlane;

/// Creates a job whose inputs have this many levels. The answer is not read: it would be too deep.
fn create_nested(namespace: &str, name: &str, levels: usize) {
    let server = ControlPlane::shared();
    let inputs = format!("{{\"a\": {}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let object = format!(
        r#"{{"apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": {{"name": "{name}"}}, "spec": {{"topic": "bees", "inputs": {inputs}}}}}"#
    );
    let request = Request::new(CrewJob::url_path(&(), Some(namespace)));
    let create = request.create(&PostParams::default(), object.into_bytes()).unwrap();
    server.block_on(server.client().request_text(create)).unwrap();
}

#[test]
fn a_job_that_nests_too_deeply_is_read_like_any_other_and_known_for_it() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    create_nested(&namespace, "deep", 2_000);
    create_nested(&namespace, "fine", 32);

    let jobs: Api<Guard<CrewJob>> = Api::namespaced(server.client(), &namespace);
    let listed = server.block_on(jobs.list(&ListParams::default())).unwrap().items;
    let watched = watcher(jobs, watcher::Config::default()).applied_objects().take(2).try_collect::<Vec<_>>();
    let watched = server.block_on(async { tokio::time::timeout(Duration::from_secs(20), watched).await });

    for read in [listed, watched.unwrap().unwrap()] {
        let problems: Vec<_> = read.into_iter().map(|job| (job.name_any(), job.0.unwrap().spec.problem())).collect();
        let [(deep, Some(problem)), (fine, None)] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!((deep.as_str(), fine.as_str()), ("deep", "fine"));
        assert!(problem.contains("is nested more than 32 levels deep"), "{problem}");
    }
}

#[test]
fn the_defaults_of_the_api_server_are_those_of_the_code() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    let (job, pool) = (JOB.create_in(&namespace, ""), POOL.create_in(&namespace, ""));

    let jobs: Api<CrewJob> = Api::namespaced(server.client(), &namespace);
    let job = server.block_on(jobs.get(&job.name)).unwrap();
    assert_eq!(job.spec, crewjob::api::CrewJobSpec::with_topic("bees"));
    assert_eq!(job.status.unwrap().phase, Phase::Pending);

    let pools: Api<CrewWorkerPool> = Api::namespaced(server.client(), &namespace);
    let pool = server.block_on(pools.get(&pool.name)).unwrap();
    assert_eq!(pool.spec, crewjob::api::CrewWorkerPoolSpec::with_secret("redis"));
}

#[test]
fn a_status_written_as_a_patch_is_read_back() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    let job = JOB.create_in(&namespace, "");
    let written = json!({
        "phase": "Running", "observedGeneration": 1, "specHash": "a1", "taskID": "7f1c", "attempts": 2,
        "deliveryGeneration": 1, "workerLosses": 1, "messageLosses": 1, "queue": "crew_jobs",
        "queuedAt": "2026-11-22T15:00:00Z", "startedAt": "2026-11-22T15:00:01Z", "nextRetryAt": "2026-11-22T15:00:02Z",
        "worker": {
            "name": "crew@w", "podName": "w", "podUID": "u", "containerID": "containerd://c", "startedAt": "2026-11-22T14:00:00Z",
        },
        "progress": { "percent": 50, "message": "half way" },
        "error": { "type": "ValueError", "message": "no", "traceback": "Traceback" },
        "attemptHistory": [{
            "number": 1, "taskID": "6e0b", "outcome": "WorkerLost", "worker": "crew@v", "enqueuedAt": "2026-11-22T14:00:00Z",
            "startedAt": "2026-11-22T14:00:01Z", "finishedAt": "2026-11-22T14:00:02Z", "errorType": "WorkerLostError", "message": "gone",
        }],
    });
    job.merge_status(&written).unwrap();
    let jobs: Api<CrewJob> = Api::namespaced(server.client(), &namespace);
    let read = server.block_on(jobs.get(&job.name)).unwrap().status.unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}
