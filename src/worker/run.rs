//! The worker's life: connect, consume, leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::announce::Announcer;
use super::aside::AsidePlaces;
use super::command;
use super::config::{self, Config, ConfigError};
use super::context::{LEASE, Worker, identity};
use super::control::Broker;
use super::countdown;
use super::handle::{drop_stopped, handle};
use super::metrics::Metrics;
use super::places::Places;
use super::registry::Registry;
use super::schedule::Schedule;
use super::servers::Servers;
use super::slot::{Asker, Slot};
use super::slots::Slots;
use super::tasks::TasksError;
use super::trial::TrialError;
use super::{inherit, leases, login, mailbox, node, scratch, state, status, sweep, trial};
use crate::runtime::admin::{self, Liveness, Readiness};
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::{clock, shutdown};
use crate::store::channel::Arrivals;
use crate::store::{Channel, ConnectError, Error, Queue};
use crate::wire::event::Detail;

/// How long the first and the last words may take.
const GREETING: Duration = Duration::from_secs(5);
/// How often the folder of states is looked through.
const SWEEP_STATES: Duration = Duration::from_hours(1);
/// Longest pause after the first failure to take a message, and after any.
const PAUSE: Bounds = (Duration::from_millis(100), Duration::from_secs(5));

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was told nonsense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its tasks cannot be read.
    #[error(transparent)]
    Tasks(#[from] TasksError),
    /// There is no Redis to start with.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Redis does not let it begin.
    #[error(transparent)]
    Store(#[from] Error),
    /// A command that is tried does not pass.
    #[error(transparent)]
    Trial(#[from] TrialError),
    /// The admin server cannot be started.
    #[error("listening on --admin-address {address}")]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What was seen.
        #[source]
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("listening to signals")]
    Signals(#[source] std::io::Error),
}

/// Runs a worker until it is told to stop, or tries a command.
pub async fn run(config: Config) -> Result<(), RunError> {
    if let Some(task) = &config.check_command {
        return Ok(trial::check_command(&config, task).await?);
    }
    let signals = shutdown::stages().map_err(RunError::Signals)?;
    work(config, signals.0, signals.1).await
}

/// Runs a worker until `warm_shutdown`; `cold_shutdown` stops the tasks that run, too.
pub async fn work(
    config: Config,
    warm_shutdown: CancellationToken,
    cold_shutdown: CancellationToken,
) -> Result<(), RunError> {
    let queues = config.queues()?;
    config.state_folder()?;
    let registry = Registry::new(&config)?;
    let channel = Channel::connect(&login::access(&config).await?).await?;
    channel.declare(&queues).await?;
    channel.open_mailbox(config.hostname.as_str()).await?;
    let (events, publishing) = Announcer::start(channel.clone(), config.hostname.as_str(), !config.without_task_events);
    let (metrics, counted) = Metrics::register();
    let readiness = Readiness::default();
    readiness.missing("remote control", "not heard yet");
    let served = CancellationToken::new();
    if let Some(address) = config.admin_address {
        let bound = admin::serve(address, readiness.clone(), Liveness::default(), counted, served.clone()).await;
        bound.map_err(|source| RunError::Admin { address, source })?;
    }
    let _unserve = served.drop_guard();
    let broker = broker(&channel);
    let worker = Arc::new(Worker {
        slots: Arc::new(Semaphore::new(config.concurrency as usize)),
        queues: watch::Sender::new(queues),
        entries: Arc::default(),
        totals: Mutex::default(),
        since: clock::now(),
        revoked: Mutex::default(),
        rates: Mutex::default(),
        limits: Mutex::default(),
        shared_slots: Slots::default(),
        schedule: Schedule::new(config.eta_task_limit),
        aside: Arc::new(AsidePlaces::new(LEASE)),
        vault: state::vault(&channel, config.state_folder()?),
        servers: Servers::default(),
        metrics,
        hears: Notify::new(),
        readiness,
        id: identity(config.hostname.as_str()),
        leaves_messages: AtomicBool::new(false),
        origin: format!("gen{}@{}", std::process::id(), node::host()),
        broker,
        time_limit: config.limits(),
        routes: registry.routes(&config.default_queue),
        defaults: config.defaults(),
        registry,
        concurrency: Mutex::new(config.concurrency),
        renewal: RwLock::new(()),
        places: Places::of(clock::random_id().to_string()),
        config,
        channel,
        events,
        warm_shutdown,
        cold_shutdown,
    });
    tokio::task::spawn_blocking(scratch::clear);
    let stopping = tokio::spawn(shut_down_in_time(worker.clone()));
    let _stopping = AbortOnDropHandle::new(stopping);
    let (calls, _listening) = worker.channel.requests();
    let serving = tokio::spawn(mailbox::serve(worker.clone(), calls));
    // A client that sees worker-online may send a request at once.
    if timeout(GREETING, worker.hears.notified()).await.is_err() {
        tracing::warn!("taking tasks although remote control is not connected yet");
    }
    if !worker.config.without_mingle {
        mailbox::mingle(&worker).await;
    }
    worker.events.say(Detail::WorkerOnline(status::of(&worker)));
    let names: Vec<_> = worker.queues.borrow().iter().map(|queue| queue.name.to_string()).collect();
    tracing::info!(
        node = worker.node(),
        concurrency = worker.config.concurrency,
        queues = names.join(","),
        tasks = worker.registry.names().count(),
        "ready"
    );

    let upkeep = upkeep(&worker);
    consume(&worker).await;
    drop(upkeep);
    serving.abort();

    worker.servers.close().await;
    scratch::remove();

    worker.events.say(Detail::WorkerOffline(status::of(&worker)));
    worker.events.close();
    let farewell = async {
        let _ = publishing.await;
        if !worker.leaves_messages.load(Ordering::Relaxed) {
            worker.channel.retire(&worker.id).await?;
        }
        worker.channel.close_mailbox(worker.node()).await
    };
    match timeout(GREETING, farewell).await {
        Ok(Ok(())) => tracing::info!("worker stopped"),
        Ok(Err(error)) => tracing::warn!(%error, "worker stopped; its mailbox was not removed from Redis"),
        Err(_) => tracing::warn!("worker stopped; Redis did not answer, so worker-offline was not sent"),
    }
    Ok(())
}

/// What a worker does beside its tasks, until this is dropped.
fn upkeep(worker: &Arc<Worker>) -> [AbortOnDropHandle<()>; 7] {
    [
        tokio::spawn(leases::keep(worker.clone())),
        tokio::spawn(sweep::keep(worker.clone())),
        tokio::spawn(inherit::keep(worker.clone())),
        tokio::spawn(beat(worker.clone())),
        tokio::spawn(tend(worker.clone())),
        tokio::spawn(command::reap_orphans()),
        tokio::spawn(sweep_states(worker.clone())),
    ]
    .map(AbortOnDropHandle::new)
}

/// Takes messages until the worker shuts down, then waits for those it has.
async fn consume(worker: &Arc<Worker>) {
    let handled = TaskTracker::new();
    let all_handled = CancellationToken::new();
    let countdowns = tokio::spawn(countdown::keep(worker.clone(), all_handled.clone(), drop_stopped));
    let name = clock::random_id().to_string();
    let mut asker = Asker::new();
    let mut queues = worker.queues.subscribe();
    // On the queues that were consumed when it began to wait.
    let mut arrivals: Option<(Vec<Queue>, Arrivals)> = None;
    let mut backoff = Backoff::new(PAUSE);
    let mut is_woken = false;
    loop {
        if let Some(pause) = worker.aside.pause() {
            tokio::select! { () = sleep(pause) => {} () = worker.warm_shutdown.cancelled() => break }
        }
        let permit = tokio::select! {
            biased;
            () = worker.warm_shutdown.cancelled() => break,
            permit = worker.slots.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let is_changed = queues.has_changed().unwrap_or(false);
        let consumed = queues.borrow_and_update().clone();
        // A task that has ended in this slot has just looked.
        let has_looked = worker.shared_slots.found_none() && !is_woken && !is_changed && arrivals.is_some();
        is_woken = false;
        if has_looked {
            drop(permit);
        } else {
            match asker.take(worker).await {
                Ok(Some(next)) => {
                    backoff.reset();
                    let slot = Slot::new(permit, std::mem::replace(&mut asker, Asker::new()));
                    handled.spawn(handle(worker.clone(), next, slot));
                    continue;
                }
                Ok(None) => {
                    backoff.reset();
                    drop(permit);
                }
                Err(error) => {
                    drop(permit);
                    tracing::warn!(%error, "taking a message from Redis failed; retrying");
                    tokio::select! { () = sleep(backoff.pause()) => {} () = worker.warm_shutdown.cancelled() => break }
                    continue;
                }
            }
        }
        if arrivals.as_ref().is_none_or(|(on, _)| *on != consumed) {
            let names: Vec<&str> = consumed.iter().map(|queue| &*queue.name).collect();
            arrivals = Some((consumed.clone(), worker.channel.arrivals(&names, &name)));
        }
        let Some((_, waiting)) = &arrivals else { continue };
        tokio::select! {
            () = waiting.wait() => is_woken = true,
            _ = queues.changed() => {}
            () = worker.warm_shutdown.cancelled() => break,
        }
    }
    if let Some((_, arrivals)) = arrivals
        && let Err(error) = arrivals.close().await
    {
        tracing::warn!(%error, "leaving the watch on queues to another worker failed; one takes it over after seconds");
    }
    let running = worker.entries.list().len();
    tracing::info!(running, "taking no more tasks");
    handled.close();
    handled.wait().await;
    all_handled.cancel();
    if let Err(error) = countdowns.await {
        tracing::error!(%error, "putting back the messages that wait for their time ended; the next worker does it");
        worker.leaves_messages.store(true, Ordering::Relaxed);
    }
}

/// Turns a warm shutdown that takes too long into a cold one, as a second signal does.
async fn shut_down_in_time(worker: Arc<Worker>) {
    worker.warm_shutdown.cancelled().await;
    if let Some(patience) = config::seconds(worker.config.shutdown_timeout) {
        sleep(patience).await;
        tracing::warn!("--shutdown-timeout is over: stopping the tasks that run and putting them back");
        worker.cold_shutdown.cancel();
    }
}

/// Says every two seconds that the worker is there.
async fn beat(worker: Arc<Worker>) {
    let mut beats = interval(status::BEAT);
    loop {
        beats.tick().await;
        worker.events.say(Detail::WorkerHeartbeat(status::of(&worker)));
    }
}

/// Looks after idle servers.
async fn tend(worker: Arc<Worker>) {
    let mut rounds = interval(Servers::ROUND);
    loop {
        rounds.tick().await;
        worker.servers.tend();
    }
}

/// Deletes what is too old in the folder of states, if there is one.
async fn sweep_states(worker: Arc<Worker>) {
    let Some(folder) = worker.config.state_folder.clone() else { return };
    let mut rounds = interval(SWEEP_STATES);
    loop {
        rounds.tick().await;
        let (folder, keep) = (folder.clone(), worker.config.state_retention());
        let swept = tokio::task::spawn_blocking(move || state::sweep(&folder, keep)).await;
        match swept {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(swept)) => tracing::info!(swept, "deleted files of states whose time is over"),
            Ok(Err(error)) => tracing::warn!(%error, "looking through the folder of states failed; trying again later"),
        }
    }
}

/// The broker, as remote control shows it.
fn broker(channel: &Channel) -> Broker {
    let place = channel.place();
    Broker {
        hostname: place.host,
        port: place.port,
        database: channel.keys().database,
        userid: place.user,
        tls: place.tls,
    }
}
