//! Remote control and events.

use std::sync::{Arc, LazyLock};

use redis::Script;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Channel, Error};
use crate::store::link::{Link, script};
use crate::store::listen::{Heard, listen};
use crate::store::pidbox::Pidbox;
use crate::store::upkeep::bind;
use crate::wire::keys::{PIDBOX, PIDBOX_REPLY};
use crate::wire::pidbox::{Reply, Request, ReturnAddress};
use crate::wire::{Event, Object, Value};

static REPLY: LazyLock<Script> = script!("lua/reply.lua");

/// Requests that may wait; further ones are dropped.
const WAITING: usize = 1024;

/// What comes in by remote control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Requests are heard from now on.
    Connected,
    /// They are not, for this reason.
    Disconnected(String),
    /// A request.
    Request(Request),
}

impl Channel {
    /// Registers the mailbox of this node, as kombu does.
    pub async fn open_mailbox(&self, node: &str) -> Result<(), Error> {
        bind(&self.0.broker, "registering the mailbox", self.mailbox(node).into_iter()).await
    }

    /// Takes the mailbox of this node away.
    pub async fn close_mailbox(&self, node: &str) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        for (set, member) in self.mailbox(node) {
            pipe.srem(set, member).ignore();
        }
        self.0.broker.pipe("removing the mailbox", &pipe).await
    }

    /// The bindings in which a mailbox is a member.
    fn mailbox(&self, node: &str) -> [(String, String); 2] {
        let keys = &self.0.keys;
        let member = keys.binding_member("", "", &format!("{node}.{PIDBOX}"));
        [keys.binding(PIDBOX), keys.binding_permanent(PIDBOX)].map(|set| (set, member.clone()))
    }

    /// Listens to requests, over all losses of the connection, until the handle is dropped.
    pub fn requests(&self) -> (mpsc::Receiver<Call>, AbortOnDropHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let hear = move |heard| {
            let call = match heard {
                Heard::Connected => Call::Connected,
                Heard::Disconnected(reason) => Call::Disconnected(reason),
                Heard::Message { payload, .. } => match Request::decode(&payload.unwrap_or_default()) {
                    Ok(request) => Call::Request(request),
                    Err(error) => {
                        return tracing::warn!(%error, "decoding a remote control request failed; the request is ignored");
                    }
                },
            };
            if sender.try_send(call).is_err() {
                tracing::warn!("too many remote control requests at once; one is dropped");
            }
        };
        let patterns = vec![self.0.keys.pidbox_channel()];
        let listening = tokio::spawn(listen("listening to requests", self.0.broker.clone(), patterns, hear));
        (receiver, AbortOnDropHandle::new(listening))
    }

    /// Answers a caller, if it still waits.
    pub async fn reply(
        &self,
        address: &ReturnAddress,
        node: &str,
        answer: Value,
        clock: i64,
        tag: String,
    ) -> Result<bool, Error> {
        let keys = &self.0.keys;
        let reply = Reply { ticket: Some(address.ticket.clone()), nodes: Object::new().with(node, answer) };
        let mut call = REPLY.key(keys.binding(PIDBOX_REPLY));
        call.key(keys.reply_list(&address.oid)).arg(address.binding_member(keys));
        call.arg(reply.envelope(&address.oid, clock, tag).encode());
        self.0.broker.script("answering a request", &call).await
    }

    /// Asks all workers something and waits until all that listen have answered, at most for a second.
    pub async fn ask(&self, request: Request) -> Result<Vec<(Arc<str>, Value)>, Error> {
        const ACT: &str = "asking the other workers";
        // A question waits for answers: a connection of its own, which ends with it, keeps tasks from waiting.
        let address = self.0.access.broker().map_err(|error| Error::unexpected(ACT, error.to_string()))?;
        let link = Link::new(&address, &self.0.access, &Arc::default());
        Pidbox::new(link, self.0.keys.clone()).ask(ACT, request).await
    }

    /// Publishes events, each on the channel of its type.
    pub async fn announce(&self, events: &[(Event, String)]) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        for (event, tag) in events {
            pipe.publish(self.0.keys.event_channel(event.event_type()), event.envelope(tag.clone()).encode()).ignore();
        }
        if events.is_empty() { Ok(()) } else { self.0.broker.pipe("publishing events", &pipe).await }
    }
}
