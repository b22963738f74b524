//! What a command is given and what is kept of it.

use super::*;

#[test]
fn a_command_does_not_find_the_way_to_the_broker_in_its_environment() {
    let server = RedisServer::start();
    let tasks = "
tasks:
  env: {command: [env], output: text}
  given: {command: [env], output: text, env: {REDIS_URL: redis://elsewhere}}
  served: {server: true, command: [python3, -c, 'import json, os; input(); print(json.dumps({\"result\": dict(os.environ)}))']}
";
    for task in ["env", "given", "served"] {
        send(&server, task, task, "[]");
    }
    let _worker = Worker::start(&server, tasks, &[]);
    for task in ["env", "served"] {
        let found = state(&server, task, "SUCCESS").result.to_string();
        assert!(found.contains("PATH") && !found.contains("REDIS_URL"), "{found}");
        assert!(!found.contains(&server.url(0)), "{found}");
    }
    let found = state(&server, "given", "SUCCESS").result.to_string();
    assert!(found.contains("REDIS_URL=redis://elsewhere"), "{found}");
}
