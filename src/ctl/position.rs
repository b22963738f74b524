//! The places of all jobs that wait: on their queues, as `explain` says that of one, and for the limits of their pools.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::explain::queue::{band, depth, queue_of, since};
use crate::api::{CrewJob, CrewWorkerPool, Phase};
use crate::core::limits::{Keys, LIMIT_REACHED, Limits, Order};

/// Namespace and name.
type Key = (String, String);

/// A job that waits: what it is ordered by, and which one it is.
type Waiting = (u8, (Option<Timestamp>, String), Key);

/// What limits the jobs of a pool, and those that wait for that, by their keys.
type Limited = (Arc<Limits>, HashMap<Keys, Vec<(Order, Key)>>);

/// Jobs that wait, while they are listed.
#[derive(Debug, Default)]
pub struct Waits {
    pools: HashMap<Key, (CrewWorkerPool, Vec<u8>)>,
    /// Of each pool, by queue.
    waiting: HashMap<Key, HashMap<String, Vec<Waiting>>>,
    /// Of each pool that has limits.
    limited: HashMap<Key, Limited>,
}

/// Where each of them stands, the first being 1.
#[derive(Debug, Default)]
pub struct Positions(HashMap<Key, usize>);

impl Positions {
    /// Of this job, if it waits.
    pub fn of(&self, namespace: &str, name: &str) -> Option<usize> {
        self.0.get(&(namespace.to_owned(), name.to_owned())).copied()
    }
}

