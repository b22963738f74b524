//! What operators hear, or miss: results, events of workers, the watch on Pods. And whose turn it is to be looked at.

use super::super::evidence::{Document, Evidence, Report};
use super::super::id::{ObjectKey, TaskId};
use super::super::index::{self, Entry, LookUp, LookedUp};
use super::at;
use super::broker::{Message, Tag, copy_tag};
use super::operator::Order;
use super::world::World;

/// What a worker's event says.
#[derive(Debug, Clone)]
pub struct Heard {
    task: TaskId,
    pod: usize,
    sent_at: i64,
    began_at: Option<i64>,
}

impl World {
    pub fn leaders(&self) -> impl Iterator<Item = usize> + use<> {
        let leads: Vec<bool> = self.operators.iter().map(|it| it.epoch.is_some()).collect();
        leads.into_iter().enumerate().filter(|(_, leads)| *leads).map(|(operator, _)| operator)
    }

    pub fn is_lost(&mut self) -> bool {
        let chance = if self.chaos.deafness { 400 } else { 30 };
        self.rng.per_mille(chance)
    }

    /// A result message on Redis.
    pub fn hint(&mut self, task: TaskId) {
        let Some(document) = self.broker.document(task).map(|document| self.told(document)) else { return };
        for operator in self.leaders() {
            if !self.is_lost() {
                let document = Box::new(document.clone());
                self.order_after(operator, 1, 30, Order::Told { task, document });
            }
        }
    }

    /// A task event of a worker.
    pub fn announce(&mut self, pod: usize, message: Message, began_at: Option<i64>) {
        if self.pods[pod].silent {
            return;
        }
        let sent_at = self.now;
        for operator in self.leaders() {
            if !self.is_lost() {
                let heard = Heard { task: message.id.task, pod, sent_at, began_at };
                self.order_after(operator, 1, 20, Order::Hear(heard));
            }
        }
    }

    /// The watch on Pods.
    pub fn wake_operators(&mut self) {
        for operator in self.leaders() {
            self.look_at_all(operator, 10, if self.chaos.deafness { 3_000 } else { 200 });
        }
    }

    pub fn look_at_all(&mut self, operator: usize, earliest: i64, latest: i64) {
        for key in self.operators[operator].jobs(&self.pool) {
            self.order_after(operator, earliest, latest, Order::Look { key });
        }
    }

    pub fn heard(&mut self, operator: usize, heard: &Heard) {
        let (node, told) = (self.pods[heard.pod].holder().node, self.pods[heard.pod].told(heard.sent_at));
        let moment = self.operators[operator].clocks.hear(&node, told, at(self.now));
        let began_at = heard.began_at.map(|_| moment.at); // the event says nothing else
        let report = Report { behind: moment.behind, ..self.report(heard.pod, moment.at, began_at) };
        self.note_heard(operator, heard.task, |evidence| evidence.hear(report));
    }

    pub fn told_of(&mut self, operator: usize, task: TaskId, document: Document) {
        let (document, now) = (self.heard_of(operator, document), at(self.now));
        self.note_heard(operator, task, |evidence| evidence.told(document, now));
    }

    /// Notes what was heard of a task, if it is in hand, and looks at its job.
    fn note_heard(&mut self, operator: usize, task: TaskId, note: impl FnOnce(&mut Evidence)) {
        let it = &mut self.operators[operator];
        if let Some(index::Heard { turn: (lane, key), is_unread }) = it.table.hear(task, |_, evidence| note(evidence)) {
            it.turns.push(lane, key);
            if is_unread {
                it.readings.want_unread();
            }
        }
    }

    /// Looks up a message, unless that must wait.
    pub fn look_up(&mut self, operator: usize, it: LookUp) {
        if self.broker.down || !self.operators[operator].connected {
            self.look_again_later(operator, &it.key);
            return;
        }
        let generation = self.broker.data.markers.get(&it.id.task).map(|marker| marker.generation);
        let is_it = |tag: &Tag| match tag.2 {
            0 => tag.0.delivery_tag(tag.1) == it.tag,
            copy => copy_tag(copy).to_string() == it.tag,
        };
        let is_in_flight = self.broker.data.unacked.keys().any(is_it);
        self.order_after(operator, 0, 30, Order::LookUpDocument { it, generation, is_in_flight });
    }

    pub fn look_up_document(&mut self, operator: usize, it: LookUp, generation: Option<u32>, is_in_flight: bool) {
        if self.broker.down || !self.operators[operator].connected {
            self.look_again_later(operator, &it.key);
            return;
        }
        let document = self.broker.document(it.id.task).filter(|_| !is_in_flight);
        let document = document.map(|document| self.heard_of(operator, self.told(document)));
        let found = Box::new(LookedUp { generation, is_in_flight, document });
        self.order_after(operator, 0, 30, Order::LookedUp { it, found });
    }

    pub fn looked_up(&mut self, operator: usize, it: &LookUp, found: LookedUp) {
        let now = at(self.now);
        self.count(if found.is_in_flight { "noted and in flight" } else { "looked up" });
        let operated = &mut self.operators[operator];
        let is_unclear = operated.table.looked_up(it, found, now);
        if operated.table.get(&it.key).is_some_and(|entry| entry.evidence.is_unread()) {
            operated.readings.want_unread();
        }
        if is_unclear {
            self.ask_for_audit(operator);
        }
        self.look_at(operator, &it.key);
    }

    /// Looks at a job. In some worlds much of what is known is read anew first.
    pub fn look_upon_hint(&mut self, operator: usize, key: &ObjectKey) {
        if self.rng.per_mille(self.chaos.fresh) {
            let it = &mut self.operators[operator];
            it.table.note(key, |_, evidence| evidence.unread());
            it.readings.want_unread();
        }
        self.look_at(operator, key);
    }

    /// Looks at a job as soon as it has its turn.
    pub fn look_at(&mut self, operator: usize, key: &ObjectKey) {
        let it = &mut self.operators[operator];
        if let Some((lane, key)) = it.table.get(key).map(Entry::turn_of) {
            it.turns.push(lane, key);
        }
    }

    /// Looks at a job so many milliseconds from now, or sooner if something else asks for it.
    pub fn look_at_later(&mut self, operator: usize, key: &ObjectKey, wait: i64) {
        let it = &mut self.operators[operator];
        if let Some((lane, key)) = it.table.get(key).map(Entry::turn_of) {
            it.turns.push_at(lane, key, at(self.now + wait));
            self.order(operator, wait, Order::Timers);
        }
    }
}
