//! Which queues a message goes to, and what is done with one that goes to none.

use std::sync::LazyLock;

use redis::Script;

use super::{Channel, Error, QUARANTINED, Queue};
use crate::store::link::script;
use crate::wire::{DeliveryInfo, Destination};

static DISCARD: LazyLock<Script> = script!("lua/discard.lua");

impl Channel {
    /// Where a message goes that names this exchange and this routing key, as kombu's `Channel._lookup` finds it.
    /// The caller's own `queues` count as bound even where Redis has lost their bindings.
    ///
    /// Costs no round trip without an exchange, as nearly all messages come, and one with.
    pub async fn destination(&self, exchange: &str, routing_key: &str, queues: &[Queue]) -> Result<Destination, Error> {
        if exchange.is_empty() {
            let named = Some(routing_key.to_owned()).filter(|queue| !queue.is_empty());
            return Ok(named.map_or(Destination::Nowhere, |queue| Destination::Queues(vec![queue])));
        }
        let keys = &self.0.keys;
        let mut read = redis::cmd("SMEMBERS");
        let mut members: Vec<String> =
            self.0.broker.query("looking up an exchange", read.arg(keys.binding(exchange))).await?;
        let own = queues.iter().filter(|queue| &*queue.exchange == exchange);
        members.extend(own.map(|queue| keys.binding_member(&queue.routing_key, "", &queue.name)));
        Ok(Destination::among(members.iter().map(String::as_str), keys.bands.separator(), routing_key))
    }

    /// Publishes a message to the workers that listen to its fanout exchange.
    pub async fn broadcast(&self, info: &DeliveryInfo, envelope: &[u8]) -> Result<(), Error> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.0.keys.fanout_channel(&info.exchange, &info.routing_key)).arg(envelope);
        self.0.broker.query("publishing to a fanout exchange", &publish).await
    }

    /// Moves a message in flight that cannot be read to the quarantine.
    pub async fn discard(&self, tag: &str) -> Result<bool, Error> {
        let unacked = self.0.keys.unacked();
        self.quarantine_in_flight(tag, &[("list", &unacked)]).await
    }

    /// Moves a message in flight to the quarantine whose exchange no queue is bound to, with the name of that exchange.
    pub(super) async fn discard_unbound(&self, tag: &str, exchange: &str, routing_key: &str) -> Result<bool, Error> {
        let moved = self.quarantine_in_flight(tag, &[("exchange", exchange), ("routing_key", routing_key)]).await?;
        if moved {
            tracing::error!(
                tag,
                exchange,
                routing_key,
                stream = self.quarantine_stream(),
                "no queue is bound to the exchange with such a routing key; the message is moved to the quarantine"
            );
        }
        Ok(moved)
    }

    async fn quarantine_in_flight(&self, tag: &str, from: &[(&str, &str)]) -> Result<bool, Error> {
        let keys = &self.0.keys;
        let mut call = DISCARD.key(keys.unacked());
        call.key(keys.unacked_index()).key(self.quarantine_stream()).arg(tag).arg(QUARANTINED).arg(from);
        self.0.broker.script("quarantining a message", &call).await
    }

    /// Keeps a message in the quarantine that is to be sent, and goes nowhere.
    pub async fn quarantine_unbound(&self, info: &DeliveryInfo, envelope: &[u8]) -> Result<(), Error> {
        let mut add = redis::cmd("XADD");
        add.arg(self.quarantine_stream()).arg("MAXLEN").arg("~").arg(QUARANTINED).arg("*");
        add.arg(&[("exchange", &*info.exchange), ("routing_key", &*info.routing_key)]);
        self.0.broker.query("quarantining a message", add.arg("element").arg(envelope)).await
    }
}
