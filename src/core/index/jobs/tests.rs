use std::collections::BTreeMap as Model;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn name(from: &'static [&'static str]) -> impl Strategy<Value = Arc<str>> {
    proptest::sample::select(from).prop_map(Arc::from)
}

fn job() -> impl Strategy<Value = ObjectKey> {
    (name(&["red", "blue"]), name(&["a", "b", "c", "d"])).prop_map(|(namespace, name)| ObjectKey { namespace, name })
}

fn share() -> impl Strategy<Value = Share> {
    let flags = proptest::array::uniform7(any::<bool>());
    let times = (option::of(1..4_u64), option::of(0..3_i64));
    let waits_for = option::of(proptest::sample::select(&["Enqueued", "Suspended"][..]));
    let workers = (
        option::of(name(&["crew@one", "crew@two"])),
        option::of(name(&["one", "two"])),
        option::of(name(&["one", "two"])),
    );
    (name(&["default", "large"]), times, flags, waits_for, workers).prop_map(
        |(pool, times, flags, waits_for, workers)| Share {
            pool,
            waits_for,
            hard_limit: times.0.map(Duration::from_secs),
            is_begun: flags[0],
            is_queued: flags[1],
            published_at: times.1.and_then(|second| Timestamp::from_second(second).ok()),
            is_unread: flags[2],
            is_fresh: flags[3],
            is_missed: flags[4],
            is_outstanding: flags[5],
            is_futile: flags[6],
            node: workers.0,
            busy_pod: workers.1,
            seen_pod: workers.2,
        },
    )
}

/// Every figure, counted anew over all jobs.
fn check(index: &Index, jobs: &Model<ObjectKey, Share>) {
    for namespace in ["red", "blue"] {
        for pool in ["default", "large"] {
            let key = ObjectKey::new(namespace, pool);
            let own: Vec<(&ObjectKey, &Share)> =
                jobs.iter().filter(|(job, share)| &*job.namespace == namespace && &*share.pool == pool).collect();
            let empty = PoolJobs::default();
            let counted = index.pool(&key).unwrap_or(&empty);
            assert_eq!(index.pool(&key).is_some(), !own.is_empty(), "a pool without jobs is not kept");
            assert_eq!(index.pools_of(namespace).any(|known| *known == key), !own.is_empty());
            let names = |of: fn(&Share) -> bool| -> HashSet<Arc<str>> {
                own.iter().filter(|(_, share)| of(share)).map(|(job, _)| job.name.clone()).collect()
            };
            assert_eq!(counted.names().cloned().collect::<HashSet<_>>(), names(|_| true));
            assert_eq!(counted.len(), own.len());
            assert_eq!(counted.unread().cloned().collect::<HashSet<_>>(), names(|share| share.is_unread));
            assert_eq!(counted.begun(), names(|share| share.is_begun).len());
            assert_eq!(counted.queued(), names(|share| share.is_queued).len());
            assert_eq!(counted.outstanding(), names(|share| share.is_outstanding).len());
            assert_eq!(counted.missed(), names(|share| share.is_missed).len());
            assert_eq!(counted.futile(), names(|share| share.is_futile).len());
            assert_eq!(counted.fresh(), names(|share| share.is_fresh).len());
            assert_eq!(counted.hard_limit(), own.iter().filter_map(|(_, share)| share.hard_limit).max());
            let oldest = own.iter().filter(|(_, share)| share.is_queued).filter_map(|(_, share)| share.published_at);
            assert_eq!(counted.oldest(), oldest.min());
            for reason in ["Enqueued", "Suspended"] {
                let waiting =
                    index.waiting().find(|(pool, why, _)| **pool == key && *why == reason).map_or(0, |it| it.2);
                assert_eq!(waiting, own.iter().filter(|(_, share)| share.waits_for == Some(reason)).count());
            }
            let nodes: HashSet<_> = own.iter().filter_map(|(_, share)| share.node.clone()).collect();
            assert_eq!(counted.busy_workers(), nodes.len());
            let pods: HashSet<_> = own.iter().filter_map(|(_, share)| share.busy_pod.clone()).collect();
            assert_eq!(counted.busy_pods().cloned().collect::<HashSet<_>>(), pods);
        }
        let mut everywhere = HashSet::new();
        for pod in ["one", "two"] {
            let is_seen = |(job, share): &(&ObjectKey, &Share)| {
                &*job.namespace == namespace && share.seen_pod.as_deref() == Some(pod)
            };
            let seen: HashSet<_> = jobs.iter().filter(is_seen).map(|(job, _)| job.name.clone()).collect();
            assert_eq!(index.seen_with(&ObjectKey::new(namespace, pod)).cloned().collect::<HashSet<_>>(), seen);
            everywhere.extend(seen);
        }
        assert_eq!(index.seen_in(namespace).cloned().collect::<HashSet<_>>(), everywhere);
    }
}

proptest! {
    #[test]
    fn every_figure_of_a_pool_is_what_counting_its_jobs_anew_comes_to(
        changes in vec((job(), option::of(share())), 0..40),
    ) {
        let (mut index, mut jobs) = (Index::default(), Model::new());
        for (job, after) in changes {
            let before = match &after {
                Some(share) => jobs.insert(job.clone(), share.clone()),
                None => jobs.remove(&job),
            };
            index.change(&job, before.as_ref(), after.as_ref());
            check(&index, &jobs);
        }
        for (job, share) in std::mem::take(&mut jobs) {
            index.change(&job, Some(&share), None);
        }
        prop_assert_eq!(index, Index::default(), "nothing is kept of jobs that are gone");
    }
}
