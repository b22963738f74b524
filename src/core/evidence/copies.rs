//! What is there of an attempt: the message that it is judged by, and copies besides.

use super::super::observed::Others;
use super::{Denial, Evidence, Found, Place, Report};

impl Evidence {
    /// Whether its message waits or a worker has it, as far as is known.
    pub fn is_outstanding(&self) -> bool {
        let is_there = |place: Place| place.is_queued() || place.is_in_flight();
        self.over.is_none() && matches!(self.place, Some(Found::At(place)) if is_there(place))
    }

    /// The delivery tag of a message in flight that a worker has, so that it must be kept from being put back. Not of one
    /// that all workers have denied: keeping it renews its receipt, and the next denial would be about another one. A
    /// worker that was seen with it counts only if it has denied it itself: times tell that others cannot have it, and
    /// the clock of its node may not be known.
    pub fn kept(&self) -> Option<String> {
        let Some(Found::At(place)) = self.place else { return None };
        let has_denied = |denied: Denial| denied.by_holder || self.holder().is_none();
        let is_denied = self.denials_of(place.received_at()).is_some_and(has_denied);
        let is_held = self.seen.is_some() && self.over.is_none() && !is_denied;
        let tag = match place {
            Place::InFlight { generation, .. } => Some(self.of.delivery_tag(generation)),
            Place::CopyInFlight { tag, .. } => tag.map(|tag| tag.to_string()),
            Place::Queued { .. } | Place::CopyQueued | Place::GoesOn | Place::Nowhere => None,
        };
        tag.filter(|_| is_held)
    }

    /// Which copies there are besides what [`Evidence::task`] tells of, and whether that is one itself.
    pub fn others(&self) -> Others {
        match self.place {
            Some(Found::At(Place::CopyQueued)) => Others { is_copy: true, tag: None, besides: self.besides },
            Some(Found::At(Place::CopyInFlight { tag, .. })) => Others { is_copy: true, tag, besides: self.besides },
            _ => Others { is_copy: false, tag: None, besides: self.besides },
        }
    }

    /// Whether only an audit can tell what the death of the worker that was seen comes to: it had not begun, or there are
    /// copies of the message, of which it may have had another one, such as the one of Celery's own retry.
    pub fn needs_audit(&self) -> bool {
        let others = self.others();
        let is_other = |report: &Report| report.started_at.is_none() || report.celery_retries > 0;
        others.is_copy || others.besides.is_in_flight || self.seen.as_ref().is_some_and(|seen| is_other(&seen.report))
    }
}
