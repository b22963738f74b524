//! One turn of a job: take what is known of it, decide, act, record, and what must wait for the record. The operator may
//! die or stop between any two steps.

use super::super::check::check;
use super::super::decide::decide;
use super::super::evidence::{Document, Place};
use super::super::id::ObjectKey;
use super::super::index::Entry;
use super::super::plan::{Effect, Next, Plan};
use super::apiserver::Refused;
use super::chaos::CHAOS_ENDS;
use super::operator::Order;
use super::world::{World, number_of};
use super::{at, millis, say};

/// How soon a job is looked at again whose turn came while the claim on the Lease was stale.
const STALE_LEASE: i64 = 250;

/// How far it is.
#[derive(Debug)]
pub struct Pass {
    step: Step,
    /// What was known of the job when the pass began.
    entry: Box<Entry<()>>,
    /// What the dead worker had stored.
    said: Option<Document>,
    /// Whether its message was in flight then.
    is_in_flight: bool,
    plan: Option<Plan>,
    /// What the API server made of the status.
    written: Option<Result<u64, Refused>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Decides by what is known.
    Look,
    /// Reads what a dead worker has stored, later than the Pods: it is certainly seen.
    ReadLast,
    /// Notes that.
    CheckDeath,
    /// Reads the job live before a publication, unless it is the first of a job that was only just created.
    Check(usize),
    Act(usize),
    Record,
    /// Hears what became of the record.
    Recorded,
    After(usize),
}

impl World {
    /// Begins the passes of all jobs that have their turn.
    pub fn take_turns(&mut self, operator: usize) {
        while self.operators[operator].paused_until <= self.now
            && let Some(key) = self.operators[operator].turns.take()
        {
            if !self.may_act(operator) {
                self.look_at_later(operator, &key, STALE_LEASE);
                self.operators[operator].turns.done(key);
                continue;
            }
            let Some(entry) = self.operators[operator].table.get(&key).cloned().map(Box::new) else {
                self.operators[operator].turns.forget(&key);
                self.operators[operator].turns.done(key);
                continue;
            };
            let pass = Pass { step: Step::Look, entry, said: None, is_in_flight: false, plan: None, written: None };
            self.operators[operator].passes.insert(key.clone(), pass);
            self.proceed(operator, key);
        }
    }

    pub fn proceed(&mut self, operator: usize, key: ObjectKey) {
        while let Some(mut pass) = self.operators[operator].passes.remove(&key) {
            let goes_on = self.step(operator, &key, &mut pass);
            let it = &mut self.operators[operator];
            if !goes_on || it.epoch.is_none() {
                it.turns.done(key);
                return;
            }
            let step = pass.step;
            it.passes.insert(key.clone(), pass);
            if self.is_interrupted(operator, &key, step) {
                return;
            }
        }
    }

    /// Before a step: nothing, a delay, a long pause, or death. Nothing is awaited between a look at the claim on the Lease
    /// and a decision.
    fn is_interrupted(&mut self, operator: usize, key: &ObjectKey, step: Step) -> bool {
        let early = self.now < CHAOS_ENDS;
        if early && self.chaos.crashes && self.rng.per_mille(15) {
            let away = self.rng.between(300, 6_000);
            self.crash(operator, away);
        } else if early && self.chaos.pauses && self.rng.per_mille(30) {
            let pause = self.rng.between(5_000, 40_000);
            say!(self, "operator {operator} stops for {pause} ms, on {}", key.name);
            self.operators[operator].paused_until = self.now + pause;
            self.order(operator, 0, Order::Step { key: key.clone() });
        } else if self.chaos.sluggish && early && matches!(step, Step::Check(_)) {
            // The job is read live before it is published again.
            self.order_after(operator, 1, 12_000, Order::Step { key: key.clone() });
        } else if self.rng.per_mille(250) {
            let latest = self.rng.one_of(&[5, 50, 1_000, 4_000]);
            self.order_after(operator, 1, latest, Order::Step { key: key.clone() });
        } else {
            return false;
        }
        true
    }

