//! Leader election by a Lease: one replica works, the others hold only their claim.
//!
//! Creation and `leaseTransitions` of the Lease are the leader's term, which every script on Redis carries: it survives
//! an emptied Redis, and a leader that was paused while another took over carries a lower one and is refused. A Lease
//! that was deleted and created anew outranks the old one, so nothing that Redis says ever changes the term.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::core::claims::fence::{Term, next_transitions};
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;
use crate::runtime::telemetry::Repeated;

/// A claim that is not renewed for so long may be taken.
pub const DURATION: Duration = Duration::from_secs(7);
/// A leader that could not renew for so long stops acting by itself, before another may take over. It goes on trying,
/// with all that it knows: unless another has taken the Lease, it leads on as soon as a renewal succeeds.
const PAUSE_AFTER: Duration = Duration::from_millis(5500);
/// How long a leader waits after a renewal that went well, and after one that did not: two tries fit before it pauses.
const RENEW: Duration = Duration::from_millis(1500);
const RENEW_AGAIN: Duration = Duration::from_millis(250);
/// How long one renewal may take while the claim is fresh, and once it is stale. The next try has a new connection.
const PATIENCE: Duration = Duration::from_secs(2);
const LONG_PATIENCE: Duration = Duration::from_secs(5);
/// How old a Lease must be before it is created anew, so that the new one is later whatever clocks differ.
const DISCARD_AFTER: Duration = Duration::from_secs(10);
/// How often a standby looks, and how seldom while the Lease cannot be read or written.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_SELDOM: Bounds = (Duration::from_secs(1), Duration::from_secs(4));

/// The claimant: the Pod and this very process.
#[derive(Debug, Clone)]
pub struct Identity {
    pod: Option<Arc<str>>,
    text: Arc<str>,
}

impl Identity {
    /// The identity of a process in `pod`, or of one outside a Pod.
    pub fn new(pod: Option<&str>) -> Self {
        let process = clock::random_id().simple().to_string();
        Self { pod: pod.map(Arc::from), text: format!("{}_{process}", pod.unwrap_or("crewjob")).into() }
    }

    /// Whether `holder` is an earlier process of the same Pod: containers of a Pod follow each other, so it is gone.
    fn succeeds(&self, holder: &str) -> bool {
        let pod_of = |identity: &str| identity.rsplit_once('_').map(|(pod, _)| pod.to_owned());
        holder != &*self.text && self.pod.as_deref().is_some_and(|pod| pod_of(holder).as_deref() == Some(pod))
    }
}

/// Leadership that was won: valid while it is renewed.
#[derive(Debug, Clone)]
pub struct Leadership {
    term: Term,
    renewed: Arc<Mutex<Instant>>,
    /// Cancelled when leadership is lost or given up.
    pub lost: CancellationToken,
}

impl Leadership {
    fn won(term: Term, asked_at: Instant) -> Self {
        Self { term, renewed: Arc::new(Mutex::new(asked_at)), lost: CancellationToken::new() }
    }

    /// What every script on Redis carries.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether the claim is fresh enough to act on. A process that was paused finds it stale before it acts.
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled() && self.renewed.lock().elapsed() < PAUSE_AFTER
    }

    fn renewed(&self, asked_at: Instant) {
        *self.renewed.lock() = asked_at;
    }
}

#[cfg(test)]
impl Leadership {
    /// One that was not renewed for too long.
    pub fn stale() -> Self {
        Self::won(Term { created: 1, transitions: 1 }, Instant::now().checked_sub(PAUSE_AFTER).unwrap())
    }

    /// The renewal went through after all.
    pub fn renewed_now(&self) {
        self.renewed(Instant::now());
    }
}

/// What a look at the Lease says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Ours: renew it.
    Renew,
    /// Free, expired, or of a process that is gone: take it.
    Take,
    /// Another operator's.
    Wait,
}

/// Judges a claim by how long *we* have seen it unchanged: clocks of two machines are never compared.
fn judge(me: &Identity, spec: Option<&LeaseSpec>, unchanged_for: Duration) -> Verdict {
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("");
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    if holder == &*me.text {
        Verdict::Renew
    } else if holder.is_empty() || me.succeeds(holder) || unchanged_for >= seconds.map_or(DURATION, Duration::from_secs)
    {
        Verdict::Take
    } else {
        Verdict::Wait
    }
}

