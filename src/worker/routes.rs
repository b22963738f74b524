//! Which queue a task is sent to.

use crate::wire::{Object, Pattern, Value};

/// Celery's `task_routes` and `task_default_queue`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    routes: Vec<(String, String)>,
    default: String,
}

impl Routes {
    /// Names of tasks, or globs for them, with their queues; and the queue of all other tasks.
    pub fn new(routes: impl IntoIterator<Item = (String, String)>, default: impl Into<String>) -> Self {
        Self { routes: routes.into_iter().collect(), default: default.into() }
    }

    /// The queue of a task: by its name, or else by the first glob, as in Celery.
    pub fn queue_of(&self, task: &str) -> &str {
        let exact = self.routes.iter().find(|(name, _)| name == task);
        let by_glob = || self.routes.iter().find(|(name, _)| name.contains('*') && Pattern::glob(name).matches(task));
        exact.or_else(by_glob).map_or(&self.default, |(_, queue)| queue)
    }

    /// The queue of tasks without a route.
    pub fn default_queue(&self) -> &str {
        &self.default
    }

    /// As the setting `task_routes` shows it.
    pub fn to_value(&self) -> Value {
        let route = |queue: &str| Object::new().with("queue", queue);
        self.routes.iter().map(|(task, queue)| (task.as_str(), route(queue))).collect::<Object>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_before_the_globs_and_these_in_their_order() {
        let routes = [("backend.*", "b"), ("backend.tasks.*", "t"), ("backend.tasks.run", "r")];
        let routes = Routes::new(routes.map(|(task, queue)| (task.to_owned(), queue.to_owned())), "default");
        assert_eq!(routes.queue_of("backend.tasks.run"), "r");
        assert_eq!(routes.queue_of("backend.tasks.other"), "b");
        assert_eq!(routes.queue_of("other"), "default");
    }
}
