//! What a worker is called.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A node name, `crewjob@worker-7`, unique among all workers of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// Expands `%h`, `%n` and `%d` as Celery does; a name without `@` is taken for the host's part.
    fn expand(pattern: &str, host: &str) -> Self {
        let (name, domain) = host.split_once('.').unwrap_or((host, ""));
        let mut expanded = String::with_capacity(pattern.len() + host.len());
        let mut rest = pattern.chars();
        while let Some(c) = rest.next() {
            match (c, rest.clone().next()) {
                ('%', Some('h')) => expanded.push_str(host),
                ('%', Some('n')) => expanded.push_str(name),
                ('%', Some('d')) => expanded.push_str(domain),
                ('%', Some('%')) => expanded.push('%'),
                _ => {
                    expanded.push(c);
                    continue;
                }
            }
            rest.next();
        }
        Self(if expanded.contains('@') { expanded } else { format!("celery@{expanded}") })
    }

    /// The name as Celery writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = Infallible;

    fn from_str(pattern: &str) -> Result<Self, Infallible> {
        Ok(Self::expand(pattern, &host()))
    }
}

/// The name of this host.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeName;

    #[test]
    fn the_hosts_name_is_filled_in_as_celery_does() {
        let cases = [
            ("crewjob@%h", "crewjob@pod-1.example.org"),
            ("a@%n", "a@pod-1"),
            ("a@%d", "a@example.org"),
            ("worker1", "celery@worker1"),
            ("100%%@%x", "100%@%x"),
        ];
        for (pattern, name) in cases {
            assert_eq!(NodeName::expand(pattern, "pod-1.example.org").as_str(), name);
        }
    }
}
