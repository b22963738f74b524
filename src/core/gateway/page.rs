//! Where a path of the page leads.

use super::id::JobId;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// A file of the page.
    File(String),
    /// Which user the caller is.
    Session,
    /// A page of the jobs.
    Jobs,
    /// When jobs change.
    Changes,
    /// Something is to be done with jobs.
    Act,
    /// Why a job is where it is.
    Explain(JobId),
    /// What a worker wrote while it ran a job.
    Log(JobId),
    /// What the caller may do.
    Rights,
}

const READ: &[&str] = &["GET"];
const FILE: &[&str] = &["GET", "HEAD"];
const WRITE: &[&str] = &["POST"];

impl Page {
    /// Where the parts of a path lead, and by which methods; `Some(Err)` where the id of a job is none.
    pub fn of(parts: &[&str], home: &str) -> Option<Result<(&'static [&'static str], Self), &'static str>> {
        let job = |text: &str, page: fn(JobId) -> Self| {
            let id = JobId::parse(text, home).ok_or("the id of a job is NAMESPACE.NAME");
            id.map(|id| (READ, page(id)))
        };
        Some(match *parts {
            [""] => Ok((FILE, Self::File("index.html".to_owned()))),
            ["page", file] => Ok((FILE, Self::File(file.to_owned()))),
            ["api", "session"] => Ok((READ, Self::Session)),
            ["api", "jobs"] => Ok((READ, Self::Jobs)),
            ["api", "jobs", "events"] => Ok((READ, Self::Changes)),
            ["api", "jobs", "actions"] => Ok((WRITE, Self::Act)),
            ["api", "explain", id] => job(id, Self::Explain),
            ["api", "log", id] => job(id, Self::Log),
            ["api", "rights"] => Ok((READ, Self::Rights)),
            _ => return None,
        })
    }

    /// Whether the API server is asked, for a caller.
    pub fn needs_caller(&self) -> bool {
        !matches!(self, Self::File(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_page_leads_to_one_thing_and_others_to_none() {
        let of =
            |path: &str| Page::of(&path[1..].split('/').collect::<Vec<_>>(), "home").map(|it| it.map(|(_, page)| page));
        let id = |name: &str| JobId { namespace: "a".into(), name: name.into() };
        assert_eq!(of("/"), Some(Ok(Page::File("index.html".into()))));
        assert_eq!(of("/page/app.js"), Some(Ok(Page::File("app.js".into()))));
        assert_eq!(of("/api/jobs/events"), Some(Ok(Page::Changes)));
        assert_eq!(of("/api/explain/a.tea"), Some(Ok(Page::Explain(id("tea")))));
        assert_eq!(of("/api/log/a.tea.1"), Some(Ok(Page::Log(id("tea.1")))));
        assert!(matches!(of("/api/log/A"), Some(Err(_))));
        for path in ["/api", "/api/status/a.b", "/page", "/page/a/b", "/index.html"] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
