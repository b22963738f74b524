//! The commands that ask.

use jiff::Timestamp;

use super::arguments::{Arguments, Refusal};
use super::view::View;
use super::{Answered, conf as settings, describe};
use crate::wire::{Object, Value};

pub(super) fn clock(view: &View) -> Answered {
    Answered::with(Object::new().with("clock", view.clock))
}

pub(super) fn active(arguments: &Arguments, view: &View) -> Answered {
    let safe = arguments.is_true("safe");
    let tasks: Vec<Object> = view.running.iter().map(|task| describe::task(task, view.node, safe)).collect();
    Answered::with(tasks)
}

pub(super) fn reserved(view: &View) -> Answered {
    let tasks: Vec<Object> = view.reserved.iter().map(|task| describe::task(task, view.node, false)).collect();
    Answered::with(tasks)
}

pub(super) fn scheduled(view: &View) -> Answered {
    let tasks: Vec<Object> = view.scheduled.iter().map(|task| describe::scheduled(task, view.node)).collect();
    Answered::with(tasks)
}

pub(super) fn query_task(arguments: &Arguments, view: &View) -> Result<Answered, Refusal> {
    let ids = arguments.texts("ids")?;
    let states = [("active", &view.running), ("reserved", &view.reserved), ("scheduled", &view.scheduled)];
    let find = |id: &str| {
        states.iter().find_map(|(state, tasks)| {
            let task = tasks.iter().find(|task| task.message.headers.id == id)?;
            Some(vec![Value::from(*state), describe::task(task, view.node, false).into()])
        })
    };
    Ok(Answered::with(ids.into_iter().filter_map(|id| Some((id, find(id)?))).collect::<Object>()))
}

pub(super) fn revoked(view: &View, now: Timestamp) -> Answered {
    Answered::with(view.revoked.ids(now).collect::<Vec<_>>())
}

/// The names, with the attributes asked for that a task has: of Celery's usual three only the rate limit.
pub(super) fn registered(arguments: &Arguments, view: &View) -> Result<Answered, Refusal> {
    let items = arguments.texts("taskinfoitems")?;
    let limits = items.is_empty() || items.contains(&"rate_limit");
    let mut names: Vec<&String> = view.registered.iter().collect();
    names.sort();
    let describe = |name: &String| match view.rate_limits.get(name).filter(|_| limits) {
        Some(limit) => format!("{name} [rate_limit={limit}]"),
        None => name.clone(),
    };
    Ok(Answered::with(names.into_iter().map(describe).collect::<Vec<_>>()))
}

pub(super) fn conf(arguments: &Arguments, view: &View) -> Answered {
    Answered::with(settings::table(view, arguments.is_true("with_defaults")))
}

pub(super) fn stats(view: &View) -> Answered {
    Answered::with(describe::stats(view))
}

pub(super) fn active_queues(view: &View) -> Answered {
    Answered::with(view.queues.iter().map(describe::queue).collect::<Vec<_>>())
}

/// Text for a bug report, laid out as Celery's.
pub(super) fn report(view: &View) -> Answered {
    let settings = settings::table(view, false);
    let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    Answered::ok(format!(
        "\nsoftware -> crewjob:{}\nplatform -> system:{} arch:{}\nsettings -> transport:redis results:redis\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        settings.join("\n"),
    ))
}

/// The memory it occupies, `57.2MB`; `null` if that cannot be told, as without `psutil`.
pub(super) fn memsample(view: &View) -> Answered {
    const UNITS: [(i64, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let human = |bytes: i64| {
        let unit = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
        let tenths = |unit: i64| (bytes.saturating_mul(10) + unit / 2) / unit;
        unit.map_or_else(
            || format!("{bytes}b"),
            |(unit, name)| format!("{}.{}{name}", tenths(unit) / 10, tenths(unit) % 10),
        )
    };
    Answered::with(view.memory.map(human))
}
