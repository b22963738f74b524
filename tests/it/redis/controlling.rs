//! Remote control, with a worker that answers as Celery does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crewjob::store::RunningTask;
use crewjob::wire::pidbox::{Reply, Request};
use crewjob::wire::{BrokerKeys, Object, Value};

use super::*;

/// A worker that answers `rounds` requests with what `answer` says, or keeps silent.
fn worker(
    server: &RedisServer,
    node: &str,
    rounds: usize,
    answer: Option<fn(&Request) -> Value>,
) -> std::thread::JoinHandle<Vec<Request>> {
    let (mut listener, mut connection, node) = (server.connection(), server.connection(), node.to_owned());
    let ready = std::sync::Arc::new(std::sync::Barrier::new(2));
    let listening = ready.clone();
    let handle = std::thread::spawn(move || {
        let mut channel = listener.as_pubsub();
        channel.psubscribe("/0.celery.pidbox").expect("subscribed");
        listening.wait();
        let mut heard = Vec::new();
        while heard.len() < rounds {
            let request =
                Request::decode(channel.get_message().expect("a request").get_payload_bytes()).expect("a request");
            if let (Some(address), Some(answer)) = (&request.reply, answer) {
                let bound: bool = ::redis::cmd("SISMEMBER")
                    .arg("_kombu.binding.reply.celery.pidbox")
                    .arg(address.binding_member(&BrokerKeys::default()))
                    .query(&mut connection)
                    .expect("bindings");
                assert!(bound, "workers reply only to callers that are bound");
                let nodes = Object::new().with(node.as_str(), answer(&request));
                let reply =
                    Reply { ticket: Some(address.ticket.clone()), nodes }.envelope(&address.oid, 0, "tag").encode();
                let list = format!("{}.reply.celery.pidbox", address.oid);
                ::redis::cmd("LPUSH").arg(list).arg(reply).exec(&mut connection).expect("a reply");
            }
            heard.push(request);
        }
        heard
    });
    ready.wait();
    handle
}

