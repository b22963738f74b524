//! The commands that change something.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::arguments::{Arguments, Refusal};
use super::revoked::ids_in;
use super::view::View;
use super::{Action, Answered, signal};
use crate::store::Queue;
use crate::wire::{Object, Value, python};

type Answer = Result<Answered, Refusal>;

/// A starting worker asks which tasks are revoked, and says which it knows of: these are in the answer too. To itself
/// it says nothing.
pub(super) fn hello(arguments: &Arguments, view: &View, now: Timestamp) -> Answer {
    if arguments.text("from_node")? == Some(view.node) {
        return Ok(Answered::with(Value::Null));
    }
    let theirs = ids_in(arguments.get("revoked").unwrap_or(&Value::Null));
    let told: HashSet<&str> = theirs.iter().copied().collect();
    let ours = view.revoked.ids(now).filter(|id| !told.contains(id));
    let all: Vec<&str> = ours.chain(theirs.iter().copied()).collect();
    let answered = Answered::with(Object::new().with("revoked", all).with("clock", view.clock));
    if theirs.is_empty() {
        return Ok(answered);
    }
    Ok(answered.and(Action::Merge { revoked: theirs.into_iter().map(str::to_owned).collect() }))
}

pub(super) fn revoke(arguments: &Arguments, view: &View) -> Answer {
    revoking(arguments, view, arguments.is_true("terminate"))
}

pub(super) fn terminate(arguments: &Arguments, view: &View) -> Answer {
    revoking(arguments, view, true)
}

/// As in Celery, tasks are revoked even if the signal makes no sense.
fn revoking(arguments: &Arguments, view: &View, terminate: bool) -> Answer {
    let mut seen = HashSet::new();
    let ids: Vec<&str> = arguments.texts("task_id")?.into_iter().filter(|id| seen.insert(*id)).collect();
    let revoke = |signal| Action::Revoke { ids: ids.iter().map(|id| (*id).to_owned()).collect(), signal };
    if !terminate {
        let names: Vec<String> = ids.iter().map(|id| python::repr(&Value::from(*id))).collect();
        let set = if ids.is_empty() { "set()".to_owned() } else { format!("{{{}}}", names.join(", ")) };
        return Ok(Answered::ok(format!("tasks {set} flagged as revoked")).and(revoke(None)));
    }
    let signal = match signal::number(arguments.get("signal")) {
        Ok(signal) => signal,
        Err(refusal) => return Ok(Answered::refused(refusal).and(revoke(None))),
    };
    let tasks = view.running.iter().chain(&view.reserved).chain(&view.scheduled);
    let here: HashSet<&str> = tasks.map(|task| task.message.headers.id.as_str()).collect();
    let known: Vec<&str> = ids.iter().filter(|id| here.contains(*id)).copied().collect();
    let said = if known.is_empty() { "tasks unknown".to_owned() } else { known.join(", ") };
    Ok(Answered::ok(format!("terminate: {said}")).and(revoke(Some(signal))))
}

/// `10/m`, `2/s`, `0.5/h`, or a number for seconds; 0 takes the limit off.
pub(super) fn rate_limit(arguments: &Arguments, view: &View) -> Answer {
    let text = match arguments.get("rate_limit") {
        None => String::new(),
        Some(Value::Number(number)) if number.as_f64() == 0.0 => String::new(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => arguments.text("rate_limit")?.unwrap_or_default().to_owned(),
    };
    let (ops, unit) = text.split_once('/').unwrap_or((&text, "s"));
    let number = ops.trim().parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate >= 0.0);
    let ops = match number {
        Some(ops) => ops,
        None if text.is_empty() => 0.0,
        None => {
            let why = format!("could not convert string to float: {}", python::repr(&ops.into()));
            let Refusal(why) = Refusal::new("ValueError", &why);
            return Ok(Answered::error(format!("Invalid rate limit string: {why}")));
        }
    };
    let per_second = match unit {
        "s" | "" => ops,
        "m" => ops / 60.0,
        "h" => ops / 3600.0,
        other => return Err(Refusal::new("KeyError", other)),
    };
    let Some(task) = registered(arguments, view)? else { return Ok(Answered::error("unknown task")) };
    let said = if text.is_empty() { "rate limit disabled successfully" } else { "new rate limit set successfully" };
    let per_second = Some(per_second).filter(|rate| *rate > 0.0);
    Ok(Answered::ok(said).and(Action::RateLimit { task, text, per_second }))
}

pub(super) fn time_limit(arguments: &Arguments, view: &View) -> Answer {
    let Some(task) = registered(arguments, view)? else { return Ok(Answered::error("unknown task")) };
    let (hard, soft) = (arguments.number("hard")?.cloned(), arguments.number("soft")?.cloned());
    Ok(Answered::ok("time limits set successfully").and(Action::TimeLimit { task, hard, soft }))
}

/// The argument `task_name`, if such a task is run here.
fn registered(arguments: &Arguments, view: &View) -> Result<Option<String>, Refusal> {
    let name = arguments.text("task_name")?;
    Ok(name.filter(|name| view.registered.iter().any(|task| task == name)).map(str::to_owned))
}

pub(super) fn enable_events(view: &View) -> Answered {
    if view.events {
        return Answered::ok("task events already enabled");
    }
    Answered::ok("task events enabled").and(Action::EnableEvents)
}

pub(super) fn disable_events(view: &View) -> Answered {
    if !view.events {
        return Answered::ok("task events already disabled");
    }
    Answered::ok("task events disabled").and(Action::DisableEvents)
}

pub(super) fn pool_grow(arguments: &Arguments) -> Answer {
    Ok(Answered::ok("pool will grow").and(Action::Grow(arguments.count("n")?.unwrap_or(1))))
}

/// Unlike Celery's, which shrinks by what is idle before it complains, this one does all or nothing, and keeps room for
/// one task.
pub(super) fn pool_shrink(arguments: &Arguments, view: &View) -> Answer {
    let by = arguments.count("n")?.unwrap_or(1);
    let idle = view.concurrency.saturating_sub(u32::try_from(view.running.len()).unwrap_or(u32::MAX));
    if by > idle {
        return Err(Refusal::new("ValueError", "Can't shrink pool. All processes busy!"));
    }
    if by >= view.concurrency {
        return Err(Refusal::new("ValueError", "Can't shrink pool. One process must remain!"));
    }
    Ok(Answered::ok("pool will shrink").and(Action::Shrink(by)))
}

/// Direct exchanges only: messages of others would have to be looked for in other places.
pub(super) fn add_consumer(arguments: &Arguments) -> Answer {
    let name = arguments.text("queue")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Refusal::new("ValueError", "a queue has a name"))?;
    let kind = arguments.text("exchange_type")?.filter(|kind| !kind.is_empty()).unwrap_or("direct");
    if kind != "direct" {
        return Err(Refusal::new("NotImplementedError", &format!("exchanges of type {kind}")));
    }
    let or_name = |text: Option<&str>| Arc::from(text.filter(|text| !text.is_empty()).unwrap_or(name));
    let exchange = or_name(arguments.text("exchange")?);
    let routing_key = or_name(arguments.text("routing_key")?);
    let queue = Queue { name: name.into(), exchange, routing_key };
    Ok(Answered::ok(format!("add consumer {name}")).and(Action::AddConsumer(queue)))
}

pub(super) fn cancel_consumer(arguments: &Arguments) -> Answer {
    let name = arguments.text("queue")?.unwrap_or_default();
    Ok(Answered::ok(format!("no longer consuming from {name}")).and(Action::CancelConsumer(name.to_owned())))
}
