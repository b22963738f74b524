//! From messages that follow a run to the queues that they go to.

use super::conclude::Conclusion;
use super::context::Worker;
use super::outcome::Failure;
use crate::runtime::clock;
use crate::store::Error;
use crate::store::channel::Publication;
use crate::wire::{DeliveryInfo, Destination, Envelope, Message};

/// What is published at the end of a run, by where it goes.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// On queues.
    pub publish: Vec<Publication>,
    /// On the channels of fanout exchanges.
    pub broadcast: Vec<(DeliveryInfo, Vec<u8>)>,
    /// Results of tasks whose messages go nowhere, by task ID: a client may wait for them.
    pub failed: Vec<(String, Vec<u8>)>,
}

/// Finds where each message goes. One that goes nowhere is kept in the quarantine, and its task has failed.
pub async fn deliveries(worker: &Worker, messages: &[Envelope]) -> Result<Deliveries, Error> {
    let mut found = Deliveries::default();
    for message in messages {
        let (info, priority) = (&message.properties.delivery_info, message.properties.priority);
        let envelope = message.encode();
        match destination(worker, info).await? {
            Destination::Queues(queues) => {
                let copies = std::iter::repeat_n(envelope, queues.len());
                let on = |(queue, envelope)| Publication { queue, priority, envelope };
                found.publish.extend(queues.into_iter().zip(copies).map(on));
            }
            Destination::Subscribers => found.broadcast.push((info.clone(), envelope)),
            Destination::Nowhere => {
                worker.channel.quarantine_unbound(info, &envelope).await?;
                found.failed.extend(unsent(worker, message));
            }
        }
    }
    Ok(found)
}

/// Where a message goes that names this exchange and routing key.
pub async fn destination(worker: &Worker, info: &DeliveryInfo) -> Result<Destination, Error> {
    let queues = worker.queues.borrow().clone();
    worker.channel.destination(&info.exchange, &info.routing_key, &queues).await
}

/// Why a task is not sent whose exchange leads nowhere.
pub fn undeliverable(info: &DeliveryInfo) -> Failure {
    let DeliveryInfo { exchange, routing_key, .. } = info;
    let why = format!("no queue is bound to the exchange {exchange:?} with the routing key {routing_key:?}");
    Failure::new("kombu.exceptions", "OperationalError", why)
}

fn unsent(worker: &Worker, message: &Envelope) -> Option<(String, Vec<u8>)> {
    let info = &message.properties.delivery_info;
    let headers = Message::decode(message).ok()?.headers;
    tracing::error!(
        task.id = headers.id,
        task.name = headers.task,
        exchange = info.exchange,
        routing_key = info.routing_key,
        stream = worker.channel.quarantine_stream(),
        "no queue is bound to the exchange with such a routing key; the message is kept in the quarantine, and its task fails"
    );
    let document = Conclusion::refused(&headers.id, &undeliverable(info), clock::now()).document?;
    Some((headers.id, document))
}
