use super::refused::Refused;
use super::signature::option;
use crate::wire::{Object, Signature, Value};

/// A signature: of one task, or of several that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Canvas {
    /// One task.
    Task {
        signature: Signature,
        /// Whether Celery has made a copy of it on the way, which turns its arguments into a tuple. It shows in
        /// `argsrepr`.
        copied: bool,
    },
    /// Tasks that run side by side.
    Group { options: Object, tasks: Vec<Canvas> },
    /// Tasks that run one after the other.
    Chain { options: Object, tasks: Vec<Canvas> },
}

impl Canvas {
    pub(super) fn group(tasks: Vec<Self>) -> Self {
        Self::Group { options: Object::new(), tasks: tasks.into_iter().map(Self::copied).collect() }
    }

    /// Reads a signature, with those in it.
    pub(super) fn decode(value: &Value) -> Result<Self, Refused> {
        let is_part = option(value, "chord").is_some();
        let signature = Signature::decode(value).map_err(|error| Refused::malformed(error.to_string()))?;
        match signature.subtask_type.as_deref() {
            None | Some("") => Ok(Self::Task { signature, copied: false }),
            Some(_) if is_part => Err(Refused::unsupported("groups and chains that are parts of a chord")),
            Some("group") if ["link", "link_error"].iter().any(|link| option(value, link).is_some()) => {
                Err(Refused::malformed("Cannot add link to group: use a chord"))
            }
            Some("group") => Ok(Self::Group { tasks: tasks(&signature)?, options: signature.options }),
            Some("chain") => Ok(Self::Chain { tasks: steps(tasks(&signature)?)?, options: signature.options }),
            Some("chord") => Err(Refused::chord()),
            Some(other) => Err(Refused::unsupported(&format!("signatures of type {other}"))),
        }
    }

    fn copied(self) -> Self {
        match self {
            Self::Task { signature, copied: _ } => Self::Task { signature, copied: true },
            Self::Group { .. } | Self::Chain { .. } => self,
        }
    }
}

fn tasks(signature: &Signature) -> Result<Vec<Canvas>, Refused> {
    let missing = || Refused::malformed(format!("{} without tasks", signature.task));
    let tasks = signature.kwargs.get("tasks").and_then(Value::as_array).ok_or_else(missing)?;
    tasks.iter().map(|task| Ok(Canvas::decode(task)?.copied())).collect()
}

/// The tasks of a chain, with chains in it laid out and groups of one as that one. A larger group would be a chord with
/// what comes after it.
fn steps(tasks: Vec<Canvas>) -> Result<Vec<Canvas>, Refused> {
    let mut steps = Vec::new();
    for task in tasks {
        match task {
            Canvas::Task { .. } => steps.push(task),
            Canvas::Chain { options: _, tasks } => steps.extend(tasks),
            Canvas::Group { options: _, tasks } if tasks.len() < 2 => steps.extend(self::steps(tasks)?),
            Canvas::Group { .. } => return Err(Refused::unsupported("groups within a chain that it is to begin")),
        }
    }
    Ok(steps)
}
