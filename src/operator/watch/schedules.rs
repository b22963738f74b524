//! The watches on schedules, and on the ends of their jobs. Of both only metadata are read.

use std::sync::Arc;

use futures::StreamExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};

use super::follow::{Index, follow, follow_into};
use crate::api::{CrewJob, CrewSchedule, FINISHED, RUN_NOW, SCHEDULE_LABEL};
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::schedule;
use crate::operator::state::schedules::Asked;
use crate::operator::state::watches::Scope;

/// Follows the schedules, for ever, and serves each.
pub async fn watch_schedules(ctx: Arc<Context>) {
    let api: Api<PartialObjectMeta<CrewSchedule>> = Api::all(ctx.client.clone());
    let events = follow(&ctx.watches, "crewschedules", Scope::Part, api, watcher::Config::default());
    let ends = watch_ends(ctx.clone());
    let schedules = async { follow_into(events, &mut Served { ctx: &ctx }).await };
    tokio::join!(ends, schedules);
}

/// Wakes a schedule when one of its jobs has ended, for ever.
async fn watch_ends(ctx: Arc<Context>) {
    let api: Api<PartialObjectMeta<CrewJob>> = Api::all(ctx.client.clone());
    let config = watcher::Config::default().fields(FINISHED).labels(SCHEDULE_LABEL);
    let mut events = follow(&ctx.watches, "finished crewjobs of schedules", Scope::Part, api, config);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(job)) => {
                let schedule = job.labels().get(SCHEDULE_LABEL).cloned().unwrap_or_default();
                ctx.schedules.wake(&ObjectKey::new(job.namespace().unwrap_or_default(), schedule));
            }
            // Each schedule is looked at when it is first known.
            Ok(Event::Init | Event::InitApply(_) | Event::InitDone | Event::Delete(_)) => {}
            Err(error) => tracing::warn!(%error, "watching the jobs of schedules failed; trying again"),
        }
    }
}

struct Served<'a> {
    ctx: &'a Arc<Context>,
}

impl Served<'_> {
    fn note(&self, object: &PartialObjectMeta<CrewSchedule>) -> ObjectKey {
        let key = key_of(object);
        let asked = Asked {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or(0),
            run_now: object.annotations().get(RUN_NOW).cloned(),
        };
        if let Some(handle) = self.ctx.schedules.note(&key, asked) {
            tokio::spawn(schedule::serve(self.ctx.clone(), handle));
        }
        key
    }
}

impl Index<PartialObjectMeta<CrewSchedule>> for Served<'_> {
    type List = Vec<ObjectKey>;

    fn list(&mut self, object: PartialObjectMeta<CrewSchedule>, list: &mut Vec<ObjectKey>) {
        list.push(self.note(&object));
    }

    fn reset(&mut self, list: Vec<ObjectKey>) {
        self.ctx.schedules.retain(&list);
    }

    fn apply(&mut self, object: PartialObjectMeta<CrewSchedule>) {
        self.note(&object);
    }

    fn delete(&mut self, object: PartialObjectMeta<CrewSchedule>) {
        self.ctx.schedules.remove(&key_of(&object));
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(%error, "watching schedules failed; trying again");
    }
}

fn key_of(object: &PartialObjectMeta<CrewSchedule>) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}