/// How it goes with a claim that does not lead, or not any more.
#[derive(Debug, Clone, Copy)]
pub enum Turn<'a> {
    /// Another holds the Lease.
    HeldBy(&'a str),
    /// The Lease was renewed.
    Renewed,
    /// The Lease cannot be read or written.
    Failed(&'a str),
}

/// The Lease that replicas compete for.
#[derive(Clone)]
pub struct Claim {
    api: Api<Lease>,
    name: Arc<str>,
    me: Identity,
}

impl Claim {
    /// A claim on the Lease `name`.
    pub fn new(api: Api<Lease>, name: &str, me: Identity) -> Self {
        Self { api, name: name.into(), me }
    }

    /// Waits until the Lease is won. `on_turn` hears of each look at it.
    pub async fn acquire(&self, on_turn: impl Fn(Turn<'_>)) -> Leadership {
        let mut seen: Option<(Option<String>, Instant)> = None;
        let mut failures = Repeated::default();
        let mut backoff = Backoff::new(LOOK_SELDOM);
        loop {
            let pause = match self.try_acquire(&mut seen, &on_turn).await {
                Ok(Some((term, asked_at))) => return Leadership::won(term, asked_at),
                Ok(None) => {
                    if failures.is_over() {
                        tracing::info!(lease = %self.name, "the Lease can be read again");
                    }
                    backoff.reset();
                    LOOK
                }
                Err(error) => {
                    on_turn(Turn::Failed(&error.to_string()));
                    if failures.is_to_be_said(tokio::time::Instant::now()) {
                        tracing::warn!(%error, lease = %self.name, "claiming the Lease failed; trying on, and saying so once a minute");
                    }
                    backoff.pause()
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_acquire(
        &self,
        seen: &mut Option<(Option<String>, Instant)>,
        on_turn: &impl Fn(Turn<'_>),
    ) -> kube::Result<Option<(Term, Instant)>> {
        let asked_at = Instant::now();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_string()), ..<_>::default() },
                ..<_>::default()
            };
            self.sign(&mut lease, 1);
            let created = conflict_is_none(self.api.create(&PostParams::default(), &lease).await)?;
            return Ok(created.map(|lease| (term(&lease), asked_at)));
        };
        let version = lease.metadata.resource_version.clone();
        if seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            *seen = Some((version, Instant::now()));
        }
        let unchanged_for = seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match judge(&self.me, lease.spec.as_ref(), unchanged_for) {
            Verdict::Wait => {
                on_turn(Turn::HeldBy(lease.spec.as_ref().and_then(|it| it.holder_identity.as_deref()).unwrap_or("")));
                Ok(None)
            }
            Verdict::Renew | Verdict::Take => {
                let asked_at = Instant::now();
                match next_transitions(lease.spec.as_ref().and_then(|spec| spec.lease_transitions)) {
                    Some(next) => Ok(self.replace(lease, next).await?.map(|lease| (term(&lease), asked_at))),
                    None => self.discard(&lease).await.map(|()| None),
                }
            }
        }
    }

    /// Renews until another has the Lease or `stop` is cancelled; then lets go, so that the next need not wait.
    pub async fn keep(&self, leadership: &Leadership, stop: CancellationToken, on_turn: impl Fn(Turn<'_>)) {
        let (mut wait, mut last) = (RENEW, None);
        let mut failures = Repeated::default();
        loop {
            tokio::select! { () = tokio::time::sleep(wait) => {}, () = stop.cancelled() => break }
            wait = RENEW_AGAIN;
            let patience = if leadership.holds() { PATIENCE } else { LONG_PATIENCE };
            let renewed = tokio::time::timeout(patience, self.renew(leadership, &mut last));
            let renewed = tokio::select! { it = renewed => it, () = stop.cancelled() => break };
            let failure = match renewed {
                Ok(Ok(true)) => {
                    wait = RENEW;
                    if failures.is_over() {
                        tracing::info!("the Lease is renewed again");
                    }
                    on_turn(Turn::Renewed);
                    continue;
                }
                Ok(Ok(false)) => break,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", patience.as_secs()),
            };
            if failures.is_to_be_said(tokio::time::Instant::now()) {
                tracing::warn!(error = failure, "renewing the Lease failed; trying on, and saying so once a minute");
            }
            on_turn(Turn::Failed(&failure));
        }
        leadership.lost.cancel();
        if stop.is_cancelled()
            && let Err(error) = self.release(leadership.term.transitions).await
        {
            tracing::warn!(%error, "releasing the lease failed");
        }
    }

    /// Renews what was written last, in one round trip. Whether the Lease is still ours.
    async fn renew(&self, leadership: &Leadership, last: &mut Option<Lease>) -> kube::Result<bool> {
        loop {
            let lease = match last.take() {
                Some(lease) => lease,
                None => match self.api.get_opt(&self.name).await? {
                    // A Lease that was created anew begins another term, whichever holder it names.
                    Some(lease) if self.holds(&lease) && term(&lease).created == leadership.term.created => lease,
                    Some(_) | None => return Ok(false),
                },
            };
            // From here on others see it renewed; an answer that comes late makes the claim no fresher.
            let asked_at = Instant::now();
            // A conflict may be our own renewal that answered too late: look again.
            *last = self.replace(lease, leadership.term.transitions).await?;
            if last.is_some() {
                leadership.renewed(asked_at);
                return Ok(true);
            }
        }
    }

    /// Whether the Lease is still that of our term, as the API server has it now.
    pub async fn is_held(&self, ours: Term) -> kube::Result<bool> {
        let is_ours = |lease: Lease| self.holds(&lease) && term(&lease).created == ours.created;
        Ok(self.api.get_opt(&self.name).await?.is_some_and(is_ours))
    }

    /// Deletes a Lease whose count cannot go on, so that the next look creates it anew. Its creation is counted in
    /// whole seconds, and the new one's must be later.
    async fn discard(&self, lease: &Lease) -> kube::Result<()> {
        if clock::since(created(lease), clock::now()) < DISCARD_AFTER {
            return Ok(());
        }
        let ObjectMeta { uid, resource_version, .. } = lease.metadata.clone();
        let this_one = Preconditions { uid, resource_version };
        let options = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
        match self.api.delete(&self.name, &options).await {
            Ok(_) => {
                tracing::warn!(lease = %self.name, "leaseTransitions of the Lease was at its end; the Lease is created anew");
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, transitions: u32) -> kube::Result<()> {
        let mut lease = self.api.get(&self.name).await?;
        if self.holds(&lease) {
            self.sign(&mut lease, transitions);
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
            }
            conflict_is_none(self.api.replace(&self.name, &PostParams::default(), &lease).await)?;
        }
        Ok(())
    }

    fn holds(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&*self.me.text)
    }

    async fn replace(&self, mut lease: Lease, transitions: u32) -> kube::Result<Option<Lease>> {
        self.sign(&mut lease, transitions);
        conflict_is_none(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn sign(&self, lease: &mut Lease, transitions: u32) {
        let now = MicroTime(clock::now());
        let taken = !self.holds(lease);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.me.text.to_string());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.lease_transitions = Some(i32::try_from(transitions).unwrap_or(i32::MAX));
        spec.renew_time = Some(now.clone());
        if taken {
            spec.acquire_time = Some(now);
        }
    }
}

/// The term of a leader that has written the Lease so.
fn term(lease: &Lease) -> Term {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    Term {
        created: u64::try_from(created(lease).as_second()).unwrap_or(0),
        transitions: transitions.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    }
}

fn created(lease: &Lease) -> Timestamp {
    lease.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The Lease as it was written; `None` when it was changed meanwhile.
fn conflict_is_none(written: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match written {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Identity {
        Identity { pod: Some("operator-1".into()), text: "operator-1_abc".into() }
    }

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(7), ..<_>::default() }
    }

    fn verdict(holder: &str, unchanged_for: u64) -> Verdict {
        judge(&me(), Some(&held_by(holder)), Duration::from_secs(unchanged_for))
    }

    #[test]
    fn a_fresh_claim_of_another_pod_is_respected() {
        assert_eq!(verdict("operator-2_def", 6), Verdict::Wait);
    }

    #[test]
    fn a_claim_that_we_saw_unchanged_for_its_whole_duration_is_taken() {
        assert_eq!(verdict("operator-2_def", 7), Verdict::Take);
    }

    #[test]
    fn a_released_claim_is_taken_at_once() {
        assert_eq!(verdict("", 0), Verdict::Take);
        assert_eq!(judge(&me(), None, Duration::ZERO), Verdict::Take);
    }

    #[test]
    fn a_restarted_container_follows_its_own_dead_process_at_once() {
        assert_eq!(verdict("operator-1_old", 0), Verdict::Take);
        assert_eq!(verdict("operator-10_old", 0), Verdict::Wait);
    }

    #[test]
    fn our_own_claim_is_renewed() {
        assert_eq!(verdict("operator-1_abc", 99), Verdict::Renew);
    }

    #[test]
    fn a_leader_stops_acting_before_another_may_take_over_and_not_before_a_second_try() {
        assert!(PAUSE_AFTER < DURATION);
        assert!(RENEW + PATIENCE + RENEW_AGAIN < PAUSE_AFTER);
        assert!(LONG_PATIENCE < PAUSE_AFTER, "an answer that was waited for makes the claim fresh");
        assert!(DURATION + 2 * LOOK < Duration::from_secs(10), "a killed leader is followed within ten seconds");
    }

    #[test]
    fn a_claim_that_was_not_renewed_for_long_is_not_acted_on() {
        let leadership = Leadership::stale();
        assert!(!leadership.holds());
        leadership.renewed_now();
        assert!(leadership.holds());
        leadership.lost.cancel();
        assert!(!leadership.holds());
    }
}
