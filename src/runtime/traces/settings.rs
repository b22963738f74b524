//! What OpenTelemetry's environment variables say, as far as they are heeded here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri};

use crate::core::trace::Sampler;

/// A variable whose value cannot be used. Does not hold the value, which may be a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: &'static str,
    /// What is wrong with it, and what to give.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// Where spans go and which jobs have them.
#[derive(Debug)]
pub struct Settings {
    /// Where requests go to.
    pub endpoint: Uri,
    /// Headers of each request; their values are marked as secret.
    pub headers: HeaderMap,
    /// How long a request may take.
    pub timeout: Duration,
    /// A file with the authorities to check the collector's certificate against; those of the system when there is none.
    pub authority: Option<PathBuf>,
    /// Which jobs are traced.
    pub sampler: Sampler,
    /// Attributes of the sender.
    pub resource: Vec<(String, String)>,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const TRACES_TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const TRACES_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

impl Settings {
    /// Reads the variables; `None` when nothing is to be traced. `own` are attributes of this process, which
    /// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win over.
    pub fn read(
        variable: impl Fn(&str) -> Option<String>,
        own: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Option<Self>, Problem> {
        let variable = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let either = |name: &'static str, other: &'static str| {
            variable(name).map(|value| (name, value)).or_else(|| Some((other, variable(other)?)))
        };
        let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|text| text == "none");
        let Some((name, endpoint)) = either(TRACES_ENDPOINT, ENDPOINT).filter(|_| !is_off) else { return Ok(None) };
        if let Some((name, protocol)) = either(TRACES_PROTOCOL, PROTOCOL).filter(|(_, text)| text == "grpc") {
            let why = format!("{protocol} is not spoken here; give http/json, and the collector's port for HTTP");
            return Err(Problem { name, why });
        }
        let mut resource: Vec<(String, String)> =
            own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let given = variable(RESOURCE).map(|text| pairs(RESOURCE, &text)).transpose()?.unwrap_or_default();
        let service = variable("OTEL_SERVICE_NAME").map(|value| ("service.name".to_owned(), value));
        for (name, value) in given.into_iter().chain(service) {
            resource.retain(|(own, _)| *own != name);
            resource.push((name, value));
        }
        let headers = either(TRACES_HEADERS, HEADERS).map(|(name, text)| headers(name, &text)).transpose()?;
        let timeout = either(TRACES_TIMEOUT, TIMEOUT).map(|(name, text)| millis(name, &text)).transpose()?;
        Ok(Some(Self {
            endpoint: address(name, &endpoint)?,
            headers: headers.unwrap_or_default(),
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
            authority: either(TRACES_CERTIFICATE, CERTIFICATE).map(|(_, path)| path.into()),
            sampler: sampler(variable(SAMPLER).as_deref(), variable(SAMPLER_ARG).as_deref())?,
            resource,
        }))
    }
}

/// The URL of requests. One that holds for all signals gets the path of traces.
fn address(name: &'static str, text: &str) -> Result<Uri, Problem> {
    let problem = |why: &str| Problem { name, why: why.to_owned() };
    let url: Uri = text.parse().map_err(|_| problem("is no URL; give one such as http://collector:4318"))?;
    let mut parts = url.into_parts();
    if !matches!(&parts.scheme, Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS) {
        return Err(problem("does not begin with http:// or https://"));
    }
    if parts.authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(problem("has a user or a password; give OTEL_EXPORTER_OTLP_HEADERS instead"));
    }
    if name == ENDPOINT {
        let base = parts.path_and_query.as_ref().map_or("", |path| path.path()).trim_end_matches('/');
        parts.path_and_query = PathAndQuery::try_from(format!("{base}/v1/traces")).ok();
    }
    Uri::from_parts(parts).map_err(|_| problem("is no URL that requests can be sent to"))
}

/// `name=value,name=value`, the values with percent encoding.
fn pairs(name: &'static str, text: &str) -> Result<Vec<(String, String)>, Problem> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim().to_owned(), decoded(value.trim())?)).filter(|(key, _)| !key.is_empty())
    };
    let malformed = || Problem { name, why: "is not of the form name=value,name=value".into() };
    parts.map(|part| pair(part).ok_or_else(malformed)).collect()
}

fn headers(name: &'static str, text: &str) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs(name, text)? {
        let malformed =
            || Problem { name, why: format!("header {key:?} has a name or a value that HTTP does not allow") };
        let mut secret = HeaderValue::from_str(&value).map_err(|_| malformed())?;
        secret.set_sensitive(true);
        headers.insert(HeaderName::try_from(&key).map_err(|_| malformed())?, secret);
    }
    Ok(headers)
}

fn millis(name: &'static str, text: &str) -> Result<Duration, Problem> {
    let within = |millis: &u64| (1..=60_000).contains(millis);
    let millis = text.parse::<u64>().ok().filter(within);
    millis
        .map(Duration::from_millis)
        .ok_or(Problem { name, why: "is no number of milliseconds from 1 to 60000".into() })
}

