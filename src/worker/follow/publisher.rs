//! Takes signatures apart into calls of single tasks.

use jiff::Timestamp;

use super::canvas::Canvas;
use super::refused::Refused;
use super::sender::{Following, Sender};
use super::signature::{elements, take_text};
use crate::wire::{Envelope, Headers, Object, Signature, Value};

/// These options of a signature win over those that are passed on.
pub(super) const OWN: [&str; 2] = ["group_id", "stamped_headers"];

/// Applies signatures one after the other.
pub(super) struct Publisher<'a, F> {
    /// Of the task that has ended.
    pub(super) parent: &'a Headers,
    pub(super) sender: &'a Sender<'a>,
    pub(super) now: Timestamp,
    pub(super) fresh: F,
    pub(super) messages: Vec<Envelope>,
    children: Vec<Value>,
}

impl<'a, F: FnMut() -> String> Publisher<'a, F> {
    pub(super) fn new(parent: &'a Headers, sender: &'a Sender<'a>, now: Timestamp, fresh: F) -> Self {
        Self { parent, sender, now, fresh, messages: Vec::new(), children: Vec::new() }
    }

    pub(super) fn following(self) -> Following {
        Following { messages: self.messages, children: Value::Array(self.children) }
    }

    /// Applies a signature to these arguments, with further options; it becomes a child of the task that has ended.
    pub(super) fn apply(&mut self, canvas: Canvas, given: &[Value], passed: &Object) -> Result<(), Refused> {
        let children = match canvas {
            Canvas::Task { signature, copied } => vec![leaf(&self.task(signature, copied, given, passed)?)],
            Canvas::Chain { options, tasks } => {
                let ids = self.chain(over(options, passed), tasks, given)?;
                ids.first().map(|first| leaf(first)).into_iter().collect()
            }
            Canvas::Group { options, tasks } => self.group(over(options, passed), tasks, given)?.into_iter().collect(),
        };
        self.children.extend(children);
        Ok(())
    }

    fn group(&mut self, mut options: Object, tasks: Vec<Canvas>, given: &[Value]) -> Result<Option<Value>, Refused> {
        if tasks.is_empty() {
            return Ok(None);
        }
        let id = take_text(&mut options, "task_id")?.unwrap_or_else(&mut self.fresh);
        options.insert("group_id", id.as_str());
        let mut members = Vec::new();
        self.members(&options, tasks, given, &mut members)?;
        Ok(Some(vec![vec![Value::from(id), Value::Null].into(), Value::Array(members)].into()))
    }

    /// Groups in a group are laid out; each numbers its members from 0.
    fn members(
        &mut self,
        options: &Object,
        tasks: Vec<Canvas>,
        given: &[Value],
        members: &mut Vec<Value>,
    ) -> Result<(), Refused> {
        for (task, index) in tasks.into_iter().zip(0_i64..) {
            match task {
                Canvas::Task { mut signature, copied } => {
                    signature.options.insert("group_index", index);
                    members.push(leaf(&self.task(signature, copied, given, options)?));
                }
                Canvas::Chain { options: own, tasks } => {
                    let options = over(own, options).with("group_index", index);
                    let ids = self.chain(options, tasks, given)?;
                    let tuple = |parent, id: &String| vec![Value::Array(vec![id.as_str().into(), parent]), Value::Null];
                    let last = ids.iter().fold(Value::Null, |parent, id| tuple(parent, id).into());
                    members.extend(Some(last).filter(|last| !last.is_null()));
                }
                Canvas::Group { options: _, tasks } => self.members(options, tasks, given, members)?,
            }
        }
        Ok(())
    }

    /// Sends the first task, with the others in its message, and gives the ids of all. What holds for the chain holds
    /// for its last task (id, group, callbacks), for each (errbacks), or for the first (anything else).
    fn chain(&mut self, mut options: Object, tasks: Vec<Canvas>, given: &[Value]) -> Result<Vec<String>, Refused> {
        let mut steps: Vec<(Signature, bool)> = Vec::new();
        for task in tasks {
            let Canvas::Task { signature, copied } = task else { return Err(Refused::unsupported("such chains")) };
            steps.push((signature, copied));
        }
        let Some((last, _)) = steps.last_mut() else { return Ok(Vec::new()) };
        let task_id = take_text(&mut options, "task_id")?;
        for (name, value) in [
            ("task_id", task_id.map(Value::from)),
            ("group_id", options.remove("group_id")),
            ("group_index", options.remove("group_index")),
        ] {
            if let Some(value) = value.filter(|value| !value.is_null() && !last.options.contains_key(name)) {
                last.options.insert(name, value);
            }
        }
        let root_id = take_text(&mut options, "root_id")?;
        options.remove("parent_id");
        append(&mut last.options, "link", options.remove("link").as_ref());
        let errbacks = options.remove("link_error");
        let mut ids = Vec::new();
        for (step, _) in &mut steps {
            ids.push(match take_text(&mut step.options, "task_id")? {
                Some(id) => id,
                None => (self.fresh)(),
            });
            step.options.insert("task_id", ids.last().cloned());
            if let Some(root) = &root_id {
                step.options.insert("root_id", root.as_str());
            }
            if !step.options.contains_key("reply_to") {
                step.options.insert("reply_to", self.sender.reply_to);
            }
            append(&mut step.options, "link_error", errbacks.as_ref());
        }
        let mut steps = steps.into_iter();
        let Some((first, copied)) = steps.next() else { return Ok(ids) };
        let mut rest: Vec<Value> = elements(&options.remove("chain").unwrap_or_default()).to_vec();
        rest.extend(steps.rev().map(|(step, _)| step.to_value()));
        self.task(first, copied, given, &options.with("chain", rest))?;
        Ok(ids)
    }
}

/// The result tuple of a task.
pub(super) fn leaf(id: &str) -> Value {
    vec![Value::Array(vec![id.into(), Value::Null]), Value::Null].into()
}

/// A group or a chain takes all options that are passed, be they `null`.
fn over(mut own: Object, passed: &Object) -> Object {
    for (name, value) in passed.iter() {
        if !OWN.contains(&name) || !own.contains_key(name) {
            own.insert(name, value.clone());
        }
    }
    own
}

/// Adds signatures to a list of them, each once.
fn append(options: &mut Object, name: &str, more: Option<&Value>) {
    let mut all = options.get(name).map(|links| elements(links).to_vec()).unwrap_or_default();
    let before = all.len();
    for link in more.map(elements).unwrap_or_default() {
        if !all.contains(link) {
            all.push(link.clone());
        }
    }
    if all.len() > before {
        options.insert(name, all);
    }
}
