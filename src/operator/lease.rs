//! Leader election by a Lease: one replica works, the others hold only their claim.
//!
//! Creation and `leaseTransitions` of the Lease are the leader's term, which every script on Redis carries: it survives an
//! emptied Redis, and a leader that was paused while another took over carries a lower one and is refused. A Lease that was
//! deleted and created anew outranks the old one, so nothing that Redis says ever changes the term.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio_util::sync::CancellationToken;

use crate::core::claims::fence::{Term, next_transitions};
use crate::runtime::clock;

/// A claim that is not renewed for so long may be taken.
pub const DURATION: Duration = Duration::from_secs(7);
/// A leader that could not renew for so long stops by itself, before anybody may take over.
const GIVE_UP: Duration = Duration::from_millis(5500);
/// How long a leader waits after a renewal that went well, and after one that did not: two tries fit before it gives up.
const RENEW: Duration = Duration::from_millis(1500);
const RENEW_AGAIN: Duration = Duration::from_millis(250);
/// How long one renewal may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How old a Lease must be before it is created anew, so that the new one is later whatever clocks differ.
const DISCARD_AFTER: Duration = Duration::from_secs(10);
/// How often a standby looks.
const LOOK: Duration = Duration::from_millis(500);

/// Who claims: the Pod and this very process.
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
        !self.lost.is_cancelled() && self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < GIVE_UP
    }

    fn renewed(&self, asked_at: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked_at;
    }
}

#[cfg(test)]
impl Leadership {
    /// One that was not renewed for too long.
    pub fn stale() -> Self {
        Self::won(Term { created: 1, transitions: 1 }, Instant::now().checked_sub(GIVE_UP).unwrap())
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
    /// Somebody else's.
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

    /// Waits until the Lease is won. `on_wait` hears who holds it.
    pub async fn acquire(&self, on_wait: impl Fn(&str)) -> Leadership {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let asked_at = Instant::now();
            match self.try_acquire(&mut seen, &on_wait).await {
                Ok(Some(term)) => return Leadership::won(term, asked_at),
                Ok(None) => {}
                Err(error) => {
                    on_wait(&format!("the Lease cannot be read or written: {error}"));
                    tracing::warn!(%error, lease = %self.name, "claiming the lease failed");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_acquire(
        &self,
        seen: &mut Option<(Option<String>, Instant)>,
        on_wait: &impl Fn(&str),
    ) -> kube::Result<Option<Term>> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.to_string()), ..<_>::default() },
                ..<_>::default()
            };
            self.sign(&mut lease, 1);
            return conflict_is_none(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone();
        if seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            *seen = Some((version, Instant::now()));
        }
        let unchanged_for = seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        match judge(&self.me, lease.spec.as_ref(), unchanged_for) {
            Verdict::Wait => {
                on_wait(lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("nobody"));
                Ok(None)
            }
            Verdict::Renew | Verdict::Take => {
                match next_transitions(lease.spec.as_ref().and_then(|spec| spec.lease_transitions)) {
                    Some(next) => self.replace(lease, next).await,
                    None => self.discard(&lease).await.map(|()| None),
                }
            }
        }
    }

    /// Renews until leadership is lost or `stop` is cancelled; then lets go, so that the next need not wait.
    pub async fn keep(&self, leadership: &Leadership, stop: CancellationToken) {
        let mut wait = RENEW;
        loop {
            tokio::select! { () = tokio::time::sleep(wait) => {}, () = stop.cancelled() => break }
            let asked_at = Instant::now();
            wait = RENEW_AGAIN;
            match tokio::time::timeout(PATIENCE, self.renew(leadership.term.transitions)).await {
                Ok(Ok(true)) => {
                    leadership.renewed(asked_at);
                    wait = RENEW;
                }
                Ok(Ok(false)) => break,
                Ok(Err(error)) => tracing::warn!(%error, "renewing the lease failed"),
                Err(_) => tracing::warn!("renewing the lease took too long"),
            }
            if !leadership.holds() {
                break;
            }
        }
        leadership.lost.cancel();
        if stop.is_cancelled()
            && let Err(error) = self.release(leadership.term.transitions).await
        {
            tracing::warn!(%error, "releasing the lease failed");
        }
    }

    async fn renew(&self, transitions: u32) -> kube::Result<bool> {
        loop {
            let lease = self.api.get(&self.name).await?;
            if !self.holds(&lease) {
                return Ok(false);
            }
            // A conflict may be our own renewal that answered too late: look again.
            if self.replace(lease, transitions).await?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Whether the Lease is ours, as the API server has it now.
    pub async fn is_held(&self) -> kube::Result<bool> {
        Ok(self.api.get_opt(&self.name).await?.is_some_and(|lease| self.holds(&lease)))
    }

    /// Deletes a Lease whose count cannot go on, so that the next look creates it anew. Its creation is counted in whole
    /// seconds, and the new one's must be later.
    async fn discard(&self, lease: &Lease) -> kube::Result<()> {
        if age(created(lease), clock::now()) < DISCARD_AFTER {
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

    async fn replace(&self, mut lease: Lease, transitions: u32) -> kube::Result<Option<Term>> {
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

/// The term that was won; `None` when another process was faster.
fn conflict_is_none(written: kube::Result<Lease>) -> kube::Result<Option<Term>> {
    match written {
        Ok(lease) => Ok(Some(term(&lease))),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

/// How old a time is; zero when it lies ahead.
pub fn age(of: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(of).max(SignedDuration::ZERO)).unwrap_or(Duration::ZERO)
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
    fn a_leader_gives_up_before_anybody_may_take_over_and_not_before_a_second_try() {
        assert!(GIVE_UP < DURATION);
        assert!(RENEW + PATIENCE + RENEW_AGAIN < GIVE_UP);
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