fn key(object: &impl kube::Resource) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl Waits {
    /// Nothing waits yet in these pools.
    pub fn new(pools: impl IntoIterator<Item = CrewWorkerPool>) -> Self {
        let mut limited = HashMap::new();
        let with_steps = pools.into_iter().map(|pool| {
            if let Some(limits) = pool.spec.to_facts(&pool.name_any()).limits {
                limited.insert(key(&pool), (limits, HashMap::new()));
            }
            let steps = pool.spec.celery.priority_steps.iter().filter_map(|step| u8::try_from(*step).ok()).collect();
            (key(&pool), (pool, steps))
        });
        Self { pools: with_steps.collect(), waiting: HashMap::new(), limited }
    }

    /// Jobs of these phases may have a place.
    pub fn phases(&self) -> Vec<String> {
        let limited: &[&str] = if self.limited.is_empty() { &[] } else { &["Pending", "Retrying"] };
        ["Queued"].iter().chain(limited).map(ToString::to_string).collect()
    }

    /// Adds a job.
    pub fn add(&mut self, job: &CrewJob) {
        let is_queued = job.status.as_ref().is_some_and(|status| status.phase == Phase::Queued);
        let pool = (job.namespace().unwrap_or_default(), job.spec.pool_ref.name.clone());
        if let Some((found, steps)) = self.pools.get(&pool).filter(|_| is_queued) {
            let waiting = (band(job, steps), since(job), key(job));
            self.waiting.entry(pool).or_default().entry(queue_of(job, found)).or_default().push(waiting);
            return;
        }
        let Some((limits, waiting)) = self.limited.get_mut(&pool) else { return };
        let Ok(known) = job.to_job() else { return };
        if known.status.why.reason() == LIMIT_REACHED {
            let order = Order::of(known.created_at, known.spec.priority, limits.aging);
            waiting.entry(limits.keys_of(&known)).or_default().push((order, key(job)));
        }
    }

    /// Where each job stands: behind more urgent ones, those that have waited longer, and all messages of other producers
    /// that may be before it.
    pub fn positions(self) -> Positions {
        let mut found = HashMap::new();
        for mut line in self.limited.into_values().flat_map(|(_, lines)| lines.into_values()) {
            line.sort_unstable();
            found.extend(line.into_iter().zip(1..).map(|((_, key), position)| (key, position)));
        }
        for (pool, queues) in self.waiting {
            let Some((pool, _)) = self.pools.get(&pool) else { continue };
            for (queue, mut waiting) in queues {
                waiting.sort_unstable();
                let depth_of = |is_it: &dyn Fn(i32) -> bool| depth(pool, &queue, is_it);
                let mut before = 0;
                while let Some(&(band, ..)) = waiting.get(before) {
                    let own = i32::from(band);
                    let in_band = waiting[before..].iter().take_while(|it| it.0 == band).count();
                    let foreign = depth_of(&|step| step < own).saturating_sub(before)
                        + depth_of(&|step| step == own).saturating_sub(in_band);
                    let jobs = waiting[before..before + in_band].iter().zip(before + foreign + 1..);
                    found.extend(jobs.map(|((.., key), position)| (key.clone(), position)));
                    before += in_band;
                }
            }
        }
        Positions(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::explain::queue::Survey;
    use super::*;

    fn job(name: &str, priority: i32, since: i64, phase: &str) -> CrewJob {
        let at = Timestamp::from_second(1_800_000_000 + since).unwrap().to_string();
        let status = json!({ "phase": phase, "queue": "crew_jobs", "queuedAt": at });
        let spec = json!({ "topic": "Tea", "priority": priority });
        let metadata = json!({ "name": name, "namespace": "team" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
    }

    fn pool(depths: [u32; 4]) -> CrewWorkerPool {
        let bands: Vec<Value> =
            depths.iter().zip([0, 3, 6, 9]).map(|(depth, step)| json!({ "step": step, "depth": depth })).collect();
        let status = json!({ "queues": [{ "name": "crew_jobs", "bands": bands }] });
        let spec = json!({ "redis": { "secretName": "redis" } });
        let metadata = json!({ "name": "default", "namespace": "team" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn each_job_has_the_place_that_explain_says() {
        let jobs = [
            job("urgent", 10, 50, "Queued"),
            job("b", 5, 20, "Queued"),
            job("a", 5, 20, "Queued"),
            job("first", 5, 5, "Queued"),
            job("idle", 0, 1, "Queued"),
            job("runs", 10, 1, "Running"),
        ];
        for depths in [[1, 3, 0, 1], [4, 3, 2, 9], [0; 4]] {
            let pool = pool(depths);
            let mut waits = Waits::new([pool.clone()]);
            for job in &jobs {
                waits.add(job);
            }
            let positions = waits.positions();
            for own in &jobs {
                let name = own.name_any();
                let mut survey = Survey::new(own, &pool);
                for job in &jobs {
                    survey.add(job, &pool, Timestamp::UNIX_EPOCH);
                }
                let expected = Some(survey.place(&pool).ahead + 1).filter(|_| name != "runs");
                assert_eq!(positions.of("team", &name), expected, "{name} of {depths:?}");
            }
        }
    }

    #[test]
    fn a_job_that_waits_for_a_limit_has_a_place_among_those_with_the_same_keys() {
        let limited = |name: &str, tenant: &str, priority: i32, created: i64, reason: &str| -> CrewJob {
            let at = Timestamp::from_second(1_800_000_000 + created).unwrap().to_string();
            let metadata = json!({
                "name": name, "namespace": "team", "uid": name, "creationTimestamp": at, "labels": { "tenant": tenant },
            });
            let condition = json!({
                "type": "Reconciling", "status": "True", "reason": reason, "message": "", "lastTransitionTime": at,
            });
            let status = json!({ "phase": "Pending", "conditions": [condition] });
            let spec = json!({ "topic": "Tea", "priority": priority });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
        };
        let mut pool = pool([0; 4]);
        let limit = json!([{ "name": "a", "key": { "by": "Label", "label": "tenant" }, "maxInFlight": 1 }]);
        pool.spec.limits = serde_json::from_value(limit).unwrap();
        let mut waits = Waits::new([pool]);
        assert_eq!(waits.phases(), ["Queued", "Pending", "Retrying"]);
        for job in [
            limited("second", "a", 5, 2, "LimitReached"),
            limited("first", "a", 5, 1, "LimitReached"),
            limited("urgent", "a", 9, 3, "LimitReached"),
            limited("other", "b", 5, 9, "LimitReached"),
            limited("held", "a", 5, 0, "Suspended"),
        ] {
            waits.add(&job);
        }
        let positions = waits.positions();
        let of = |name: &str| positions.of("team", name);
        assert_eq!([of("urgent"), of("first"), of("second")], [Some(1), Some(2), Some(3)]);
        assert_eq!((of("other"), of("held")), (Some(1), None));
    }

    #[test]
    fn a_job_of_a_pool_that_cannot_be_read_has_no_place() {
        let mut waits = Waits::new([]);
        waits.add(&job("a", 5, 20, "Queued"));
        assert_eq!(waits.positions().of("team", "a"), None);
    }
}
