//! Waking up when a message arrives, without taking it and without asking again and again.
//!
//! Producers of any kind only push to the lists of a queue, and a command that blocks on a list gets the message itself,
//! or, where it leaves it there, wakes every worker that waits. So of all workers of a queue one at a time watches its
//! lists: the server tells it of a change by `CLIENT TRACKING`, which names the key only. It takes the message, or wakes
//! one idle worker where it has no free slot, and a worker that takes a message and leaves others wakes the next one
//! (`lua/take.lua`). So a message costs the same however many workers are idle. They look now and then, all of them
//! together a few times a second, so that neither a watcher that dies nor a lost wake-up holds a message up for long.

mod eyes;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::eyes::Eyes;
use super::{Channel, Error};
use crate::runtime::backoff;
use crate::store::link::{Link, script};

static WATCH: LazyLock<Script> = script!("lua/watch.lua");
static WAKE: LazyLock<Script> = script!("lua/wake.lua");
static UNWATCH: LazyLock<Script> = script!("lua/unwatch.lua");

/// How long Redis is asked to wait for a wake-up; a connection that died in silence is noticed after that.
const WAIT: Duration = Duration::from_secs(10);
/// How long a look may be put off when Redis does not answer.
const POLL: Duration = Duration::from_secs(1);
/// How long a queue has a watcher that is not heard of.
const WATCHED: Duration = Duration::from_secs(5);
/// How often a watcher says that it is there.
const RENEW: Duration = Duration::from_secs(2);
/// How long the lists are left alone after a change, at least, and at most where messages stay there.
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(32));
/// How often all idle workers together look by themselves, and the shortest and longest time between two looks of one.
const LOOKS: (Duration, Duration, Duration) =
    (Duration::from_millis(300), Duration::from_secs(1), Duration::from_mins(1));
/// How long a wake-up waits for an idle worker.
pub(super) const WAKE_UP: Duration = Duration::from_secs(2);

const ACT: &str = "waiting for messages";

/// Says when it is worth looking for messages. Dropping it ends its connections.
pub struct Arrivals {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    channel: Channel,
    watcher: String,
    queues: Vec<String>,
    arrived: Notify,
    /// Whether another worker woke this one, and that it asks for the watch soon: that worker may leave.
    was_woken: AtomicBool,
    asks: Notify,
    /// Whether the worker waits, and how often it has begun to.
    waits: watch::Sender<(bool, u64)>,
    /// The queues that others watch.
    foreign: watch::Sender<Vec<String>>,
}

/// The worker waits, until this is dropped.
struct Waits<'a>(&'a watch::Sender<(bool, u64)>);

impl Channel {
    /// Waits for messages of these queues as the watcher of that name, over at most two connections.
    pub fn arrivals(&self, queues: &[&str], watcher: &str) -> Arrivals {
        let shared = Arc::new(Shared {
            channel: self.clone(),
            watcher: watcher.to_owned(),
            queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            arrived: Notify::new(),
            was_woken: AtomicBool::new(false),
            asks: Notify::new(),
            waits: watch::Sender::new((false, 0)),
            foreign: watch::Sender::new(Vec::new()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_watch(shared.clone()));
        tasks.spawn(hear_wake_ups(shared.clone()));
        Arrivals { shared, tasks }
    }

    /// The list from which idle workers of a queue are woken.
    pub(super) fn wake_list(&self, queue: &str) -> String {
        format!("{}crewjob-wake:{queue}", self.0.keys.prefix)
    }

    fn watch_key(&self, queue: &str) -> String {
        format!("{}crewjob-watch:{queue}", self.0.keys.prefix)
    }

    fn patient(&self) -> Result<Link, Error> {
        let mut access = self.0.access.clone();
        access.response_timeout += WAIT;
        let address = access.broker().map_err(|error| Error::unexpected(ACT, error.to_string()))?;
        Ok(Link::new(&address, &access, &Arc::default()))
    }
}

impl Arrivals {
    /// Waits until there may be a message. To be called when a look has found none; an arrival in between is not missed.
    pub async fn wait(&self) {
        self.shared.waits.send_modify(|(waits, rounds)| (*waits, *rounds) = (true, *rounds + 1));
        let _waits = Waits(&self.shared.waits);
        if self.shared.was_woken.swap(false, Ordering::Relaxed) {
            self.shared.asks.notify_one();
        }
        self.shared.arrived.notified().await;
    }

    /// Leaves the watch to another worker.
    pub async fn close(self) -> Result<(), Error> {
        let Shared { channel, watcher, queues, .. } = &*self.shared;
        drop(self.tasks);
        let mut call = UNWATCH.prepare_invoke();
        for queue in queues {
            call.key(channel.watch_key(queue));
        }
        for queue in queues {
            call.key(channel.wake_list(queue));
        }
        call.arg(watcher).arg(millis(WAKE_UP));
        channel.0.broker.script("leaving the watch on queues to another worker", &call).await
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|(waits, _)| *waits = false);
    }
}

/// What a worker that asked for the watch was told.
struct Watch {
    /// How many native workers there are.
    workers: u32,
    /// The queues it watches.
    mine: Vec<String>,
    /// The other ones.
    foreign: Vec<String>,
    /// Whether a message waits.
    is_any: bool,
}

impl Shared {
    fn waits(&self) -> bool {
        self.waits.borrow().0
    }