fn sampler(name: Option<&str>, ratio: Option<&str>) -> Result<Sampler, Problem> {
    let (name, is_parent_based) = match name.unwrap_or("parentbased_always_on") {
        name if name.starts_with("parentbased_") => (name.trim_start_matches("parentbased_"), true),
        name => (name, false),
    };
    let ratio = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let parsed = ratio.unwrap_or("1").parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            parsed.ok_or(Problem { name: SAMPLER_ARG, why: "is no number from 0 to 1".into() })?
        }
        _ => {
            let why = "is none of always_on, always_off and traceidratio, or of these with parentbased_ before it";
            return Err(Problem { name: SAMPLER, why: why.into() });
        }
    };
    Ok(Sampler::new(ratio, is_parent_based))
}

/// Undoes the percent encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Problem> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::read(variable, [("service.name", "crewjob-operator".to_owned())])
    }

    fn some(variables: &[(&str, &str)]) -> Settings {
        read(variables).unwrap().unwrap()
    }

    #[test]
    fn nothing_is_traced_without_an_endpoint_or_where_traces_are_turned_off() {
        let endpoint = (ENDPOINT, "http://collector:4318");
        for variables in [
            vec![],
            vec![(ENDPOINT, "")],
            vec![(SAMPLER, "always_on")],
            vec![endpoint, ("OTEL_SDK_DISABLED", "true")],
            vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(read(&variables).unwrap().is_none(), "{variables:?}");
        }
    }

    #[test]
    fn the_endpoint_of_all_signals_gets_the_path_of_traces_and_that_of_traces_is_taken_as_it_is() {
        for (name, given, expected) in [
            (ENDPOINT, "http://collector:4318", "http://collector:4318/v1/traces"),
            (ENDPOINT, "https://collector/otlp/", "https://collector/otlp/v1/traces"),
            (TRACES_ENDPOINT, "http://collector:4318/in", "http://collector:4318/in"),
        ] {
            assert_eq!(some(&[(name, given)]).endpoint, expected, "{given}");
        }
        let both = some(&[(ENDPOINT, "http://a"), (TRACES_ENDPOINT, "http://b/x")]);
        assert_eq!(both.endpoint, "http://b/x");
    }

    #[test]
    fn the_variables_of_opentelemetry_are_read() {
        let settings = some(&[
            (ENDPOINT, "https://collector"),
            (HEADERS, "authorization=Basic%20c2VjcmV0, x-team=a"),
            (TIMEOUT, "2500"),
            (CERTIFICATE, "/etc/ca.pem"),
            (SAMPLER, "traceidratio"),
            (SAMPLER_ARG, "0.25"),
            (RESOURCE, "deployment.environment.name=test%2Ca,service.name=ignored"),
            ("OTEL_SERVICE_NAME", "jobs"),
        ]);
        assert_eq!(settings.headers["authorization"], "Basic c2VjcmV0");
        assert!(!format!("{settings:?}").contains("c2VjcmV0"), "{settings:?}");
        assert_eq!(settings.headers["x-team"], "a");
        assert_eq!(settings.timeout, Duration::from_millis(2500));
        assert_eq!(settings.authority, Some("/etc/ca.pem".into()));
        assert_eq!(settings.sampler, Sampler::new(0.25, false));
        let resource = [("deployment.environment.name", "test,a"), ("service.name", "jobs")];
        assert_eq!(settings.resource, resource.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let defaults = some(&[(ENDPOINT, "http://collector")]);
        assert_eq!((defaults.sampler, defaults.timeout), (Sampler::new(1.0, true), Duration::from_secs(10)));
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_value() {
        for (name, value) in [
            (ENDPOINT, "hunter2"),
            (ENDPOINT, "ftp://hunter2"),
            (ENDPOINT, "http://user:hunter2@collector"),
            (PROTOCOL, "grpc"),
            (HEADERS, "hunter2"),
            (HEADERS, "a=hunter2%0a"),
            (HEADERS, "a b=hunter2"),
            (TIMEOUT, "hunter2"),
            (TIMEOUT, "0"),
            (SAMPLER, "hunter2"),
            (RESOURCE, "hunter2"),
        ] {
            let endpoint = (name != ENDPOINT).then_some((ENDPOINT, "http://collector"));
            let variables: Vec<_> = [(name, value)].into_iter().chain(endpoint).collect();
            let problem = read(&variables).unwrap_err();
            assert_eq!(problem.name, name);
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
        }
        for ratio in ["1.5", "-1", "nan", "x"] {
            let variables = [(ENDPOINT, "http://c"), (SAMPLER, "parentbased_traceidratio"), (SAMPLER_ARG, ratio)];
            assert_eq!(read(&variables).unwrap_err().name, SAMPLER_ARG, "{ratio}");
        }
    }
}
