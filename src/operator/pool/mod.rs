//! Serving one pool: connect, listen, read Redis, scale, and say in the pool's status how it is.
//!
//! | file | what |
//! |---|---|
//! | `serve`, `problem` | connecting again and again, and what keeps a pool from working |
//! | `secret`, `former` | where its Redis is, as its Secret says, and where it was before |
//! | `listen`, `resync` | hints, and the levels behind them |
//! | `ends` | whether a message was acknowledged whose task has stored an end state |
//! | `releases` | when jobs were released that are over, as far as the limits of the pool count them |
//! | `strays` | attempts on Redis without an unfinished job |
//! | `load`, `replicas` | load to replicas |
//! | `view`, `report`, `verdicts` | what was seen, the pool's status, and its conditions |
//! | `settings`, `attribution` | what endangers jobs in how workers are set up, and workers that lead to no container |

mod attribution;
mod ends;
mod former;
mod listen;
mod load;
mod problem;
mod releases;
mod replicas;
mod report;
mod resync;
mod secret;
mod serve;
mod settings;
mod strays;
mod verdicts;
mod view;

pub use serve::serve;
