//! What an operator knows of a job, and what workers and result documents tell.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;

use super::super::evidence::{Document, Evidence, Report};
use super::super::index::Entry;
use super::super::observed::{Observed, PodDeletion, Pool, Published};
use super::super::status::{Holder, PoolProblem, PoolProblemKind};
use super::at;
use super::broker;
use super::world::World;

impl World {
    /// What `operator` knows of a job, put together from memory.
    pub fn observe(&self, operator: usize, entry: &Entry<()>) -> Observed {
        static DOWN: LazyLock<PoolProblem> = LazyLock::new(|| PoolProblem {
            kind: PoolProblemKind::BrokerUnreachable,
            detail: "Redis cannot be reached".into(),
        });
        let evidence = &entry.evidence;
        let is_usable = self.operators[operator].connected;
        let recorded = entry.job.status.attempt.map(|attempt| attempt.enqueued_at);
        let publication = evidence.publication();
        Observed {
            pool: if is_usable { Pool::Ready(Arc::clone(&self.facts)) } else { Pool::Unusable(DOWN.clone()) },
            of: evidence.of(),
            published: Published { at: publication.at.or(recorded), ..publication },
            stop_asked_at: evidence.stop_asked_at(),
            stop_repeated_at: evidence.stop_repeated_at(),
            pod_deletion: evidence.stop_asked_at().map_or(PodDeletion::Useless, |_| self.pod_deletion(evidence)),
            others: evidence.others(),
            claim: entry.claim(),
            twins: entry.twins(),
            permit: self.operators[operator].table.permit(&entry.job.key, self.clock_of(operator)),
            task: evidence.task(|seen| self.known_pods.judge(Some(&self.fleet), &self.pool.namespace, seen)),
        }
    }

    /// A result document as operators read it.
    pub fn told(&self, document: &broker::Document) -> Document {
        match document {
            broker::Document::Started { pod, retries } => Document::Running(Report {
                celery_retries: *retries,
                ..self.report(*pod, at(self.now), Some(at(self.now)))
            }),
            broker::Document::Retry { retries } => Document::Running(Report {
                holder: None,
                said_at: at(self.now),
                behind: 0,
                started_at: None,
                celery_retries: retries + 1,
                progress: None,
                account: None,
            }),
            broker::Document::Ended { how, pod, retries } => Document::Over {
                how: how.clone(),
                worker: Some(self.pods[*pod].holder()),
                celery_retries: *retries,
                finished_at: None,
                account: None,
            },
        }
    }

    /// What is said by a worker, with what the operator knows of its clock.
    pub fn heard_of(&self, operator: usize, document: Document) -> Document {
        match document {
            Document::Running(mut report) => {
                let node = report.holder.as_ref().map(|holder| &*holder.node);
                report.behind = node.map_or(0, |node| self.operators[operator].clocks.behind(node));
                Document::Running(report)
            }
            over @ Document::Over { .. } => over,
        }
    }

    /// What a worker says of a task that it has.
    pub fn report(&self, pod: usize, said_at: Timestamp, started_at: Option<Timestamp>) -> Report {
        Report {
            holder: Some(self.pods[pod].holder()),
            said_at,
            behind: 0,
            started_at,
            celery_retries: 0,
            progress: None,
            account: None,
        }
    }

    /// Whether the Pod of the job's worker runs one task at a time, as far as the pool's settings tell, and stays.
    fn pod_deletion(&self, evidence: &Evidence) -> PodDeletion {
        match evidence.holder_now().map(|holder| &self.pods[pod_of(holder)]) {
            Some(pod) if pod.concurrency == 1 && !pod.draining => PodDeletion::Fine,
            Some(_) | None => PodDeletion::Useless,
        }
    }
}

/// Which Pod that is.
fn pod_of(holder: &Holder) -> usize {
    holder.node.strip_prefix("crew@worker-").unwrap().parse().unwrap()
}
