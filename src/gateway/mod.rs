//! `crewjob gateway`: jobs over HTTP, with the rights of the caller or of one service account.
//!
//! | | what |
//! |---|---|
//! | `run` | start, serve, stop |
//! | `listen` | connections: how many, how long, TLS |
//! | `serve` | one request: where it leads, whether it may be made, what is counted |
//! | `submit`, `jobs`, `events` | the short form |
//! | `pass` | the paths of Kubernetes, as they are |
//! | `page` | the page, and what it calls |
//! | `mcp` | the short form as tools of the Model Context Protocol |
//! | `openapi` | the description of all this |
//! | `context` | what every request has at hand |
//! | `form`, `view` | from a body to a job, and from a job to an answer: pure |
//! | `caller`, `limit`, `body`, `upstream` | which caller it is, how much it may ask, what it sends, what the API server says |
//! | `tls`, `patience`, `lines` | certificates that are renewed; writes that come to an end; a watch, line by line |
//! | `answer`, `metrics`, `config` | answers and problems, counts, settings |
//!
//! What is decided of a request without I/O is in `core::gateway`. The gateway has no state that must outlive it: the API server has
//! the jobs, Redis the counts of requests.

mod answer;
mod body;
mod caller;
mod config;
mod context;
mod events;
mod form;
mod jobs;
mod limit;
mod lines;
mod listen;
mod mcp;
mod metrics;
mod openapi;
mod page;
mod pass;
mod patience;
mod run;
mod serve;
mod submit;
mod tls;
mod upstream;
mod view;

pub use config::Config;
pub use run::run;
