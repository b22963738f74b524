//! What the gateway is told on its command line and in its environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::core::gateway::id::is_namespace;
use crate::core::gateway::network::Range;
use crate::core::gateway::rate::Rate;
use crate::runtime::telemetry::LogFormat;

/// With which rights the API server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// With the caller's: its bearer token goes on to the API server. The gateway itself has none.
    Forward,
    /// With those of the gateway's own service account, for applications behind a login of their own.
    Fixed,
    /// With those of the user that a trusted proxy names: the gateway's service account acts as that user.
    Impersonate,
}

/// Which tools `/mcp` offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mcp {
    /// None; there is no such path.
    Off,
    /// Those that change nothing.
    ReadOnly,
    /// All of them.
    On,
}

impl Mcp {
    /// Whether jobs may be made and ended by them.
    pub fn may_change(self) -> bool {
        self == Self::On
    }
}

/// How many requests a caller may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Any number.
    Off,
    /// So many.
    Of(Rate),
}

/// Options of `crewjob gateway`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Environment:
  REDIS_URL, REDIS_URL_FILE  where requests are counted for all replicas together, as of `crewjob worker`, with the same further
                             variables for certificates and sentinels; without them each replica counts for itself

Signals:
  SIGTERM, SIGINT  stop taking connections after --shutdown-delay, finish the requests that are there, end streams; a second
                   one: end at once")]
pub struct Config {
    /// Address of the interface. `[::]` takes IPv4 too, and is `0.0.0.0` where the kernel has no IPv6.
    #[arg(long, env = "CREWJOB_GATEWAY_ADDRESS", default_value = "[::]:8000")]
    pub address: SocketAddr,

    /// Address of /livez, /readyz and /metrics, for the cluster itself.
    #[arg(long, env = "CREWJOB_ADMIN_ADDRESS", default_value = "[::]:8080")]
    pub admin_address: SocketAddr,

    /// With which rights the API server is asked.
    #[arg(long, env = "CREWJOB_GATEWAY_MODE", value_enum, default_value = "forward")]
    pub mode: Mode,

    /// Namespace of jobs that name none. Default: that of the Pod, or of the kubeconfig.
    #[arg(long, env = "CREWJOB_GATEWAY_NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,

    /// What all paths begin with, such as /crewjob, where a proxy in front does not take it away.
    #[arg(long, env = "CREWJOB_GATEWAY_PATH_PREFIX", default_value = "", value_parser = prefix)]
    pub path_prefix: String,

    /// Requests that one caller may make in a time, such as 600/60s or 20/1s; `off` for any number.
    #[arg(long, env = "CREWJOB_GATEWAY_RATE_LIMIT", default_value = "600/60s", value_name = "COUNT/TIME", value_parser = limit)]
    pub rate_limit: Limit,

    /// Addresses of proxies in front of the gateway, comma-separated, such as 10.0.0.0/8. What others say in X-Forwarded-For, or in
    /// the header of --user-header, is not believed.
    #[arg(long, env = "CREWJOB_GATEWAY_TRUSTED_PROXIES", value_delimiter = ',', value_name = "RANGE", value_parser = Range::parse)]
    pub trusted_proxies: Vec<Range>,

    /// Header in which a trusted proxy says which user a request is of, such as X-Forwarded-User. Every request must have it then,
    /// and is refused when it comes from another address. Only with --mode fixed, or impersonate.
    #[arg(long, env = "CREWJOB_GATEWAY_USER_HEADER", value_name = "HEADER", value_parser = header)]
    pub user_header: Option<String>,

    /// Header in which it says of which groups the user is, such as X-Forwarded-Groups: names between commas, or the header several
    /// times. Only with --mode impersonate.
    #[arg(long, env = "CREWJOB_GATEWAY_GROUPS_HEADER", value_name = "HEADER", value_parser = header)]
    pub groups_header: Option<String>,

    /// Which tools of the Model Context Protocol there are at /mcp, for agents: with the rights of each caller, as everywhere.
    #[arg(long, env = "CREWJOB_GATEWAY_MCP", value_enum, default_value = "off")]
    pub mcp: Mcp,

    /// Serve the page. The gateway then follows the CrewJobs with rights of its own, to list and watch them, and shows each caller
    /// those that it may list itself.
    #[arg(long, env = "CREWJOB_GATEWAY_PAGE")]
    pub page: bool,

    /// Namespaces of which the page lists jobs, comma-separated; the gateway needs rights in these only. Default: all.
    #[arg(long, env = "CREWJOB_GATEWAY_PAGE_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE", value_parser = namespace)]
    pub page_namespaces: Vec<String>,

    /// Jobs that the page lists at most; each takes about a kilobyte of memory. Further ones are counted only.
    #[arg(long, env = "CREWJOB_GATEWAY_PAGE_MAX_JOBS", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub page_max_jobs: u32,

