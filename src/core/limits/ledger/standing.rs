//! How one job stands under the limits.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::super::job::Job;
use super::super::super::waits;
use super::super::declared::{Keys, Limits};
use super::super::line::Order;
use super::super::permit::{LIMIT_REACHED, RELEASED};

/// How one job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub uid: Uuid,
    pub keys: Keys,
    pub order: Order,
    pub asks: Asks,
    /// When it was last released, as its status says.
    pub released_at: Option<Timestamp>,
    has: Has,
    /// Why it stands where it does, as its status says.
    reason: &'static str,
}

/// What a job has by itself, whatever it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Nothing,
    /// A permit, which is recorded. Nothing is known of its message.
    Released,
    /// A message.
    Message,
}

/// What a job has asked for and was given, as long as its status does not say something else. `over` is what it said when
/// the job asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Not,
    Asked {
        over: &'static str,
        /// A permit that was not used for long.
        given: Option<Timestamp>,
    },
    Granted {
        over: &'static str,
        at: Timestamp,
    },
}

impl Standing {
    /// How a job stands that stood so `before`.
    pub fn of(job: &Job, is_out: bool, before: Option<&Self>, limits: &Limits) -> Self {
        let (spec, status) = (&job.spec, &job.status);
        let reason = waits::named(status.why.reason());
        let has = match reason {
            _ if is_out => Has::Message,
            RELEASED => Has::Released,
            _ => Has::Nothing,
        };
        let is_its_own = reason == LIMIT_REACHED || reason == RELEASED;
        // Once it is recorded what was given, another record means that it is used up.
        let since = |over: &'static str| if is_its_own { reason } else { over };
        let asks = match before.map(|it| it.asks) {
            _ if spec.suspend || spec.cancel || spec.invalid.is_some() => Asks::Not,
            // As long as it may have a message it cannot wait for a permit.
            Some(Asks::Asked { given: None, .. }) if has == Has::Message => Asks::Not,
            Some(Asks::Asked { over, given }) if over == reason || is_its_own => {
                Asks::Asked { over: since(over), given }
            }
            Some(Asks::Granted { over, at }) if over == reason || is_its_own => Asks::Granted { over: since(over), at },
            // It waited under another leader.
            Some(_) | None if reason == LIMIT_REACHED && has == Has::Nothing => {
                Asks::Asked { over: reason, given: None }
            }
            Some(_) | None => Asks::Not,
        };
        let keys = limits.keys_of(job);
        Self {
            uid: job.uid,
            keys: before.map(|it| &it.keys).filter(|known| **known == keys).cloned().unwrap_or(keys),
            order: Order::of(job.created_at, spec.priority, limits.aging),
            asks,
            released_at: status.released_at.as_deref().copied(),
            has,
            reason,
        }
    }

    /// Whether it counts.
    pub fn has_permit(&self) -> bool {
        let is_given = match self.asks {
            Asks::Not => false,
            Asks::Asked { given, .. } => given.is_some(),
            Asks::Granted { .. } => true,
        };
        is_given || self.has != Has::Nothing
    }

    /// Whether it asks for a permit.
    pub fn asks(&self) -> bool {
        matches!(self.asks, Asks::Asked { .. })
    }

    /// Whether it asks for one that it has.
    pub fn is_renewal(&self) -> bool {
        self.asks() && self.has_permit()
    }

    /// Whether it waits for one.
    pub fn waits(&self) -> bool {
        self.asks() && !self.has_permit()
    }

    /// When the permit was given that it asks for anew.
    pub fn given_at(&self) -> Timestamp {
        if let Asks::Asked { given: Some(at), .. } = self.asks { at } else { Timestamp::MIN }
    }

    /// When a permit was given that is not recorded.
    pub fn unrecorded(&self) -> Option<Timestamp> {
        let given = match self.asks {
            Asks::Not => None,
            Asks::Asked { given, .. } => given,
            Asks::Granted { at, .. } => Some(at),
        };
        given.filter(|at| self.released_at != Some(*at))
    }

    /// Whether it has, or has recorded, the permit that was given then.
    pub fn keeps(&self, at: Timestamp) -> bool {
        self.unrecorded() == Some(at) || self.released_at == Some(at)
    }

    /// The same job, that asks for a permit.
    #[must_use]
    pub fn asking(&self) -> Self {
        let asks = match self.asks {
            Asks::Not => {
                let has_one = self.has != Has::Nothing;
                let given = has_one.then(|| self.released_at.unwrap_or(Timestamp::MIN));
                Asks::Asked { over: self.reason, given }
            }
            Asks::Granted { over, at } => Asks::Asked { over, given: Some(at) },
            asked @ Asks::Asked { .. } => asked,
        };
        Self { asks, ..self.clone() }
    }

    /// The same job, that was given one.
    #[must_use]
    pub fn granted(&self, at: Timestamp) -> Self {
        let over = if let Asks::Asked { over, .. } = self.asks { over } else { self.reason };
        Self { asks: Asks::Granted { over, at }, ..self.clone() }
    }
}

/// When attempts before the last one that was released were, as far as the status tells: shortly before their first
/// messages were published, which is recorded to the second.
pub fn releases_before(job: &Job) -> impl Iterator<Item = Timestamp> {
    let (status, history) = (&job.status, &job.status.history);
    let is_of_next = status.attempt.is_some() || status.why.is_released();
    let last = if is_of_next { None } else { history.last().map(|past| past.number) };
    // The last release is recorded on its own.
    let in_hand = last.filter(|_| status.released_at.is_some()).unwrap_or(job.attempt_in_hand().number);
    let firsts = history.iter().enumerate().filter(move |(index, past)| {
        past.number < in_hand && history[..*index].iter().all(|earlier| earlier.number != past.number)
    });
    let at = firsts.filter_map(|(_, past)| past.enqueued_at);
    at.map(|at| at.checked_add(Duration::from_secs(1)).unwrap_or(Timestamp::MAX))
}
