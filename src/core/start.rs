//! Why the workers of a pool do not start: from its Deployment and Pods to one verdict.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// How long workers must be kept from starting before it is said. A Pod that the scheduler or the kubelet takes care of
/// by itself has begun by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the containers of a Pod may take to be created: large images are pulled within that time.
const CREATION: Duration = Duration::from_mins(3);
/// A container that ends sooner after its start has not worked.
const SHORT_RUN: Duration = Duration::from_mins(1);
/// How long messages must wait, unheard, before there is no worker.
const SILENCE: Duration = Duration::from_mins(1);

/// What keeps the workers of a pool from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Which of the closed list.
    pub kind: BlockedKind,
    /// One sentence for people: what is wrong, with which Pod, and how to mend it.
    pub detail: Arc<str>,
}

/// The closed list of what keeps workers from starting. Where Pods show more than one, the first is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockedKind {
    /// The Deployment that the pool names does not exist, and no other worker is heard.
    DeploymentNotFound,
    /// `spec.maxReplicas` is 0.
    NoReplicasAllowed,
    /// Another field manager has set the replicas to 0.
    ReplicasContested,
    /// The pool has no Deployment, and no worker is heard.
    NoWorkerAnswers,
    /// The image of a container cannot be pulled.
    ImageNotPulled,
    /// A container cannot be created: it names a Secret, ConfigMap or volume that is not there.
    ContainerNotCreated,
    /// A container ends again and again, soon after it has started.
    CrashLoop,
    /// The API server refuses the Pods: a quota, a policy, an admission webhook.
    PodsNotCreated,
    /// No node can take the Pod.
    PodsUnschedulable,
    /// The Pods do not become ready within the Deployment's `progressDeadlineSeconds`, and do not say why.
    PodsNotReady,
}

impl BlockedKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::DeploymentNotFound,
        Self::NoReplicasAllowed,
        Self::ReplicasContested,
        Self::NoWorkerAnswers,
        Self::ImageNotPulled,
        Self::ContainerNotCreated,
        Self::CrashLoop,
        Self::PodsNotCreated,
        Self::PodsUnschedulable,
        Self::PodsNotReady,
    ];

    /// The kind with this name.
    pub fn named(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.reason() == reason)
    }

    /// CamelCase name, as in a condition's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::DeploymentNotFound => "DeploymentNotFound",
            Self::NoReplicasAllowed => "NoReplicasAllowed",
            Self::ReplicasContested => "ReplicasContested",
            Self::NoWorkerAnswers => "NoWorkerAnswers",
            Self::ImageNotPulled => "ImageNotPulled",
            Self::ContainerNotCreated => "ContainerNotCreated",
            Self::CrashLoop => "CrashLoop",
            Self::PodsNotCreated => "PodsNotCreated",
            Self::PodsUnschedulable => "PodsUnschedulable",
            Self::PodsNotReady => "PodsNotReady",
        }
    }
}

/// What keeps one Pod from working, as Kubernetes says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The scheduler finds no node.
    Unschedulable {
        /// Why.
        message: Arc<str>,
    },
    /// Its containers are being created.
    Creating {
        /// Since when it has a node.
        since: Timestamp,
    },
    /// An image cannot be pulled.
    Image {
        /// The image.
        image: Arc<str>,
        /// Why.
        message: Arc<str>,
    },
    /// A container cannot be created or started.
    Container {
        /// The container.
        container: Arc<str>,
        /// Why.
        message: Arc<str>,
    },
    /// A container has ended and is started again.
    Crashed {
        /// The container.
        container: Arc<str>,
        /// How it ended: `exit code 1`, `OOMKilled`.
        how: Arc<str>,
        /// How long it had run.
        ran: Duration,
        /// Since when it runs again; `None` while it waits.
        running_since: Option<Timestamp>,
    },
}

impl Trouble {
    /// What it comes to, and what is said of it. A container that has run for a while works.
    fn verdict(&self, deployment: &str, now: Timestamp) -> Option<(BlockedKind, String)> {
        match self {
            Self::Unschedulable { message } => Some((
                BlockedKind::PodsUnschedulable,
                format!("no node can take it: {message}; add nodes, or lower what Deployment {deployment:?} requests"),
            )),
            Self::Creating { since } if age(*since, now) < CREATION => None,
            Self::Creating { .. } => Some((
                BlockedKind::ContainerNotCreated,
                format!(
                    "its containers have not been created for {} minutes: a volume is missing or an image is large; \
                     kubectl describe pod tells which",
                    CREATION.as_secs() / 60
                ),
            )),
            Self::Image { image, message } => Some((
                BlockedKind::ImageNotPulled,
                format!(
                    "image {image:?} cannot be pulled: {message}; correct the image of Deployment {deployment:?}, or \
                     give it imagePullSecrets"
                ),
            )),
            Self::Container { container, message } => Some((
                BlockedKind::ContainerNotCreated,
                format!(
                    "container {container:?} cannot be created: {message}; create what it names, or correct Deployment \
                     {deployment:?}"
                ),
            )),
            Self::Crashed { ran, running_since, .. }
                if *ran >= SHORT_RUN || running_since.is_some_and(|at| age(at, now) >= SHORT_RUN) =>
            {
                None
            }
            Self::Crashed { container, how, .. } => Some((
                BlockedKind::CrashLoop,
                format!(
                    "container {container:?} keeps ending, last with {how}; its last words: kubectl logs {{pod}} -c \
                     {container} --previous"
                ),
            )),
        }
    }
}

