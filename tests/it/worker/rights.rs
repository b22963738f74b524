//! What a Redis user for workers must be allowed to do.

use redis::Value as Answer;

use super::*;
use crate::support::monitor::Monitor;
use crate::support::redis::Setup;

/// In the chart's own Redis, and as the documentation says.
fn permissions() -> [String; 2] {
    let users = include_str!("../../../charts/crewjob-operator/files/redis-users.acl");
    let bundled = users.lines().find_map(|line| line.strip_prefix("worker ")).expect("the workers' rules");
    let page = include_str!("../../../docs/worker-commands.md");
    let rules = page.split("ACL SETUSER worker on >PASSWORD").nth(1).expect("the rules").split("```").next();
    [bundled.to_owned(), rules.expect("the end of the rules").replace(['\\', '\n'], " ")]
}

/// What Redis refused to the user, as `reason object`.
fn refused(server: &RedisServer) -> Vec<String> {
    let text = |value: &Answer| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
    let entries: Vec<Vec<Answer>> = server.run(&["ACL", "LOG"]);
    let refused = entries.iter().map(|entry| {
        let field = |name: &str| {
            entry.iter().position(|field| text(field) == name).map(|at| text(&entry[at + 1])).unwrap_or_default()
        };
        format!("{} {}", field("reason"), field("object"))
    });
    // A name for people who look at connections. Servers before 7.2 do not know it either.
    refused.filter(|refused| refused != "command client|setinfo").collect()
}

#[test]
fn the_permissions_of_the_chart_and_of_the_documentation_are_enough() {
    for rules in permissions() {
        do_everything_on(&server_with(&rules));
    }
}

#[test]
fn scripts_declare_the_keys_that_they_touch_but_for_those_that_only_they_can_know() {
    let server = server_with(&permissions()[0]);
    let monitor = Monitor::of(&server);
    do_everything_on(&server);
    let (undeclared, ran) = monitor.undeclared(&server, |key| {
        let begins = ["crewjob-lease:", "celery-task-meta-"].into_iter().find(|begin| key.starts_with(begin));
        begins.map_or_else(|| key.to_owned(), |begin| format!("{begin}TASK"))
    });
    // Of the task whose message is taken: which one that is only the script sees.
    let scripts = ["channel/lua/reserve", "channel/lua/settle"];
    let known = |it: &String| {
        let (script, key) = it.split_once(": ").unwrap_or_default();
        scripts.contains(&script) && ["crewjob-lease:TASK", "celery-task-meta-TASK"].contains(&key)
    };
    let unknown: Vec<_> = undeclared.iter().filter(|it| !known(it)).collect();
    assert!(unknown.is_empty() && !undeclared.is_empty(), "{unknown:?}");
    // The others are of worse days, and of results elsewhere.
    for script in ["beat", "close", "discard", "part", "reply", "reserve", "restore", "settle", "watch"] {
        assert!(ran.contains(&format!("channel/lua/{script}")), "{script}: {ran:?}");
    }
}

fn server_with(rules: &str) -> RedisServer {
    Setup::default()
        .config(&format!("user worker on >s3cret {rules}"))
        .config("user default on nopass ~* &* +@all")
        .start()
}

fn do_everything_on(server: &RedisServer) {
    // A message that another worker lost, and an element that is no message.
    send(server, "told", "lost", "[]");
    let lost: String = server.run(&["RPOP", "default"]);
    server.run::<()>(&["HSET", "unacked", "lost", &format!(r#"[{lost}, "", "default"]"#)]);
    server.run::<()>(&["ZADD", "unacked_index", "1", "lost"]);
    server.run::<()>(&["HSET", "unacked", "junk", "junk"]);
    server.run::<()>(&["ZADD", "unacked_index", "1", "junk"]);
    server.run::<()>(&["LPUSH", "default", "junk"]);
    server.run::<()>(&["SET", "celery-task-meta-old", "{}"]);
    server.run::<()>(&["LPUSH", "gone.reply.celery.pidbox", "{}"]);
    let follower =
        value(r#"[{"task": "told", "args": [], "kwargs": {}, "options": {"task_id": "follower"}, "immutable": true}]"#);
    for (task, args) in [
        ("told", "[]"),
        ("again", "[]"),
        ("backend.tasks.run_crew_task", r#"["id", {"topic": "t"}]"#),
        ("backend.tasks.cleanup_old_results", "[]"),
        ("unknown", "[]"),
    ] {
        send_changed(server, task, task, args, |call| call.embed.callbacks = follower.clone());
    }
    server.run::<()>(&["SET", "celery-taskset-meta-g.s", "1"]);
    super::chords::send_part(server, "told", "part", 0, false);
    let env = [("REDIS_URL", server.url_as("worker", "s3cret"))];
    let mut worker = Worker::start_with(&env, TASKS, &["-n", "first@h", "-c", "4"]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    // A worker asks the others once, when it starts, and waits for a second: on a busy machine no answer may come in time.
    let mut other = Worker::start_with(&env, TASKS, &["-n", "other@h"]);
    until("it asks the first one", || {
        if other.log().contains("another worker answered") {
            return Some(());
        }
        if other.log().contains("ready") {
            other = Worker::start_with(&env, TASKS, &["-n", "other@h"]);
        }
        None
    });
    for (id, end) in [
        ("told", "SUCCESS"),
        ("again", "SUCCESS"),
        ("backend.tasks.run_crew_task", "SUCCESS"),
        ("backend.tasks.cleanup_old_results", "SUCCESS"),
        ("unknown", "FAILURE"),
        ("follower", "SUCCESS"),
        ("part", "SUCCESS"),
        ("lost", "SUCCESS"),
    ] {
        state(server, id, end);
    }
    // The other one may have put a copy of `follower` aside, and looks at it again when the lease that it saw is over.
    until("the body of the chord is sent", || (server.run::<u64>(&["LLEN", "default-bodies"]) == 1).then_some(()));
    until("every copy is acknowledged", || (in_flight(server) == 0).then_some(()));
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!(refused(server), Vec::<String>::new());
    assert_eq!(in_flight(server), 0);
}

#[test]
fn a_worker_says_at_its_start_that_a_redis_cluster_is_not_supported() {
    let server = Setup::default().config("cluster-enabled yes").start();
    let mut worker = Worker::start(&server, TASKS, &[]);
    assert!(!worker.gone().success());
    assert!(worker.log().contains("Redis Cluster is not supported"), "{}", worker.log());
}

#[test]
fn a_worker_trusts_the_authority_that_its_url_names_as_celery_does() {
    let server = Setup::default().tls().start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.crt");
    std::fs::write(&file, server.ca()).unwrap();
    let url = format!("{}?ssl_cert_reqs=required&ssl_ca_certs={}", server.url(0), file.display());
    let worker = Worker::start_with(&[("REDIS_URL", url)], TASKS, &["--without-mingle"]);
    until("the worker is ready", || worker.log().contains("ready").then_some(()));
}
