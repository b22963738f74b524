//! Where Redis is, as the environment of a process says.

use std::fs;
use std::path::PathBuf;

use super::secret::Secret;
use super::settings::{Access, SENTINEL_PASSWORD, Sentinel};
use super::tls::file;

/// Where the chart puts what the Secret of Redis has.
const FOLDER: &str = "/etc/crewjob/redis";

/// The variables that hold secrets.
pub const SECRETS: [&str; 3] = ["REDIS_URL", "RESULT_BACKEND_URL", SENTINEL_PASSWORD];

/// Why the environment does not say where Redis is.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// There is no broker.
    #[error(
        "neither REDIS_URL nor REDIS_URL_FILE is set: say where the broker is, for example REDIS_URL=redis://127.0.0.1:6379/0"
    )]
    NoBroker,
    /// A file cannot be read.
    #[error("reading {what} {path:?} ({named})")]
    File {
        /// What it has.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What names it.
        named: String,
        /// What was seen.
        #[source]
        source: std::io::Error,
    },
}

/// A file that the environment, the URL or the chart may name.
#[derive(Clone, Copy)]
struct Named {
    variable: &'static str,
    parameter: &'static str,
    usual: &'static str,
    what: &'static str,
}

const AUTHORITY: Named = Named {
    variable: "REDIS_CA_FILE",
    parameter: "ssl_ca_certs",
    usual: "ca.crt",
    what: "the certificate authority of Redis",
};
const CERTIFICATE: Named = Named {
    variable: "REDIS_CLIENT_CERT_FILE",
    parameter: "ssl_certfile",
    usual: "client.crt",
    what: "the client certificate for Redis",
};
const KEY: Named = Named {
    variable: "REDIS_CLIENT_KEY_FILE",
    parameter: "ssl_keyfile",
    usual: "client.key",
    what: "the key of the client certificate for Redis",
};

impl Access {
    /// What the environment says; `variable` gives the value of a variable.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let url = |name: &str, usual: &str| {
            let named = format!("{name}_FILE");
            match variable(&named).map(PathBuf::from).or_else(|| in_folder(usual)) {
                Some(path) => read_from(path, "the URL of Redis", named).map(Some),
                None => Ok(variable(name)),
            }
        };
        let broker = url("REDIS_URL", "url")?.ok_or(EnvironmentError::NoBroker)?;
        let mut access = Self::new(Secret::new(broker.trim()));
        access.result_url = url("RESULT_BACKEND_URL", "result-url")?.map(|url| Secret::new(url.trim()));
        access.sentinel = Sentinel::of(|name| Ok::<_, EnvironmentError>(variable(name)))?;
        let read = |named| read(&access, &variable, named);
        let (ca, client_cert, client_key) = (read(AUTHORITY)?, read(CERTIFICATE)?, read(KEY)?);
        Ok(Self { ca, client_cert, client_key: client_key.map(Secret::new), ..access })
    }
}

fn read(
    access: &Access,
    variable: &impl Fn(&str) -> Option<String>,
    named: Named,
) -> Result<Option<String>, EnvironmentError> {
    let Named { variable: name, parameter, usual, what } = named;
    // As Celery reads it from the URL.
    let of_url =
        || [Some(&access.url), access.result_url.as_ref()].into_iter().flatten().find_map(|it| file(parameter, it));
    let usual = || in_folder(usual);
    let Some(path) = variable(name).map(PathBuf::from).or_else(of_url).or_else(usual) else { return Ok(None) };
    read_from(path, what, format!("{name}, or {parameter} of a URL")).map(Some)
}

fn in_folder(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(FOLDER).join(name)).filter(|path| path.is_file())
}

fn read_from(path: PathBuf, what: &'static str, named: String) -> Result<String, EnvironmentError> {
    fs::read_to_string(&path).map_err(|source| EnvironmentError::File { what, path, named, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_certificates_are_those_of_variables_before_those_of_the_url() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let url = format!("rediss://redis/0?ssl_certfile={}&ssl_keyfile={}", file("a.crt"), file("a.key"));
        let access = |variables: &[(&str, &str)]| {
            let of = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned());
            Access::of_environment(|name| of(name).or_else(|| (name == "REDIS_URL").then(|| url.clone())))
        };
        let of_url = access(&[]).unwrap();
        assert_eq!((of_url.client_cert.as_deref(), of_url.client_key), (Some("a.crt"), Some(Secret::new("a.key"))));
        let other = access(&[("REDIS_CLIENT_CERT_FILE", &file("b.crt")), ("REDIS_CA_FILE", &file("ca"))]).unwrap();
        assert_eq!((other.client_cert.as_deref(), other.ca.as_deref()), (Some("b.crt"), Some("ca")));
        let absent = access(&[("REDIS_CLIENT_KEY_FILE", "/nowhere")]).unwrap_err().to_string();
        assert!(absent.contains("\"/nowhere\" (REDIS_CLIENT_KEY_FILE, or ssl_keyfile of a URL)"), "{absent}");
        assert!(matches!(Access::of_environment(|_| None), Err(EnvironmentError::NoBroker)));
        let path = file("url");
        fs::write(&path, "redis://other/0\n").unwrap();
        assert_eq!(access(&[("REDIS_URL_FILE", &path)]).unwrap().url, Secret::new("redis://other/0"));
    }
}
