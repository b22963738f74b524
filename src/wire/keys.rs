//! Names of keys and channels in Redis.

use super::priority::Bands;

/// The exchange of remote control requests.
pub const PIDBOX: &str = "celery.pidbox";

/// The exchange of remote control replies.
pub const PIDBOX_REPLY: &str = "reply.celery.pidbox";

/// The exchange of events.
pub const EVENTS: &str = "celeryev";

/// What the broker's keys and channels are called.
///
/// All parties must agree on these; they are client-side options of kombu's Redis transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerKeys {
    /// `global_keyprefix`: in front of every key and channel.
    pub prefix: String,
    /// The database, which is part of the names of channels.
    pub database: i64,
    /// `priority_steps` and `sep`.
    pub bands: Bands,
    /// `unacked_key`.
    pub unacked: String,
    /// `unacked_index_key`.
    pub unacked_index: String,
    /// `unacked_mutex_key`.
    pub unacked_mutex: String,
}

impl Default for BrokerKeys {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            database: 0,
            bands: Bands::default(),
            unacked: "unacked".to_owned(),
            unacked_index: "unacked_index".to_owned(),
            unacked_mutex: "unacked_mutex".to_owned(),
        }
    }
}

impl BrokerKeys {
    fn prefixed(&self, name: impl AsRef<str>) -> String {
        format!("{}{}", self.prefix, name.as_ref())
    }

    /// The list for messages of `queue` with this priority.
    pub fn queue(&self, queue: &str, priority: Option<i64>) -> String {
        self.prefixed(self.bands.key(queue, priority))
    }

    /// All lists of `queue`, the most urgent first.
    pub fn queue_bands(&self, queue: &str) -> Vec<String> {
        self.bands.keys(queue).iter().map(|key| self.prefixed(key)).collect()
    }

    /// The lists of `queues` in the order in which a worker pops from them.
    pub fn pop_order(&self, queues: &[&str]) -> Vec<String> {
        self.bands.pop_order(queues).iter().map(|key| self.prefixed(key)).collect()
    }

    /// The hash of delivered messages: delivery tag to `[envelope, exchange, routing key]`.
    pub fn unacked(&self) -> String {
        self.prefixed(&self.unacked)
    }

    /// The sorted set of delivered messages: delivery tag by time of receipt.
    pub fn unacked_index(&self) -> String {
        self.prefixed(&self.unacked_index)
    }

    /// The lock of the sweep that restores messages.
    pub fn unacked_mutex(&self) -> String {
        self.prefixed(&self.unacked_mutex)
    }

    /// The set of bindings of `exchange`.
    pub fn binding(&self, exchange: &str) -> String {
        self.prefixed(format!("_kombu.binding.{exchange}"))
    }

    /// A member of a set of bindings. It has no prefix, and the separator of bands separates its parts too.
    pub fn binding_member(&self, routing_key: &str, pattern: &str, queue: &str) -> String {
        [routing_key, pattern, queue].join(self.bands.separator())
    }

    /// The set of bindings of queues that do not expire (kombu 5.7).
    pub fn binding_permanent(&self, exchange: &str) -> String {
        self.prefixed(format!("_kombu.binding_permanent.{exchange}"))
    }

    /// The sorted set of exchanges by the time after which their bindings may go (kombu 5.7).
    pub fn binding_deadlines(&self) -> String {
        self.prefixed("_kombu.binding_deadlines")
    }

    /// The channel of a fanout exchange, with kombu's defaults for `fanout_prefix` and `fanout_patterns`.
    pub fn fanout_channel(&self, exchange: &str, routing_key: &str) -> String {
        let slash = if routing_key.is_empty() { "" } else { "/" };
        self.prefixed(format!("/{}.{exchange}{slash}{routing_key}", self.database))
    }

    /// The channel of remote control requests.
    pub fn pidbox_channel(&self) -> String {
        self.prefixed(format!("/{}.{PIDBOX}", self.database))
    }

    /// The list into which workers push the replies for the caller `oid`.
    pub fn reply_list(&self, oid: &str) -> String {
        self.prefixed(reply_queue(oid))
    }

    /// Every list that replies for the caller `oid` may be in; to be deleted when it is done.
    pub fn reply_lists(&self, oid: &str) -> Vec<String> {
        self.queue_bands(&reply_queue(oid))
    }

    /// The channel of events of one type, for example `worker-online` or `task.multi`.
    pub fn event_channel(&self, event_type: &str) -> String {
        self.prefixed(format!("/{}.{EVENTS}/{}", self.database, event_type.replace('-', ".")))
    }

    /// The pattern to subscribe to for all events.
    pub fn event_pattern(&self) -> String {
        format!("{}*", escape_pattern(&self.event_channel("")))
    }
}

/// The queue of replies for the caller `oid`.
pub fn reply_queue(oid: &str) -> String {
    format!("{oid}.{PIDBOX_REPLY}")
}

/// What the keys of results are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultKeys {
    prefix: String,
    groups: String,
}

impl Default for ResultKeys {
    fn default() -> Self {
        Self::new("")
    }
}

