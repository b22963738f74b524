//! One turn of a job: look at the Pods, read Redis, decide, act, record, and what must wait for the record. The operator
//! may die or stop between any two steps.

use super::super::check::check;
use super::super::decide::decide;
use super::super::evidence::Evidence;
use super::super::job::Job;
use super::super::plan::{Effect, Next, Plan};
use super::apiserver::Refused;
use super::chaos::CHAOS_ENDS;
use super::observe::PodSight;
use super::operator::Order;
use super::world::World;
use super::{at, millis, say};

/// How far it is.
#[derive(Debug)]
pub struct Pass {
    step: Step,
    version: u64,
    job: Job,
    pods: Vec<PodSight>,
    plan: Option<Plan>,
    /// What the API server made of the status.
    written: Option<Result<u64, Refused>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Takes the job and the Pods from the caches.
    Look,
    /// Reads Redis, later than the Pods: what a dead worker stored is certainly seen.
    Read,
    /// Reads the job live before a publication, unless it is the first of a job that was only just created.
    Check(usize),
    Act(usize),
    Record,
    /// Hears what became of the record.
    Recorded,
    After(usize),
}

impl World {
    pub fn look(&mut self, operator: usize, job: usize) {
        let it = &mut self.operators[operator];
        if it.passes.contains_key(&job) {
            it.again.insert(job);
            return;
        }
        if !self.may_act(operator) {
            return self.look_in(operator, job, 250);
        }
        let Some((version, cached)) = self.operators[operator].cache.get(&job) else { return };
        let pass = Pass {
            step: Step::Look,
            version: *version,
            job: cached.clone(),
            pods: Vec::new(),
            plan: None,
            written: None,
        };
        self.operators[operator].passes.insert(job, pass);
        self.proceed(operator, job);
    }

    pub fn proceed(&mut self, operator: usize, job: usize) {
        while let Some(mut pass) = self.operators[operator].passes.remove(&job) {
            let goes_on = self.step(operator, job, &mut pass);
            let it = &mut self.operators[operator];
            if !goes_on || !it.up {
                if it.again.remove(&job) {
                    self.look_in(operator, job, 0);
                }
                return;
            }
            let step = pass.step;
            it.passes.insert(job, pass);
            if self.is_interrupted(operator, job, step) {
                return;
            }
        }
    }

    /// Before a step: nothing, a delay, a long pause, or death. Nothing is awaited between a look at the claim on the Lease
    /// and a decision.
    fn is_interrupted(&mut self, operator: usize, job: usize, step: Step) -> bool {
        let early = self.now < CHAOS_ENDS && !matches!(step, Step::Read);
        if early && self.chaos.crashes && self.rng.per_mille(15) {
            let away = self.rng.between(300, 6_000);
            self.crash(operator, away);
        } else if early && self.chaos.pauses && self.rng.per_mille(30) {
            let pause = self.rng.between(5_000, 40_000);
            say!(self, "operator {operator} stops for {pause} ms, on job-{job}");
            self.operators[operator].paused_until = self.now + pause;
            self.order(operator, 0, Order::Step { job });
        } else if self.chaos.sluggish && early && matches!(step, Step::Check(_)) {
            // The job is read live before it is published again.
            self.order_after(operator, 1, 12_000, Order::Step { job });
        } else if self.rng.per_mille(250) {
            let latest = self.rng.one_of(&[5, 50, 1_000, 4_000]);
            self.order_after(operator, 1, latest, Order::Step { job });
        } else {
            return false;
        }
        true
    }

