//! Where a path leads. Only plain paths lead anywhere: what must be decoded, or leads up, is refused, so that the gateway and the
//! API server cannot read a path in two ways.

use super::id::{JobId, is_name, is_namespace};
use super::page::Page;

/// The group and version of the resources, as in a path.
pub const GROUP: &str = "crewjob.dev";
/// The version.
pub const VERSION: &str = "v1alpha1";
/// The resources that are passed on.
pub const RESOURCES: [&str; 3] = ["crewjobs", "crewschedules", "crewworkerpools"];
/// The longest path that is looked at, in bytes.
const LONGEST: usize = 1024;

const READ: &[&str] = &["GET"];
const WRITE: &[&str] = &["POST"];
const COLLECTION: &[&str] = &["GET", "POST"];
const OBJECT: &[&str] = &["GET", "PUT", "PATCH", "DELETE"];
const STATUS: &[&str] = &["GET", "PUT", "PATCH"];
const PROBE: &[&str] = &["GET", "HEAD"];

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Makes a job.
    Submit,
    /// How a job is.
    Status(JobId),
    /// What came of a job.
    Result(JobId),
    /// Ends a job.
    Cancel(JobId),
    /// What happens to a job, as it happens.
    Events(JobId),
    /// A path of Kubernetes, as it is.
    Kubernetes(String),
    /// The page, or what it calls.
    Page(Page),
    /// A message of the Model Context Protocol.
    Mcp,
    /// The description of this interface.
    OpenApi,
    /// Whether the process lives.
    Health,
    /// Whether it can serve.
    Ready,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nowhere {
    /// Nothing is there.
    Unknown,
    /// It takes these methods only.
    Method(&'static [&'static str]),
    /// It is not plain; what is wrong with it.
    Unusable(&'static str),
}

impl Route {
    /// Whether it is of the short form.
    pub fn is_short(&self) -> bool {
        match self {
            Self::Submit | Self::Status(_) | Self::Result(_) | Self::Cancel(_) | Self::Events(_) => true,
            Self::Kubernetes(_) | Self::Page(_) | Self::Mcp | Self::OpenApi | Self::Health | Self::Ready => false,
        }
    }

    /// Whether the API server is asked, for a caller.
    pub fn needs_caller(&self) -> bool {
        if let Self::Page(page) = self {
            return page.needs_caller();
        }
        self.is_short() || matches!(self, Self::Kubernetes(_) | Self::Mcp)
    }
}

/// Where `path` leads, below `prefix`; a job's id without a namespace is of the namespace `home`.
pub fn route(method: &str, path: &str, prefix: &str, home: &str) -> Result<Route, Nowhere> {
    let path = path.strip_prefix(prefix).filter(|rest| rest.starts_with('/')).ok_or(Nowhere::Unknown)?;
    check(path)?;
    let parts: Vec<&str> = path[1..].split('/').collect();
    let id = |text: &str| JobId::parse(text, home).ok_or(Nowhere::Unusable("the id of a job is NAMESPACE.NAME"));
    let (allowed, route) = match parts[..] {
        ["api", "submit"] => (WRITE, Route::Submit),
        ["api", "status", job] => (READ, Route::Status(id(job)?)),
        ["api", "result", job] => (READ, Route::Result(id(job)?)),
        ["api", "cancel", job] => (WRITE, Route::Cancel(id(job)?)),
        ["api", "events", job] => (READ, Route::Events(id(job)?)),
        ["apis", GROUP, ref rest @ ..] => (of_kubernetes(rest)?, Route::Kubernetes(path.to_owned())),
        ["mcp"] => (WRITE, Route::Mcp),
        ["openapi.json"] => (READ, Route::OpenApi),
        ["healthz"] => (PROBE, Route::Health),
        ["readyz"] => (PROBE, Route::Ready),
        ref others => match Page::of(others, home) {
            Some(found) => found.map(|(allowed, page)| (allowed, Route::Page(page))).map_err(Nowhere::Unusable)?,
            None => return Err(Nowhere::Unknown),
        },
    };
    if allowed.contains(&method) { Ok(route) } else { Err(Nowhere::Method(allowed)) }
}

fn check(path: &str) -> Result<(), Nowhere> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    if path.len() > LONGEST {
        return Err(Nowhere::Unusable("it is longer than 1024 bytes"));
    }
    if !path.bytes().all(is_plain) {
        return Err(Nowhere::Unusable("it has other characters than letters, digits and / - . _ ~"));
    }
    if path[1..].split('/').any(|part| matches!(part, "." | "..")) {
        return Err(Nowhere::Unusable("it has a part . or .."));
    }
    if path.contains("//") {
        return Err(Nowhere::Unusable("it has an empty part"));
    }
    Ok(())
}

/// The methods of a path of Kubernetes, from behind its group.
fn of_kubernetes(rest: &[&str]) -> Result<&'static [&'static str], Nowhere> {
    let Some((version, rest)) = rest.split_first() else { return Ok(READ) };
    if *version != VERSION {
        return Err(Nowhere::Unknown);
    }
    let (namespaced, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if is_namespace(namespace) => (true, rest),
        rest => (false, rest),
    };
    match (namespaced, rest) {
        (false, []) => Ok(READ),
        (namespaced, [resource, rest @ ..]) if RESOURCES.contains(resource) => match (namespaced, rest) {
            (false, []) => Ok(READ),
            (true, []) => Ok(COLLECTION),
            (true, [name]) if is_name(name) => Ok(OBJECT),
            (true, [name, "status"]) if is_name(name) => Ok(STATUS),
            (false | true, _) => Err(Nowhere::Unknown),
        },
        (false | true, _) => Err(Nowhere::Unknown),
    }
}

#[cfg(test)]
mod tests;
