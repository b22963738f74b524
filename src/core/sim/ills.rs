//! What happens to workers: kills, drains, lost connections, and what the operator does to them.

use super::super::id::TaskId;
use super::super::observed::Ending;
use super::broker::Document;
use super::say;
use super::worker::{Copy, Waits};
use super::world::{Event, World};

impl World {
    /// SIGKILL: memory is gone, `unacked` stays, the container restarts in place.
    pub fn kill_container(&mut self, pod: usize) {
        self.stop_container(pod);
        let container = self.pods[pod].container;
        if self.pods[pod].draining {
            self.pods[pod].gone = true;
        }
        self.tell_pod(pod);
        if !self.pods[pod].gone {
            // The kubelet looks every second, and then it takes a moment.
            self.after(1_100, 5_000, Event::Restart { pod, container });
        }
    }

    pub fn stop_container(&mut self, pod: usize) {
        self.note_death(pod);
        self.lose_in_hand(pod);
        for copy in std::mem::take(&mut self.pods[pod].copies) {
            if let Some(run) = copy.run {
                self.runs[run].over = true;
            }
        }
        let now = self.now;
        let pod = &mut self.pods[pod];
        pod.up = false;
        pod.finished_at = Some(now);
        pod.imagined.clear();
        pod.revoked.clear();
        self.wake_operators();
    }

    /// What it has popped and not noted is lost.
    pub fn lose_in_hand(&mut self, pod: usize) {
        if let Some(message) = self.pods[pod].in_hand.take().filter(|message| message.copy > 0) {
            self.losses.hit_popped(message.job);
        }
    }

    pub fn restart(&mut self, pod: usize, container: u32) {
        let now = self.now;
        let it = &mut self.pods[pod];
        if it.gone || it.up || it.container != container {
            return;
        }
        it.container += 1;
        it.started_at = now;
        it.finished_at = None;
        it.up = true;
        say!(self, "{} restarts in place", self.pods[pod].name);
        self.tell_pod(pod);
        self.at(20, Event::Poll { pod });
    }

    /// The Pod is deleted by force, or its Node is gone; another Pod comes.
    pub fn delete_pod(&mut self, pod: usize) {
        say!(self, "{} is gone", self.pods[pod].name);
        self.tell_deleted_by_force(pod);
        self.stop_container(pod);
        self.pods[pod].gone = true;
        self.after(500, 5_000, Event::AddPod);
    }

    /// SIGTERM: what is reserved or put aside goes back, what runs is finished, and only a native worker is heard of
    /// until it has left.
    pub fn drain(&mut self, pod: usize) {
        if self.pods[pod].draining || !self.pods[pod].up {
            return;
        }
        say!(self, "{} is told to leave", self.pods[pod].name);
        self.pods[pod].draining = true;
        let reserved: Vec<Copy> = self.pods[pod].copies.extract_if(.., |copy| copy.run.is_none()).collect();
        let delivered = reserved.iter().filter(|copy| copy.delivered).map(|copy| copy.message);
        if self.broker.down {
            // It leaves for good, and they stay in flight.
            self.losses.hit(delivered.map(|message| message.job));
        } else {
            for message in delivered {
                self.broker.put_back(message.tag(), false);
            }
        }
        self.wake_workers();
        self.leave_when_drained(pod);
        self.after(500, 5_000, Event::AddPod);
    }

    pub fn leave_when_drained(&mut self, pod: usize) {
        if self.pods[pod].draining && self.pods[pod].copies.is_empty() {
            say!(self, "{} has left", self.pods[pod].name);
            self.stop_container(pod);
            self.pods[pod].gone = true;
            self.tell_pod(pod);
        }
    }

    /// It loses its connection, often while it is to leave, and dies soon after: what it gave back is with another
    /// worker by then, or not yet.
    pub fn falter(&mut self, pod: usize) {
        if self.rng.per_mille(600) {
            self.drain(pod);
        }
        self.blip(pod);
        let container = self.pods[pod].container;
        self.after(1, 1_500, Event::Die { pod, container });
    }

    pub fn die(&mut self, pod: usize, container: u32) {
        if self.is_container(pod, container) {
            self.kill_by_hand(pod);
        }
    }

    /// The connection is lost and made again: kombu's closing channel puts back all that is not acknowledged, what runs
    /// included. What runs goes on.
    pub fn blip(&mut self, pod: usize) {
        // While Redis is away there is no connection to lose.
        if !self.pods[pod].up || self.pods[pod].is_native() || self.broker.down {
            return;
        }
        say!(self, "{} loses its connection for a moment", self.pods[pod].name);
        self.lose_in_hand(pod);
        let delivered: Vec<Copy> = self.pods[pod].copies.iter().filter(|copy| copy.delivered).cloned().collect();
        for copy in delivered {
            self.broker.put_back(copy.message.tag(), copy.run.is_some());
        }
        let it = &mut self.pods[pod];
        let aside = it.copies.extract_if(.., |copy| copy.waits == Waits::Aside);
        it.imagined.extend(aside.map(|copy| (copy.number, copy.message.id.task)));
        it.copies.retain(|copy| copy.run.is_some());
        for copy in &mut it.copies {
            copy.delivered = false;
        }
        self.wake_workers();
    }

    /// `revoke(terminate=True)` to every worker that listens.
    pub fn revoke(&mut self, task: TaskId) {
        for pod in 0..self.pods.len() {
            if !self.pods[pod].hears() || self.rng.per_mille(50) {
                continue;
            }
            self.pods[pod].revoked.insert(task);
            let (runs, is_native) = (&self.runs, self.pods[pod].is_native());
            // What Celery has put aside finds out when it is tried again.
            let is_it = |copy: &mut Copy| {
                let obeys = !copy.waits.is_put_aside() || is_native;
                copy.message.id.task == task && obeys && copy.run.is_none_or(|run| !runs[run].over)
            };
            let stopped: Vec<Copy> = self.pods[pod].copies.extract_if(.., is_it).collect();
            for copy in stopped {
                say!(self, "{} stops {}", self.pods[pod].name, self.name_of(copy.message));
                if let Some(run) = copy.run {
                    self.runs[run].over = true;
                    // A child that is killed leaves its lease to run out.
                    if is_native {
                        self.broker.give_up_lease(task, run);
                    }
                }
                if copy.message.is_follower {
                    self.broker.ack(copy.message.tag()); // it is stored under an id of its own
                    self.losses.hit([copy.message.job]);
                    continue;
                }
                self.broker.store(task, Document::Ended { how: Ending::Revoked, pod, retries: copy.message.retries });
                self.broker.ack(copy.message.tag());
                self.hint(task);
            }
            self.start_runs(pod);
            self.at(1, Event::Poll { pod });
        }
    }
}
