//! Celery's `send_task`: one call, with what its options say, as a message.

use jiff::{SignedDuration, Timestamp};

use super::publisher::{OWN, Publisher};
use super::refused::Refused;
use super::signature::{elements, root, take_integer, take_text};
use crate::wire::{
    DeliveryInfo, Embed, Headers, Message, Number, Object, Properties, Signature, TimeLimit, Value, python, time, trace,
};

/// Options that say how to send, and are not sent, and properties that the transport sets.
const NOT_SENT: [&str; 24] = [
    "queue",
    "exchange",
    "exchange_type",
    "serializer",
    "compression",
    "declare",
    "timeout",
    "confirm_timeout",
    "retry",
    "retry_policy",
    "event_dispatcher",
    "content_type",
    "content_encoding",
    "mandatory",
    "immediate",
    "expiration",
    "add_to_parent",
    "task_type",
    "route_name",
    "producer",
    "connection",
    "body_encoding",
    "delivery_tag",
    "delivery_info",
];

/// The headers `eta` and `expires`, and the property `expiration`.
#[derive(Default)]
struct Times {
    eta: Option<String>,
    expires: Option<String>,
    expiration: Option<String>,
}

impl<F: FnMut() -> String> Publisher<'_, F> {
    /// Sends one task and gives its id.
    pub(super) fn task(
        &mut self,
        signature: Signature,
        copied: bool,
        given: &[Value],
        passed: &Object,
    ) -> Result<String, Refused> {
        let Signature { task, args: own, kwargs, options, subtask_type: _, immutable, other: _ } = signature;
        let given = if immutable { &[] } else { given };
        let args: Vec<Value> = given.iter().cloned().chain(own).collect();
        let argsrepr = if copied || args.is_empty() || !given.is_empty() {
            python::safe_repr_tuple(&args)
        } else {
            python::safe_repr_array(&args)
        };
        let mut options = options;
        for (name, value) in passed.iter().filter(|(_, value)| !value.is_null()) {
            let own = OWN.contains(&name) && options.contains_key(name);
            if !own {
                options.insert(name, value.clone());
            }
        }
        let message = Message {
            headers: Headers { argsrepr: Some(argsrepr), task, ..Headers::default() },
            args,
            kwargs,
            ..Message::default()
        };
        self.send(message, options)
    }

    /// Celery's `send_task`: fills in what the options say.
    fn send(&mut self, message: Message, mut options: Object) -> Result<String, Refused> {
        let Message { headers: Headers { task, argsrepr, .. }, args, kwargs, .. } = message;
        let id = match take_text(&mut options, "task_id")? {
            Some(id) => id,
            None => (self.fresh)(),
        };
        let mut list = |name| options.remove(name).map(|value| Value::from(elements(&value).to_vec()));
        let (callbacks, errbacks, chain) = (list("link"), list("link_error"), list("chain"));
        let non_empty = |links: Option<Value>| links.filter(|links| *links != Value::Array(Vec::new()));
        let embed = Embed {
            callbacks: non_empty(callbacks).unwrap_or_default(),
            errbacks: non_empty(errbacks).unwrap_or_default(),
            chain: chain.unwrap_or_default(),
            chord: options.remove("chord").unwrap_or_default(),
            ..Embed::default()
        };
        let Times { eta, expires, expiration } = self.times(&mut options)?;
        let delivery_info = self.destination(&task, &mut options);
        let origin = options.get("origin").and_then(Value::as_str).unwrap_or(self.sender.origin).to_owned();
        let stamped_headers = options.remove("stamped_headers").and_then(|names| match names {
            Value::Array(names) => Some(names),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_)
            | Value::Verbatim(_) => None,
        });
        let stamps = stamped_headers.iter().flatten().filter_map(Value::as_str);
        let stamps: Object = stamps.filter_map(|name| Some((name.to_owned(), options.remove(name)?))).collect();
        let limit = |value: Option<Value>, default: &Option<Number>| match value {
            Some(value) => value.as_number().cloned(),
            None => default.clone(),
        };
        let headers = Headers {
            lang: Some("py".to_owned()),
            task,
            id: id.clone(),
            shadow: take_text(&mut options, "shadow")?,
            eta,
            expires,
            group: take_text(&mut options, "group_id")?,
            group_index: take_integer(&mut options, "group_index"),
            retries: Some(take_integer(&mut options, "retries").unwrap_or(0)),
            timelimit: TimeLimit {
                hard: limit(options.remove("time_limit"), &self.sender.defaults.time_limit.hard),
                soft: limit(options.remove("soft_time_limit"), &self.sender.defaults.time_limit.soft),
            },
            root_id: Some(take_text(&mut options, "root_id")?.unwrap_or_else(|| root(self.parent).to_owned())),
            parent_id: Some(take_text(&mut options, "parent_id")?.unwrap_or_else(|| self.parent.id.clone())),
            argsrepr,
            kwargsrepr: Some(python::safe_repr_object(&kwargs)),
            origin: Some(origin),
            ignore_result: options
                .remove("ignore_result")
                .map_or(self.sender.defaults.ignore_result, |value| value.as_bool()),
            replaced_task_nesting: Some(take_integer(&mut options, "replaced_task_nesting").unwrap_or(0)),
            stamped_headers,
            stamps,
            other: self.traced(further(options.remove("headers"))),
        };
        let properties = Properties {
            correlation_id: Some(id.clone()),
            reply_to: Some(take_text(&mut options, "reply_to")?.unwrap_or_else(|| self.sender.reply_to.to_owned())),
            delivery_mode: Some(take_integer(&mut options, "delivery_mode").unwrap_or(2)),
            delivery_info,
            priority: Some(take_integer(&mut options, "priority").unwrap_or(self.sender.defaults.priority)),
            expiration,
            delivery_tag: (self.fresh)(),
            other: sent(options),
            ..Properties::default()
        };
        self.messages.push(Message { headers, args, kwargs, embed }.to_envelope(properties));
        Ok(id)
    }

    /// What follows a traced task belongs to its trace, unless the signature names another one. In Celery that is done by
    /// OpenTelemetry's instrumentation, which names a span of its own; this worker has none.
    fn traced(&self, headers: Object) -> Object {
        let inherited = trace::passed_on(&self.parent.other);
        let is_named = headers.contains_key(trace::TRACEPARENT);
        headers.into_iter().chain(inherited.into_iter().filter(|_| !is_named)).collect()
    }

    fn times(&self, options: &mut Object) -> Result<Times, Refused> {
        let wrong = |name| Refused::malformed(format!("the option {name} is no time"));
        let after = |seconds: &Number, name| {
            let seconds = SignedDuration::try_from_secs_f64(seconds.as_f64()).map_err(|_| wrong(name))?;
            self.now.checked_add(seconds).map_err(|_| wrong(name))
        };
        let countdown = options.remove("countdown");
        let countdown = countdown.as_ref().and_then(Value::as_number).filter(|seconds| seconds.as_f64() != 0.0);
        let eta = match (countdown, options.remove("eta")) {
            (Some(seconds), _) => Some(time::format(after(seconds, "countdown")?)),
            (None, None | Some(Value::Null)) => None,
            (None, Some(Value::String(eta))) => Some(eta).filter(|eta| !eta.is_empty()),
            (None, Some(_)) => return Err(wrong("eta")),
        };
        let (expires, at) = match options.remove("expires") {
            None | Some(Value::Null) => return Ok(Times { eta, ..Times::default() }),
            Some(Value::Number(seconds)) => {
                let at = after(&seconds, "expires")?;
                (time::format(at), at)
            }
            Some(Value::String(text)) => {
                let at = time::parse(&text).ok_or_else(|| wrong("expires"))?;
                (text, at)
            }
            Some(_) => return Err(wrong("expires")),
        };
        Ok(Times { eta, expires: Some(expires), expiration: Some(expiration(at, self.now)) })
    }

    /// An exchange counts only together with a routing key; else it is the queue that is named, or the task's route.
    fn destination(&self, task: &str, options: &mut Object) -> DeliveryInfo {
        let text = |name| options.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let found = match (text("exchange"), text("routing_key"), text("queue")) {
            (Some(exchange), Some(routing_key), _) => DeliveryInfo {
                exchange: exchange.to_owned(),
                routing_key: routing_key.to_owned(),
                ..DeliveryInfo::default()
            },
            (_, _, Some(queue)) => DeliveryInfo::to_queue(queue),
            (_, _, None) => DeliveryInfo::to_queue(self.sender.routes.queue_of(task)),
        };
        options.remove("routing_key");
        found
    }
}

/// Milliseconds, at least 0; Redis does not act on them.
pub(super) fn expiration(expires: Timestamp, now: Timestamp) -> String {
    expires.duration_since(now).as_millis().max(0).to_string()
}

/// Headers that the signature adds. Under another id or name the result would never be found.
fn further(headers: Option<Value>) -> Object {
    let Some(Value::Object(headers)) = headers else { return Object::new() };
    headers.into_iter().filter(|(name, _)| name != "id" && name != "task").collect()
}

/// Further options become properties.
fn sent(options: Object) -> Object {
    options.into_iter().filter(|(name, value)| !value.is_null() && !NOT_SENT.contains(&name.as_str())).collect()
}