fn described(job: u128) -> Value {
    let text = format!(r#"{{"id": "{}", "time_start": 1795354775.5, "acknowledged": false}}"#, attempt(job).task);
    Value::parse(text.as_bytes()).expect("JSON")
}

fn busy(request: &Request) -> Value {
    if request.method != "query_task" {
        return Value::Array(vec![described(1)]);
    }
    let state = |state: &str, job| Value::Array(vec![state.into(), described(job)]);
    let id = |job| attempt(job).task.to_string();
    Value::from(Object::new().with(id(1), state("active", 1)).with(id(2), state("scheduled", 2)))
}

fn broken(_: &Request) -> Value {
    Value::from(Object::new().with("error", "KeyError('active')"))
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_say_which_of_our_tasks_they_have() {
    let server = RedisServer::start();
    let workers = [worker(&server, "crew@a", 3, Some(busy)), worker(&server, "crew@b", 3, Some(broken))];
    let tasks = [1, 2, 3].map(|job| attempt(job).task);
    let nodes = store(&server).await.holders(&tasks).await.unwrap();
    let started_at = Some("2026-11-22T13:39:35.5Z".parse().unwrap());
    let task = |job| RunningTask { task: attempt(job).task, started_at, acknowledged: false };
    let [node] = &nodes[..] else { panic!("{nodes:?}") };
    assert_eq!((&*node.name, node.tasks.len()), ("crew@a", 2));
    assert!(node.tasks.contains(&task(1)) && node.tasks.contains(&task(2)), "{node:?}");
    for worker in workers {
        worker.join().expect("a worker");
    }
    let left: Vec<String> = server.run(&["KEYS", "*"]);
    assert_eq!(left, Vec::<String>::new(), "callers leave nothing behind");
}

/// Celery 5.3 to 5.6: what waits for its time is in `scheduled` alone.
fn waiting(request: &Request) -> Value {
    match &*request.method {
        "scheduled" => Value::Array(vec![Value::from(Object::new().with("request", described(1)))]),
        "query_task" => Value::from(Object::new()),
        _ => Value::Array(Vec::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_has_what_waits_for_its_time_though_query_task_does_not_name_it() {
    let server = RedisServer::start();
    let worker = worker(&server, "crew@a", 3, Some(waiting));
    let nodes = store(&server).await.holders(&[attempt(1).task]).await.unwrap();
    assert_eq!(nodes[0].tasks.iter().map(|it| it.task).collect::<Vec<_>>(), [attempt(1).task]);
    let asked: Vec<String> = worker.join().expect("a worker").into_iter().map(|request| request.method).collect();
    assert_eq!(asked, ["scheduled", "query_task", "active"], "in the order in which a task goes through them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_names_the_tasks_of_all_producers_and_one_that_cannot_answer_has_not() {
    let server = RedisServer::start();
    let foreign = |request: &Request| {
        let id = if request.method == "active" { "of-another-worker" } else { "taken-ahead" };
        Value::Array(vec![Value::from(Object::new().with("id", id))])
    };
    let workers = [worker(&server, "crew@a", 2, Some(foreign)), worker(&server, "crew@b", 2, Some(broken))];
    let store = store(&server).await;
    let nodes: Vec<Arc<str>> = vec!["crew@a".into(), "crew@b".into()];
    let answers = store.tasks_of(&nodes).await.unwrap();
    let mut tasks = answers["crew@a"].clone();
    tasks.sort_unstable();
    assert_eq!((answers.len(), tasks), (1, vec!["of-another-worker".to_owned(), "taken-ahead".to_owned()]));
    for worker in workers {
        let requests = worker.join().expect("a worker");
        let wanted = Some(vec!["crew@a".to_owned(), "crew@b".to_owned()]);
        assert!(requests.iter().all(|request| request.destination == wanted), "only these are asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_there_as_soon_as_all_have_answered_and_no_later_than_a_second() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let begun = Instant::now();
    assert_eq!(store.inspect(Request::ping()).await, Ok(vec![]));
    assert!(begun.elapsed() < Duration::from_millis(300), "no worker listens: {:?}", begun.elapsed());
    let prompt = worker(&server, "crew@a", 2, Some(busy));
    let begun = Instant::now();
    assert_eq!(store.inspect(Request::active()).await.unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    let deaf = worker(&server, "crew@b", 1, None);
    let begun = Instant::now();
    assert_eq!(store.inspect(Request::active()).await.unwrap().len(), 1);
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(2));
    drop((prompt.join(), deaf.join()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_gives_up_leaves_nothing_behind() {
    let server = RedisServer::start();
    let (store, deaf) = (store(&server).await, worker(&server, "crew@a", 1, None));
    let call = tokio::time::timeout(Duration::from_millis(200), store.inspect(Request::ping()));
    assert!(call.await.is_err());
    deaf.join().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(server.run::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_told_to_drop_or_to_kill() {
    let server = RedisServer::start();
    let (store, ears) = (store(&server).await, worker(&server, "crew@a", 2, None));
    let tasks = [attempt(1).task, attempt(2).task];
    assert_eq!(store.revoke(&tasks, None, None).await, Ok(1));
    assert_eq!(store.revoke(&tasks[..1], Some("SIGTERM"), Some(&["crew@a".into()])).await, Ok(1));
    let heard = ears.join().unwrap();
    let said = |request: &Request, argument| request.arguments.get(argument).cloned();
    let ids = Value::Array(tasks.iter().map(|task| Value::from(task.to_string())).collect());
    assert_eq!((said(&heard[0], "task_id"), said(&heard[0], "terminate")), (Some(ids), Some(Value::Bool(false))));
    assert_eq!(
        (said(&heard[1], "terminate"), said(&heard[1], "signal")),
        (Some(Value::Bool(true)), Some("SIGTERM".into()))
    );
    assert_eq!((&heard[1].destination, &heard[1].reply), (&Some(vec!["crew@a".to_owned()]), &None));
}
