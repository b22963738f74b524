//! The page: a list of jobs, one job, pools, schedules and a form, served by the gateway and calling it.
//!
//! | | what |
//! |---|---|
//! | `assets` | the files of the page, which are a part of this program |
//! | `board` | the table of jobs (`core::listing`), kept in step by one watch with the gateway's own rights |
//! | `access` | what the caller may do: no namespace is shown to a caller that may not list its jobs |
//! | `desk` | these two things, which every call of the page has at hand |
//! | `rows` | from an object to a row of it, and to what the page reads |
//! | `jobs` | pages of the list, and word of its changes |
//! | `act` | one action on many jobs |
//! | `about` | one job: why it is where it is, its log; the caller and its rights |

mod about;
mod access;
mod act;
mod assets;
mod board;
mod desk;
mod jobs;
mod rows;

use std::sync::Arc;

use http::HeaderMap;

use super::answer::Answer;
use super::caller::Caller;
use super::context::Gateway;
use crate::core::gateway::page::Page;
use crate::core::gateway::problem::{Kind, Problem};

pub use desk::Desk;

/// A file of the page.
pub fn file(name: &str, headers: &HeaderMap) -> Result<Answer, Problem> {
    assets::file(name, headers).ok_or_else(|| Problem::new(Kind::NotFound, "the page has no such file"))
}

/// Answers a call of the page.
pub async fn answer(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    page: &Page,
    asked: Option<&str>,
    body: &[u8],
) -> Result<Answer, Problem> {
    let desk = gateway.desk.as_ref();
    let desk = desk.ok_or_else(|| Problem::new(Kind::NotFound, "the page is not enabled at this gateway"))?;
    match page {
        Page::File(name) => file(name, &HeaderMap::new()),
        Page::Session => about::session(gateway, caller).await,
        Page::Jobs => jobs::list(gateway, desk, caller, asked).await,
        Page::Changes => jobs::changes(gateway, desk, caller, asked).await,
        Page::Act => act::act(gateway, desk, caller, body).await,
        Page::Explain(id) => about::explained(gateway, desk, caller, id).await,
        Page::Log(id) => about::log(gateway, caller, id, asked).await,
        Page::Rights => about::may(gateway, desk, caller, asked).await,
    }
}