    /// Does one step; false when the pass is over.
    fn step(&mut self, operator: usize, key: &ObjectKey, pass: &mut Pass) -> bool {
        match pass.step {
            Step::Look => {
                match pass.entry.look_up() {
                    Some(it) if it.at <= at(self.now) => self.order_after(operator, 1, 40, Order::LookUp { it }),
                    Some(it) => self.look_at_later(operator, key, millis(it.at) - self.now),
                    None => {}
                }
                let seen = self.observe(operator, &pass.entry);
                if pass.entry.evidence.must_check(&seen.task) {
                    if pass.entry.evidence.needs_audit() {
                        self.ask_for_audit(operator); // only an audit can tell where the message is
                    }
                    pass.step = Step::ReadLast;
                    return true;
                }
                let (job, now) = (&pass.entry.job, at(self.now));
                let plan = decide(job, &seen, now);
                for finding in check(job, &seen, now, &plan) {
                    self.broken.push(format!("{}: {finding}: {plan} upon {seen:?}", key.name));
                }
                if !plan.effects.is_empty() || plan.status != job.status {
                    say!(self, "operator {operator}, {}: {plan}", key.name);
                }
                pass.step = if plan.effects.is_empty() { Step::Record } else { Step::Check(0) };
                pass.plan = Some(plan);
                true
            }
            Step::ReadLast if !self.operators[operator].connected => false,
            Step::ReadLast if self.broker.down => {
                self.look_again_later(operator, key);
                false
            }
            Step::ReadLast => {
                let of = pass.entry.evidence.of();
                pass.is_in_flight = matches!(self.broker.locate(of), Some(Place::InFlight { .. }));
                let said = self.broker.document(of);
                pass.said = said.map(|document| self.heard_of(operator, self.told(document)));
                pass.step = Step::CheckDeath;
                true
            }
            Step::CheckDeath => {
                let it = &mut self.operators[operator];
                it.table.death_checked(&pass.entry, pass.said.take(), pass.is_in_flight);
                if !pass.is_in_flight {
                    it.readings.want_unread();
                    self.count("dead, and its message not in flight");
                }
                self.look_at(operator, key);
                false
            }
            Step::Check(index) => {
                let publication = pass.effects().get(index).and_then(Effect::publication);
                let is_read = publication.is_some_and(|it| it.again || pass.entry.fresh.is_none());
                if is_read && !self.is_as_it_was(&pass.entry) {
                    say!(self, "operator {operator}, {} is not as it was", key.name);
                    self.count("not as it was");
                    self.read_live(operator, key, pass.entry.job.uid);
                    self.look_at(operator, key);
                    return false;
                }
                pass.step = Step::Act(index);
                true
            }
            Step::Act(index) => {
                let effect = pass.effects()[index].clone();
                if !self.act(operator, &pass.entry, &effect) {
                    return false;
                }
                pass.step = if index + 1 < pass.effects().len() { Step::Check(index + 1) } else { Step::Record };
                true
            }
            Step::Record => {
                self.record(operator, key, pass);
                true
            }
            Step::Recorded => self.recorded(operator, key, pass),
            Step::After(index) => {
                let Some(plan) = &pass.plan else { return false };
                let Some(effect) = plan.afterwards.get(index).cloned() else {
                    let next = plan.next;
                    self.end_pass(operator, key, next);
                    return false;
                };
                if !self.act(operator, &pass.entry, &effect) {
                    return false;
                }
                pass.step = Step::After(index + 1);
                true
            }
        }
    }

    /// Whether the live object is the one that was decided on.
    fn is_as_it_was(&self, entry: &Entry<()>) -> bool {
        let stored = &self.api.jobs[number_of(&entry.job.key)];
        !stored.deleted && *entry.version == *stored.version.to_string()
    }

    fn end_pass(&mut self, operator: usize, key: &ObjectKey, next: Next) {
        match next {
            Next::Never => self.operators[operator].turns.forget(key),
            Next::At(time) => {
                let wait = (millis(time) - self.now).max(0) + 1;
                self.look_at_later(operator, key, wait);
            }
            Next::OnHint => {}
        }
    }

    fn record(&mut self, operator: usize, key: &ObjectKey, pass: &mut Pass) {
        let Some(status) = pass.plan.as_ref().map(|plan| plan.status.clone()) else { return };
        let is_terminal = status.phase.is_terminal();
        let table = &mut self.operators[operator].table;
        table.update(key, |entry| entry.closing = is_terminal);
        let is_news = status != pass.entry.job.status;
        pass.step = if is_news { Step::Recorded } else { Step::After(0) };
        if !is_news {
            return;
        }
        if key.is_deleted() {
            table.update(key, |entry| entry.job.status = status);
            pass.written = Some(Ok(0));
            return;
        }
        let job = number_of(key);
        let was = self.api.jobs[job].job.clone();
        let written = self.api.patch_status(job, pass.entry.version.parse().unwrap(), status);
        if written.is_ok() {
            self.judge_record(job);
            self.judge_release(job, &was.status);
            self.tell_watchers(job, &was);
        }
        pass.written = Some(written);
    }

    fn recorded(&mut self, operator: usize, key: &ObjectKey, pass: &mut Pass) -> bool {
        let (Some(plan), Some(written)) = (&pass.plan, &pass.written) else { return false };
        // What is left of a deleted job is written nowhere.
        let is_lost = self.chaos.deafness && !key.is_deleted() && self.rng.per_mille(50);
        let table = &mut self.operators[operator].table;
        match written {
            Ok(_) if is_lost => {
                table.update(key, |entry| entry.closing = false);
                self.count("write unanswered");
                self.look_again_later(operator, key);
                false
            }
            Ok(version) => {
                pass.step = Step::After(0);
                let job = &pass.entry.job;
                if !key.is_deleted() {
                    table.recorded(job, &version.to_string().into(), &plan.status);
                }
                if plan.status.phase.is_terminal() && table.remove_job(key, job.uid).is_some() {
                    self.operators[operator].over.insert(key.clone());
                }
                true
            }
            Err(Refused::Conflict) => {
                table.update(key, |entry| entry.closing = false);
                say!(self, "operator {operator}, {}: conflict", key.name);
                self.count("conflict");
                self.read_live(operator, key, pass.entry.job.uid);
                false
            }
            Err(Refused::Invalid(rule)) => {
                self.broken.push(format!("{}: the API server had to say: {rule}", key.name));
                false
            }
        }
    }
}

impl Pass {
    fn effects(&self) -> &[Effect] {
        self.plan.as_ref().map_or(&[], |plan| &plan.effects)
    }
}