impl ResultKeys {
    /// Takes `global_keyprefix` of `result_backend_transport_options`. Like Celery it appends an underscore unless the
    /// prefix ends in one of `:`, `_`, `-`, `.`.
    pub fn new(global_key_prefix: &str) -> Self {
        let glue =
            if global_key_prefix.is_empty() || global_key_prefix.ends_with([':', '_', '-', '.']) { "" } else { "_" };
        let prefixed = |name| format!("{global_key_prefix}{glue}{name}");
        Self { prefix: prefixed("celery-task-meta-"), groups: prefixed("celery-taskset-meta-") }
    }

    /// A key of a group: of its members without a suffix, else of what is counted of a chord's parts.
    pub fn group(&self, group_id: &str, suffix: &str) -> String {
        format!("{}{group_id}{suffix}", self.groups)
    }

    /// The key of a task's result, and the channel on which it is announced.
    pub fn result(&self, task_id: &str) -> String {
        format!("{}{task_id}", self.prefix)
    }

    /// The task that a key or channel belongs to.
    pub fn task_id<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix).filter(|id| !id.is_empty())
    }

    /// The pattern to subscribe to for all results.
    pub fn result_pattern(&self) -> String {
        format!("{}*", escape_pattern(&self.prefix))
    }
}

/// Redis patterns give a meaning to these characters.
fn escape_pattern(text: &str) -> String {
    text.chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed() -> BrokerKeys {
        BrokerKeys { prefix: "app1:".to_owned(), database: 2, ..BrokerKeys::default() }
    }

    #[test]
    fn names_are_those_of_kombu() {
        let keys = BrokerKeys::default();
        assert_eq!(keys.queue("crew_jobs", Some(5)), "crew_jobs\u{6}\u{16}3");
        assert_eq!(keys.unacked(), "unacked");
        assert_eq!(keys.unacked_index(), "unacked_index");
        assert_eq!(keys.unacked_mutex(), "unacked_mutex");
        assert_eq!(keys.binding("crew_jobs"), "_kombu.binding.crew_jobs");
        assert_eq!(keys.binding_permanent("crew_jobs"), "_kombu.binding_permanent.crew_jobs");
        assert_eq!(keys.binding_deadlines(), "_kombu.binding_deadlines");
        assert_eq!(keys.binding_member("crew.jobs", "", "crew_jobs"), "crew.jobs\u{6}\u{16}\u{6}\u{16}crew_jobs");
        assert_eq!(keys.pidbox_channel(), "/0.celery.pidbox");
        assert_eq!(keys.fanout_channel("news", ""), "/0.news");
        assert_eq!(keys.fanout_channel("news", "celery"), "/0.news/celery");
        assert_eq!(keys.event_channel("worker-online"), "/0.celeryev/worker.online");
        assert_eq!(keys.event_channel("task.multi"), "/0.celeryev/task.multi");
        assert_eq!(keys.event_pattern(), "/0.celeryev/*");
        assert_eq!(keys.reply_list("12c4dd0d"), "12c4dd0d.reply.celery.pidbox");
    }

    #[test]
    fn the_global_prefix_is_in_front_of_every_key_and_channel() {
        let keys = prefixed();
        assert_eq!(keys.queue("crew_jobs", Some(9)), "app1:crew_jobs\u{6}\u{16}9");
        assert_eq!(keys.pop_order(&["a", "b"])[..3], ["app1:a", "app1:b", "app1:a\u{6}\u{16}3"]);
        assert_eq!(keys.unacked(), "app1:unacked");
        assert_eq!(keys.binding("x"), "app1:_kombu.binding.x");
        assert_eq!(keys.pidbox_channel(), "app1:/2.celery.pidbox");
        assert_eq!(keys.event_pattern(), "app1:/2.celeryev/*");
        assert_eq!(keys.reply_lists("o")[1], "app1:o.reply.celery.pidbox\u{6}\u{16}3");
    }

    #[test]
    fn another_separator_separates_the_parts_of_bindings_too() {
        let bands = Bands::new(vec![0, 5], ":p").unwrap();
        let keys = BrokerKeys { bands, ..BrokerKeys::default() };
        assert_eq!(keys.binding_member("crew.jobs", "", "crew_jobs"), "crew.jobs:p:pcrew_jobs");
    }

    #[test]
    fn result_prefixes_are_glued_with_an_underscore_unless_they_end_in_punctuation() {
        assert_eq!(ResultKeys::new("").result("x"), "celery-task-meta-x");
        assert_eq!(ResultKeys::new("app1").result("x"), "app1_celery-task-meta-x");
        assert_eq!(ResultKeys::new("app1").group("x", ".s"), "app1_celery-taskset-meta-x.s");
        assert_eq!(ResultKeys::new("app1:").result("x"), "app1:celery-task-meta-x");
        assert_eq!(ResultKeys::new("app1").task_id("app1_celery-task-meta-x"), Some("x"));
        assert_eq!(ResultKeys::default().task_id("celery-taskset-meta-x"), None);
    }

    #[test]
    fn a_pattern_escapes_the_characters_of_the_prefix() {
        assert_eq!(ResultKeys::new("a*[b]:").result_pattern(), "a\\*\\[b\\]:celery-task-meta-*");
    }
}
