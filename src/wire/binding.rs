//! Which queues a message goes to: what is bound to its exchange, as kombu's Redis transport notes it.
//!
//! A binding is a member `routing key, pattern, queue` of the set `_kombu.binding.<exchange>`. The kind of an exchange is not
//! noted on Redis, but shows in its bindings: those of a topic exchange have a pattern, those of a fanout exchange lead to
//! queues that are no lists.

use std::collections::BTreeSet;

use super::pattern::Pattern;

/// Where kombu puts a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// On each of these queues, of which there is at least one.
    Queues(Vec<String>),
    /// On the channel of its fanout exchange, for the workers that listen now; on no list.
    Subscribers,
    /// Nowhere: nothing is bound to its exchange with such a key.
    Nowhere,
}

impl Destination {
    /// The queues of these bindings that a message with this routing key goes to: kombu's `Channel._lookup` for an exchange
    /// with a name (`kombu/transport/virtual/exchange.py`).
    ///
    /// A direct exchange compares keys. A topic exchange matches the stored pattern, in which kombu makes `*` one word and
    /// `#` any text; `feed.#` does not match `feed`. Queues that several bindings lead to get the message once.
    pub fn among<'a>(members: impl IntoIterator<Item = &'a str>, separator: &str, routing_key: &str) -> Self {
        let (mut queues, mut subscribed) = (BTreeSet::new(), false);
        for member in members {
            let mut parts = member.split(separator);
            let (Some(key), Some(pattern), Some(queue), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if queue.is_empty() {
            } else if is_subscription(key, pattern, queue) {
                subscribed = true;
            } else if pattern.is_empty() && key == routing_key
                || !pattern.is_empty() && Pattern::regex(pattern).is_some_and(|pattern| pattern.matches(routing_key))
            {
                queues.insert(queue.to_owned());
            }
        }
        match (queues.is_empty(), subscribed) {
            (false, _) => Self::Queues(queues.into_iter().collect()),
            (true, true) => Self::Subscribers,
            (true, false) => Self::Nowhere,
        }
    }
}

/// Whether a queue is one of a fanout exchange, which a worker listens to instead of popping from a list: those are bound
/// without a key, or have the name that `kombu.common.Broadcast` gives them, whose key Celery sets to that of the default
/// queue.
fn is_subscription(key: &str, pattern: &str, queue: &str) -> bool {
    pattern.is_empty() && (key.is_empty() || queue.starts_with("bcast."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEPARATOR: &str = "\u{6}\u{16}";

    fn found(bindings: &[[&str; 3]], routing_key: &str) -> Destination {
        let members: Vec<String> = bindings.iter().map(|parts| parts.join(SEPARATOR)).collect();
        Destination::among(members.iter().map(String::as_str), SEPARATOR, routing_key)
    }

    fn queues(names: &[&str]) -> Destination {
        Destination::Queues(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// What kombu 5.7's `TopicExchange` has made of these keys, and which routing keys its `_match` has accepted.
    #[test]
    fn a_topic_exchange_leads_where_kombu_has_found_that_its_patterns_match() {
        let keys = [
            "feed.import",
            "feed.",
            "feed",
            "feed.a.b",
            "a.b.c",
            "a.c",
            "a.b.b.c",
            "x.import",
            "x.y.import",
            "feed_tasks",
            "x-y.z:1",
            ".end",
            "b.end",
            "end",
            "aa.b",
            ".b",
            "web.feed.x.y.now",
            "web.feed..now",
            "web.feed.now",
        ];
        let accepted: [(&str, &str, &[&str]); 9] = [
            ("feed.#", r"^feed\..*?$", &["feed.import", "feed.", "feed.a.b"]),
            ("*.import", r"^[^\.]+\.import$", &["feed.import", "x.import"]),
            ("a.*.c", r"^a\.[^\.]+\.c$", &["a.b.c"]),
            ("#", "^.*?$", &keys),
            ("feed_tasks", r"^feed\_tasks$", &["feed_tasks"]),
            ("x-y.z:1", r"^x\-y\.z\:1$", &["x-y.z:1"]),
            ("#.end", r"^.*?\.end$", &[".end", "b.end"]),
            ("a*.b", r"^a*\.b$", &["aa.b", ".b"]),
            ("web.feed.#.now", r"^web\.feed\..*?\.now$", &["web.feed.x.y.now", "web.feed..now"]),
        ];
        for (bound, pattern, accepted) in accepted {
            for key in keys {
                let expected = if accepted.contains(&key) { queues(&["q"]) } else { Destination::Nowhere };
                assert_eq!(found(&[[bound, pattern, "q"]], key), expected, "{bound} {key}");
            }
        }
    }

    #[test]
    fn a_message_goes_to_every_queue_that_is_bound_with_its_key_and_to_each_once() {
        let bindings = [
            ["media.video", "", "videos"],
            ["media.video", "", "copies"],
            ["media.image", "", "images"],
            ["feed.#", r"^feed\..*?$", "feed_tasks"],
            ["*.import", r"^[^\.]+\.import$", "feed_tasks"],
            ["*.import", r"^[^\.]+\.import$", "imports"],
        ];
        assert_eq!(found(&bindings, "media.video"), queues(&["copies", "videos"]));
        assert_eq!(found(&bindings, "feed.import"), queues(&["feed_tasks", "imports"]));
        assert_eq!(found(&bindings, "media"), Destination::Nowhere);
        assert_eq!(found(&[], "media.video"), Destination::Nowhere);
    }

    #[test]
    fn the_queues_of_a_fanout_exchange_are_no_lists() {
        for key in ["", "celery", "any"] {
            assert_eq!(found(&[["", "", "listener"], ["celery", "", "bcast.6f1c"]], key), Destination::Subscribers);
        }
        assert_eq!(found(&[["", "", "listener"], ["k", "", "q"]], "k"), queues(&["q"]));
    }

    #[test]
    fn what_is_no_binding_leads_nowhere() {
        for member in ["", "k", "k\u{6}\u{16}q", "k\u{6}\u{16}\u{6}\u{16}", "k\u{6}\u{16}\u{6}\u{16}q\u{6}\u{16}x"] {
            assert_eq!(Destination::among([member], SEPARATOR, "k"), Destination::Nowhere, "{member:?}");
        }
        assert_eq!(found(&[["k", "^(k|l)$", "q"]], "k"), Destination::Nowhere, "not a pattern of kombu's");
    }
}
