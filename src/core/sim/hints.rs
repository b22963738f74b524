//! What operators hear, or miss: results, events of workers, the watch on Pods. And whose turn it is to be looked at.

use super::super::evidence::{Document, Evidence, Report};
use super::super::id::{ObjectKey, TaskId};
use super::super::index::{self, Entry};
use super::at;
use super::broker::Message;
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
        let document = self.heard_of(operator, document);
        self.note_heard(operator, task, |evidence| evidence.told(document));
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
