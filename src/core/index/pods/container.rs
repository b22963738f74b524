//! Which container of a Pod runs the worker.

use std::sync::Arc;

/// The annotation that names the container which is meant when none is named; `kubectl logs` and `exec` follow it too.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Why it cannot be told which container runs the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// There are several, and nothing says which one.
    Several(Vec<Arc<str>>),
    /// The one that is named is not there.
    Missing {
        /// `deploymentRef.container` or the annotation.
        named_by: &'static str,
        /// Which.
        name: Arc<str>,
        /// Those that are there.
        there: Vec<Arc<str>>,
    },
}

/// The container that runs the worker, among those of `spec.containers`: the one that the pool names, else the one that
/// the Pod's annotation names, else the only one. Init containers, and so native sidecars, are never it.
pub fn worker_among<'a, C>(
    containers: &'a [C],
    name_of: impl Fn(&C) -> &Arc<str>,
    named_by_pool: Option<&Arc<str>>,
    annotated: Option<&Arc<str>>,
) -> Result<&'a C, Unclear> {
    let there = || containers.iter().map(|container| name_of(container).clone()).collect();
    let by_pool = named_by_pool.map(|name| ("spec.deploymentRef.container", name));
    let Some((named_by, name)) = by_pool.or(annotated.map(|name| (DEFAULT_CONTAINER, name))) else {
        return if let [only] = containers { Ok(only) } else { Err(Unclear::Several(there())) };
    };
    let missing = || Unclear::Missing { named_by, name: name.clone(), there: there() };
    containers.iter().find(|container| name_of(container) == name).ok_or_else(missing)
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Several(there) => {
                write!(f, "its containers are {}, and nothing says which runs the worker", there.join(", "))
            }
            Self::Missing { named_by, name, there } => {
                write!(f, "{named_by} names {name:?}, and its containers are {}", there.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(there: &[&str], pool: Option<&str>, annotation: Option<&str>) -> Result<String, String> {
        let there: Vec<Arc<str>> = there.iter().map(|name| Arc::from(*name)).collect();
        let (pool, annotation) = (pool.map(Arc::from), annotation.map(Arc::from));
        let found = worker_among(&there, |name| name, pool.as_ref(), annotation.as_ref());
        found.map(ToString::to_string).map_err(|unclear| unclear.to_string())
    }

    #[test]
    fn the_workers_container_is_the_one_that_the_pool_names_else_the_annotated_one_else_the_only_one() {
        let there = ["cloud-sql-proxy", "crew"];
        assert_eq!(worker(&there, Some("crew"), Some("cloud-sql-proxy")).as_deref(), Ok("crew"));
        assert_eq!(worker(&there, None, Some("crew")).as_deref(), Ok("crew"));
        assert_eq!(worker(&["anything"], None, None).as_deref(), Ok("anything"));
    }

    #[test]
    fn a_container_that_is_one_of_several_or_is_not_there_is_unclear_and_all_are_named() {
        for there in [["cloud-sql-proxy", "crew"], ["worker", "zipkin"]] {
            let said = worker(&there, None, None).unwrap_err();
            assert!(there.iter().all(|name| said.contains(name)), "{said}");
        }
        let said = worker(&["crew"], Some("worker"), Some("crew")).unwrap_err();
        assert!(
            said.contains("spec.deploymentRef.container") && said.contains("\"worker\"") && said.contains("crew"),
            "{said}"
        );
        let said = worker(&["crew"], None, Some("worker")).unwrap_err();
        assert!(said.contains(DEFAULT_CONTAINER), "{said}");
    }
}