    async fn ask(&self) -> Result<Watch, Error> {
        let keys = &self.channel.0.keys;
        let mut call = WATCH.key(self.channel.workers());
        for queue in &self.queues {
            call.key(self.channel.watch_key(queue));
        }
        for list in self.queues.iter().flat_map(|queue| keys.queue_bands(queue)) {
            call.key(list);
        }
        call.arg(&self.watcher).arg(millis(WATCHED)).arg(self.queues.len());
        let (workers, flags, is_any): (u32, Vec<bool>, bool) = self.channel.0.broker.script(ACT, &call).await?;
        let (mine, foreign): (Vec<_>, Vec<_>) = self.queues.iter().cloned().zip(flags).partition(|(_, mine)| *mine);
        let names = |queues: Vec<(String, bool)>| queues.into_iter().map(|(queue, _)| queue).collect();
        Ok(Watch { workers, mine: names(mine), foreign: names(foreign), is_any })
    }

    /// A message waits: this worker looks for it if it can, else another one.
    async fn wake(&self, queue: &str) {
        if self.waits() {
            self.arrived.notify_one();
        } else if let Err(error) = self.wake_another(queue).await {
            tracing::debug!(queue, %error, "waking an idle worker failed; the next look finds the message");
        }
    }

    async fn wake_another(&self, queue: &str) -> Result<(), Error> {
        let mut call = WAKE.key(self.channel.wake_list(queue));
        self.channel.0.broker.script::<()>("waking an idle worker", call.arg(millis(WAKE_UP))).await
    }
}

/// Watches the queues that no other worker watches.
async fn keep_watch(shared: Arc<Shared>) {
    let mut waits = shared.waits.subscribe();
    let mut eyes = Eyes::default();
    loop {
        let watch = match shared.ask().await {
            Ok(watch) => watch,
            Err(error) => {
                tracing::debug!(%error, "waiting for messages failed; polling instead");
                shared.arrived.notify_one();
                sleep(POLL).await;
                continue;
            }
        };
        // With results elsewhere, a third connection for messages would be the fifth of the worker: it looks instead.
        let is_looked_for = !shared.channel.0.same_database && !watch.mine.is_empty() && !watch.foreign.is_empty();
        let foreign = if is_looked_for { Vec::new() } else { watch.foreign };
        shared.foreign.send_if_modified(|before| {
            *before != foreign && {
                *before = foreign;
                true
            }
        });
        if watch.is_any && (watch.mine.is_empty() || is_looked_for) && shared.waits() {
            shared.arrived.notify_one();
        }
        let lists: Vec<Vec<String>> = watch.mine.iter().map(|queue| shared.channel.0.keys.queue_bands(queue)).collect();
        if watch.mine.is_empty() {
            eyes.close();
            let _ = timeout(until_next_look(watch.workers), shared.asks.notified()).await;
            // All that have something to do need no watcher.
            if waits.wait_for(|(waits, _)| *waits).await.is_err() {
                return;
            }
            continue;
        }
        let until = Instant::now() + RENEW;
        let mut rest = REST.0;
        while Instant::now() < until {
            let round = waits.borrow().1;
            match eyes.look(ACT, &shared.channel.0.broker, &lists).await {
                Ok(found) => {
                    let found: Vec<&String> =
                        watch.mine.iter().zip(found).filter_map(|(queue, is_any)| is_any.then_some(queue)).collect();
                    rest = if found.is_empty() { REST.0 } else { (rest * 2).min(REST.1) };
                    for queue in found {
                        shared.wake(queue).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "waiting for messages failed; polling instead");
                    shared.arrived.notify_one();
                    sleep(POLL).await;
                }
            }
            tokio::select! {
                () = eyes.changed() => sleep(rest).await,
                // A worker that has just been woken is about to take the message: that is no reason to wake another.
                () = begins_to_wait(&mut waits, round) => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

/// Waits until the worker waits again, after this round.
async fn begins_to_wait(waits: &mut watch::Receiver<(bool, u64)>, round: u64) {
    let _ = waits.wait_for(|(waits, rounds)| *waits && *rounds != round).await.is_ok();
}

/// Is woken for the queues that others watch.
async fn hear_wake_ups(shared: Arc<Shared>) {
    let (mut waits, mut foreign) = (shared.waits.subscribe(), shared.foreign.subscribe());
    let mut link = None;
    loop {
        let queues = foreign.borrow_and_update().clone();
        if queues.is_empty() {
            link = None;
            if foreign.changed().await.is_err() {
                return;
            }
            continue;
        }
        if waits.wait_for(|(waits, _)| *waits).await.is_err() {
            return;
        }
        let asked = match &link {
            Some(asked) => Ok(Link::clone(asked)),
            None => shared.channel.patient(),
        };
        let mut pop = redis::cmd("BLPOP");
        for queue in &queues {
            pop.arg(shared.channel.wake_list(queue));
        }
        let woken = match asked {
            Ok(asked) => link.insert(asked).query::<Option<(String, String)>>(ACT, pop.arg(WAIT.as_secs())).await,
            Err(error) => Err(error),
        };
        match woken {
            Ok(None) => {}
            Ok(Some((list, _))) => {
                if let Some(queue) = queues.iter().find(|queue| shared.channel.wake_list(queue) == list) {
                    shared.was_woken.store(true, Ordering::Relaxed);
                    shared.wake(queue).await;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "waiting for messages failed; polling instead");
                shared.arrived.notify_one();
                sleep(POLL).await;
            }
        }
    }
}

/// The more workers look, the less often each of them does.
fn until_next_look(workers: u32) -> Duration {
    let (all, least, most) = LOOKS;
    backoff::pause(((all * workers).clamp(least, most), most), 1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