    /// Does one step; false when the pass is over.
    fn step(&mut self, operator: usize, job: usize, pass: &mut Pass) -> bool {
        match pass.step {
            Step::Look => {
                pass.pods = self.pods.iter().map(PodSight::of).collect();
                pass.step = Step::Read;
                true
            }
            Step::Read => {
                let seen = self.observe(operator, job, &pass.job, &pass.pods);
                let now = at(self.now);
                let plan = decide(&pass.job, &seen, now);
                for finding in check(&pass.job, &seen, now, &plan) {
                    self.broken.push(format!("job-{job}: {finding}: {plan} upon {seen:?}"));
                }
                if !plan.effects.is_empty() || plan.status != pass.job.status {
                    say!(self, "operator {operator}, job-{job}: {plan}");
                }
                pass.step = if plan.effects.is_empty() { Step::Record } else { Step::Check(0) };
                pass.plan = Some(plan);
                true
            }
            Step::Check(index) => {
                let publication = pass.effects().get(index).and_then(Effect::publication);
                let is_read = publication.is_some_and(|it| it.again || !self.operators[operator].fresh.contains(&job));
                if is_read && self.api.jobs[job].version != pass.version {
                    say!(self, "operator {operator}, job-{job} is not as it was");
                    self.count("not as it was");
                    self.read_live(operator, job);
                    return false;
                }
                pass.step = Step::Act(index);
                true
            }
            Step::Act(index) => {
                let effect = pass.effects()[index].clone();
                if !self.act(operator, job, &effect) {
                    return false;
                }
                pass.step = if index + 1 < pass.effects().len() { Step::Check(index + 1) } else { Step::Record };
                true
            }
            Step::Record => {
                self.record(operator, job, pass);
                true
            }
            Step::Recorded => self.recorded(operator, job, pass),
            Step::After(index) => {
                let Some(plan) = &pass.plan else { return false };
                let Some(effect) = plan.afterwards.get(index).cloned() else {
                    let next = plan.next;
                    self.end_pass(operator, job, next);
                    return false;
                };
                if !self.act(operator, job, &effect) {
                    return false;
                }
                pass.step = Step::After(index + 1);
                true
            }
        }
    }

    fn end_pass(&mut self, operator: usize, job: usize, next: Next) {
        match next {
            Next::Never => self.operators[operator].forget_job(job),
            Next::At(time) => {
                let wait = (millis(time) - self.now).max(0) + 1;
                self.look_in(operator, job, wait);
            }
            Next::OnHint => {}
        }
    }

    pub fn look_in(&mut self, operator: usize, job: usize, wait: i64) {
        self.order(operator, wait, Order::Look { job });
    }

    fn record(&mut self, operator: usize, job: usize, pass: &mut Pass) {
        let Some(status) = pass.plan.as_ref().map(|plan| plan.status.clone()) else { return };
        let is_news = status != pass.job.status;
        pass.step = if is_news { Step::Recorded } else { Step::After(0) };
        if !is_news {
            return;
        }
        if self.operators[operator].deleted.contains(&job) {
            pass.written = Some(Ok(pass.version));
            return;
        }
        if status.phase.is_terminal() {
            self.operators[operator].closing.insert(job);
        }
        let was = self.api.jobs[job].job.clone();
        let written = self.api.patch_status(job, pass.version, status);
        if written.is_ok() {
            self.judge_record(job);
            self.tell_watchers(job, &was);
        }
        pass.written = Some(written);
    }

    fn recorded(&mut self, operator: usize, job: usize, pass: &mut Pass) -> bool {
        let (Some(plan), Some(written)) = (&pass.plan, &pass.written) else { return false };
        let is_lost = self.chaos.deafness && self.rng.per_mille(50);
        let it = &mut self.operators[operator];
        match written {
            Ok(_) if is_lost => {
                it.closing.remove(&job);
                self.count("write unanswered");
                self.look_in(operator, job, 250);
                false
            }
            Ok(version) => {
                pass.step = Step::After(0);
                if plan.status.phase.is_terminal() {
                    it.forget_job(job);
                } else if let Some((known, is)) = it.cache.get_mut(&job) {
                    let before = is.attempt_in_hand().task;
                    *known = *version;
                    is.status = plan.status.clone();
                    let after = is.attempt_in_hand().task;
                    if before != after {
                        it.notes.insert(job, Evidence::unsent(after));
                    }
                }
                true
            }
            Err(Refused::Conflict) => {
                it.closing.remove(&job);
                say!(self, "operator {operator}, job-{job}: conflict");
                self.count("conflict");
                self.read_live(operator, job);
                self.look_in(operator, job, 1);
                false
            }
            Err(Refused::Invalid(rule)) => {
                self.broken.push(format!("job-{job}: the API server had to say: {rule}"));
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
