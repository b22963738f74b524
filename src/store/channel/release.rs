//! Giving messages back that have not run.

use std::sync::LazyLock;

use redis::Script;

use super::{Channel, Error, Queue};
use crate::store::link::script;

static RELEASE: LazyLock<Script> = script!("lua/release.lua");

/// Messages that are put back by one script.
const AT_ONCE: usize = 100;

/// A message in flight that has not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unbegun<'a> {
    /// Its delivery tag.
    pub tag: &'a str,
    /// The list from which it was taken; empty where that is not known.
    pub list: &'a str,
    /// The exchange through which it came.
    pub exchange: &'a str,
    /// The routing key with which it came.
    pub routing_key: &'a str,
}

/// Where on its queue a message is put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is taken next.
    Front,
    /// It is taken after all that wait there.
    Back,
}

impl Channel {
    /// Puts messages that have not run back on the lists that they came from, as they were, so that any worker may take
    /// them. May be repeated.
    pub async fn release(&self, messages: &[Unbegun<'_>], end: End, queues: &[Queue]) -> Result<(), Error> {
        for messages in messages.chunks(AT_ONCE) {
            let (known, unknown): (Vec<Unbegun<'_>>, Vec<_>) = messages.iter().partition(|it| !it.list.is_empty());
            let mut others: Vec<String> = unknown.iter().map(|message| message.tag.to_owned()).collect();
            if !known.is_empty() {
                others.extend(self.release_known(&known, end).await?);
            }
            for tag in others {
                self.restore(&tag, "", "", queues).await?;
            }
        }
        Ok(())
    }

    async fn release_known(&self, messages: &[Unbegun<'_>], end: End) -> Result<Vec<String>, Error> {
        let mut call = RELEASE.key(self.0.keys.unacked());
        call.key(self.0.keys.unacked_index());
        call.arg(match end {
            End::Front => "RPUSH",
            End::Back => "LPUSH",
        });
        for message in messages {
            call.key(message.list).arg(message.tag).arg(message.exchange).arg(message.routing_key);
        }
        self.0.broker.script("putting messages back", &call).await
    }
}
