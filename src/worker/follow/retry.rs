use jiff::Timestamp;

use super::call::expiration;
use super::publisher::leaf;
use super::sender::Sender;
use super::signature::root;
use crate::wire::{DeliveryInfo, Embed, Envelope, Headers, Message, Object, Properties, Value, python, time};

/// Another attempt of the same task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// To be sent before RETRY is stored and the old message is acknowledged.
    pub message: Envelope,
    /// The field `children` of the result: a task that is retried is its own child.
    pub children: Value,
}

/// Headers that a retry sets. Where the message had something else there than belongs there, it must not come back: a
/// task whose `retries` stay what they are would be tried for ever.
const SET: [&str; 10] = [
    "lang",
    "eta",
    "retries",
    "root_id",
    "parent_id",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "replaced_task_nesting",
];

/// What Celery sends for `self.retry(countdown=seconds)`: the task as it came, under its id, with one more in
/// `retries`.
pub fn retry(
    message: &Message,
    properties: &Properties,
    seconds: u32,
    sender: &Sender,
    now: Timestamp,
    mut fresh: impl FnMut() -> String,
) -> Retried {
    let Message { headers, args, kwargs, embed } = message;
    let eta = now.checked_add(jiff::SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX);
    let sent = Headers {
        lang: Some("py".to_owned()),
        eta: Some(time::format(eta)).filter(|_| seconds > 0),
        retries: Some(headers.retries.unwrap_or(0).saturating_add(1)),
        root_id: Some(root(headers).to_owned()),
        // The task runs while it sends itself, and so becomes its own parent if it has no other.
        parent_id: headers.parent_id.clone().or_else(|| Some(headers.id.clone())),
        argsrepr: Some(python::safe_repr_tuple(args)),
        kwargsrepr: Some(python::safe_repr_object(kwargs)),
        origin: headers.origin.clone().or_else(|| Some(sender.origin.to_owned())),
        ignore_result: headers.ignore_result.or(sender.defaults.ignore_result),
        replaced_task_nesting: Some(headers.replaced_task_nesting.unwrap_or(0)),
        other: headers.other.clone().into_iter().filter(|(name, _)| !SET.contains(&name.as_str())).collect(),
        ..headers.clone()
    };
    let Embed { callbacks, errbacks, chain, chord, other: _ } = embed.clone();
    let DeliveryInfo { exchange, routing_key, .. } = &properties.delivery_info;
    let properties = Properties {
        correlation_id: Some(headers.id.clone()),
        reply_to: properties.reply_to.clone().or_else(|| Some(sender.reply_to.to_owned())),
        delivery_mode: Some(2),
        delivery_info: DeliveryInfo {
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            ..DeliveryInfo::default()
        },
        priority: properties.priority.or(Some(sender.defaults.priority)),
        expiration: headers.expires_at().map(|expires| expiration(expires, now)),
        delivery_tag: fresh(),
        other: headers.origin.iter().map(|origin| ("origin", origin.as_str())).collect::<Object>(),
        ..Properties::default()
    };
    let embed = Embed { callbacks, errbacks, chain, chord, other: Object::new() };
    let message = Message { headers: sent, args: args.clone(), kwargs: kwargs.clone(), embed };
    Retried { message: message.to_envelope(properties), children: vec![leaf(&headers.id)].into() }
}