    /// File with the certificate of the interface and those between it and its authority, PEM. Read again when it changes. Without it
    /// the interface speaks plain HTTP.
    #[arg(long, env = "CREWJOB_GATEWAY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// File with its private key, PEM.
    #[arg(long, env = "CREWJOB_GATEWAY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Connections that are open at once.
    #[arg(long, env = "CREWJOB_GATEWAY_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: u32,

    /// Streams of events, watches of Kubernetes included, that are open at once.
    #[arg(long, env = "CREWJOB_GATEWAY_MAX_STREAMS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_streams: u32,

    /// Of these, streams of one caller.
    #[arg(long, env = "CREWJOB_GATEWAY_MAX_STREAMS_PER_CALLER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_streams_per_caller: u32,

    /// Seconds for which connections are still taken after SIGTERM, while it spreads that this replica leaves. At most 300.
    #[arg(long, env = "CREWJOB_GATEWAY_SHUTDOWN_DELAY", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=300))]
    pub shutdown_delay: u32,

    /// How a log line looks.
    #[arg(long, env = "CREWJOB_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as `info,crewjob::store=debug`.
    #[arg(long = "log", env = "CREWJOB_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// Namespace of the Pod this process runs in.
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pub pod_namespace: Option<String>,
}

impl Config {
    /// What does not fit together.
    pub fn check(&self) -> Result<(), String> {
        if self.groups_header.is_some() && self.mode != Mode::Impersonate {
            return Err("--groups-header needs --mode impersonate: elsewhere no groups are asked for".to_owned());
        }
        if self.user_header.is_none() {
            return match self.mode {
                Mode::Impersonate => {
                    Err("--mode impersonate needs --user-header: as which user is it to act".to_owned())
                }
                Mode::Forward | Mode::Fixed => Ok(()),
            };
        }
        match (self.mode, self.trusted_proxies.is_empty()) {
            (Mode::Forward, _) => {
                Err("--user-header needs --mode fixed: a token says itself of which user it is".to_owned())
            }
            (Mode::Fixed | Mode::Impersonate, true) => {
                Err("--user-header needs --trusted-proxies: which addresses may set it".to_owned())
            }
            (Mode::Fixed | Mode::Impersonate, false) => Ok(()),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if is_namespace(text) { Ok(text.to_owned()) } else { Err("it is no name of a namespace".to_owned()) }
}

fn prefix(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let is_plain = |part: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !part.is_empty() && !matches!(part, "." | "..") && part.bytes().all(is_letter)
    };
    let is_path = text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain));
    if text.is_empty() || is_path { Ok(text.to_owned()) } else { Err("it is no path such as /crewjob".to_owned()) }
}

fn limit(text: &str) -> Result<Limit, String> {
    if text == "off" { Ok(Limit::Off) } else { Rate::parse(text).map(Limit::Of) }
}

fn header(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let is_free = !matches!(&*name, "authorization" | "host" | "content-type" | "content-length" | "idempotency-key");
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) if is_free => Ok(name),
        Ok(_) => Err("this header has a meaning of its own".to_owned()),
        Err(_) => Err("it is no name of a header".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        config: Config,
    }

    fn typed(line: &str) -> Result<Config, String> {
        let read = Line::try_parse_from(std::iter::once("gateway").chain(line.split_whitespace()));
        read.map(|line| line.config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_that_names_users_is_for_trusted_proxies_before_a_service_account_only() {
        let check = |line: &str| typed(line).unwrap().check();
        assert!(check("").is_ok());
        assert!(check("--mode fixed").is_ok());
        assert!(check("--mode fixed --user-header X-User --trusted-proxies 10.0.0.0/8,fd00::/8").is_ok());
        assert!(check("--user-header X-User --trusted-proxies 10.0.0.0/8").unwrap_err().contains("--mode fixed"));
        assert!(check("--mode fixed --user-header X-User").unwrap_err().contains("--trusted-proxies"));
        assert!(check("--mode impersonate --trusted-proxies 10.0.0.0/8").unwrap_err().contains("--user-header"));
        assert!(check("--mode impersonate --user-header X-User").unwrap_err().contains("--trusted-proxies"));
        assert!(check("--mode fixed --groups-header X-Groups").unwrap_err().contains("--mode impersonate"));
        assert!(typed("--user-header Authorization").is_err() && typed("--user-header x:y").is_err());
    }

    #[test]
    fn what_is_typed_is_checked_before_anything_is_served() {
        assert_eq!(typed("--path-prefix /a/b/").unwrap().path_prefix, "/a/b");
        for wrong in [
            "--path-prefix a",
            "--path-prefix /a//b",
            "--path-prefix /../b",
            "--rate-limit 5",
            "--namespace A",
            "--trusted-proxies 10.0.0.0/40",
            "--tls-cert a.pem",
            "--max-streams 0",
            "--mode other",
        ] {
            assert!(typed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(typed("--rate-limit off").unwrap().rate_limit, Limit::Off);
    }
}