/// The workers of a pool, as far as it matters whether they start.
#[derive(Debug, Clone)]
pub struct Workers<'a> {
    /// The Deployment that the pool names, and what is known of it.
    pub deployment: Option<(&'a str, Option<Deployment<'a>>)>,
    /// `spec.maxReplicas` of the pool.
    pub max_replicas: u32,
    /// Messages that wait.
    pub queued: u64,
    /// Since when messages have waited without a break.
    pub waiting_since: Option<Timestamp>,
    /// When a worker was last heard of, wherever it runs.
    pub heard_at: Option<Timestamp>,
}

/// A worker Deployment that exists.
#[derive(Debug, Clone)]
pub struct Deployment<'a> {
    /// `spec.replicas`.
    pub replicas: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Another field manager that owns `spec.replicas`.
    pub contested_by: Option<&'a str>,
    /// Why Pods cannot be created: the message of its condition `ReplicaFailure`.
    pub failure: Option<&'a str>,
    /// Why it does not progress: the message of its condition `Progressing`, when that is false.
    pub stuck: Option<&'a str>,
    /// Its Pods that are in trouble, with their names.
    pub pods: &'a [(Arc<str>, Arc<Trouble>)],
}

/// What keeps workers from starting; `None` when nothing does, or nothing is to be started.
pub fn blocked(workers: &Workers<'_>, now: Timestamp) -> Option<Blocked> {
    let found = match &workers.deployment {
        None => unheard(workers, now).then(|| {
            let message = "no worker answers, and spec.deploymentRef names no Deployment to scale; start workers for \
                           the pool's queues, or name their Deployment";
            (BlockedKind::NoWorkerAnswers, message.to_owned())
        }),
        Some((name, None)) => unheard(workers, now).then(|| {
            let message = format!("Deployment {name:?} does not exist; create it, or correct spec.deploymentRef.name");
            (BlockedKind::DeploymentNotFound, message)
        }),
        Some((name, Some(deployment))) if deployment.replicas == 0 => (workers.queued > 0 && deployment.ready == 0)
            .then(|| scaled_to_zero(name, workers.max_replicas, deployment))
            .flatten(),
        Some((name, Some(deployment))) => held_up(name, deployment, now),
    };
    found.map(|(kind, detail)| Blocked { kind, detail: detail.into() })
}

/// Whether messages have waited for a while and no worker was heard of.
fn unheard(workers: &Workers<'_>, now: Timestamp) -> bool {
    let long_ago = |at: Timestamp| age(at, now) >= SILENCE;
    workers.queued > 0 && workers.waiting_since.is_some_and(long_ago) && workers.heard_at.is_none_or(long_ago)
}

fn scaled_to_zero(name: &str, max_replicas: u32, deployment: &Deployment<'_>) -> Option<(BlockedKind, String)> {
    if max_replicas == 0 {
        let message = "spec.maxReplicas is 0, so no worker is started; raise it";
        return Some((BlockedKind::NoReplicasAllowed, message.to_owned()));
    }
    deployment.contested_by.map(|by| {
        let message = format!("{by} has set the replicas of Deployment {name:?} to 0; scale it, or let the operator");
        (BlockedKind::ReplicasContested, message)
    })
}

fn held_up(name: &str, deployment: &Deployment<'_>, now: Timestamp) -> Option<(BlockedKind, String)> {
    let of_pods = deployment.pods.iter().filter_map(|(pod, trouble)| {
        let (kind, message) = trouble.verdict(name, now)?;
        Some((kind, pod, message))
    });
    if let Some((kind, pod, message)) = of_pods.min_by_key(|(kind, pod, _)| (*kind, *pod)) {
        return Some((kind, format!("Pod {pod:?}: {}", message.replace("{pod}", pod))));
    }
    if let Some(failure) = deployment.failure {
        let message = format!(
            "the Pods of Deployment {name:?} cannot be created: {failure}; raise the quota or meet the policy that it names"
        );
        return Some((BlockedKind::PodsNotCreated, message));
    }
    let stuck = deployment.stuck.filter(|_| deployment.ready == 0)?;
    let message =
        format!("the Pods of Deployment {name:?} do not become ready: {stuck}; kubectl describe pod tells why");
    Some((BlockedKind::PodsNotReady, message))
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// What has kept workers from starting for long enough to be said.
#[derive(Debug, Clone, Default)]
pub struct Lasting(Option<(Timestamp, Blocked)>);

impl Lasting {
    /// What was said before the watch began lasts on if it is found again: jobs that repeat it are not to be written anew.
    pub fn since_before(said: Option<Blocked>) -> Self {
        Self(said.map(|blocked| (Timestamp::MIN, blocked)))
    }

    /// Notes what was found now. Returns it once that kind has lasted, in the words in which it began: jobs repeat them,
    /// and each change costs a write for every one.
    pub fn note(&mut self, found: Option<&Blocked>, now: Timestamp) -> Option<&Blocked> {
        let lasts = |(_, known): &(Timestamp, Blocked)| found.is_some_and(|found| found.kind == known.kind);
        if !self.0.as_ref().is_some_and(lasts) {
            self.0 = found.map(|found| (now, found.clone()));
        }
        self.0.as_ref().filter(|(since, _)| age(*since, now) >= PATIENCE).map(|(_, blocked)| blocked)
    }
}
