//! A stand-in for Celery workers: it takes messages, writes what a prefork worker with events, late acknowledgement,
//! `track_started` and extended results writes, and does nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crewjob::runtime::clock;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Result;

/// Tasks that run side by side.
const SLOTS: usize = 8;
const NODE: &str = "crew@bench";
/// All bands of the queue, most urgent first.
const BANDS: [&str; 4] = ["crew_jobs", "crew_jobs\u{6}\u{16}3", "crew_jobs\u{6}\u{16}6", "crew_jobs\u{6}\u{16}9"];
const RESULT_EXPIRES: u64 = 3600;

/// Workers that serve queue `crew_jobs` until dropped.
pub struct Worker {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    _slots: JoinSet<()>,
}

impl Worker {
    /// Starts them on database 0.
    pub async fn start(redis: &str) -> Result<Self> {
        let client = Client::open(format!("{redis}/0"))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let writer = client.get_multiplexed_async_connection_with_config(&config).await?;
        let seen = Arc::<Mutex<HashMap<String, Instant>>>::default();
        let mut slots = JoinSet::new();
        for _ in 0..SLOTS {
            let reader = client.get_multiplexed_async_connection_with_config(&config).await?;
            let (writer, seen) = (writer.clone(), seen.clone());
            slots.spawn(async move {
                if let Err(error) = serve(reader, writer, &seen).await {
                    eprintln!("the stand-in worker ended: {error}");
                }
            });
        }
        Ok(Self { seen, _slots: slots })
    }

    /// When each job's message was popped, by name.
    pub fn seen(&self) -> HashMap<String, Instant> {
        self.seen.lock().clone()
    }
}

async fn serve(
    mut reader: MultiplexedConnection,
    mut writer: MultiplexedConnection,
    seen: &Mutex<HashMap<String, Instant>>,
) -> Result<()> {
    loop {
        let mut pop = redis::cmd("BRPOP");
        let (_, bytes): (String, Vec<u8>) = pop.arg(&BANDS).arg(0).query_async(&mut reader).await?;
        let now = Instant::now();
        let task = Task::read(&bytes)?;
        seen.lock().entry(task.job.clone()).or_insert(now);
        task.taken().exec_async(&mut writer).await?;
        task.ended().exec_async(&mut writer).await?;
    }
}

/// A message that was taken.
struct Task {
    id: String,
    tag: String,
    job: String,
    envelope: Value,
}

impl Task {
    fn read(bytes: &[u8]) -> Result<Self> {
        let envelope: Value = serde_json::from_slice(bytes)?;
        let text = |path: &str| envelope.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self {
            id: text("/headers/id"),
            tag: text("/properties/delivery_tag"),
            job: text("/headers/crewjob_name"),
            envelope,
        })
    }

    /// In flight, received and started.
    fn taken(&self) -> Pipeline {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.zadd("unacked_index", &self.tag, now()).ignore();
        pipe.hset("unacked", &self.tag, json!([self.envelope, "", "crew_jobs"]).to_string()).ignore();
        let name = &self.envelope["headers"]["task"];
        self.tell(&mut pipe, "task-received", &json!({ "name": name, "args": "()", "kwargs": "{}", "retries": 0 }));
        self.store(&mut pipe, "STARTED", &json!({ "pid": 1, "hostname": NODE }), None);
        self.tell(&mut pipe, "task-started", &json!({}));
        pipe
    }

    /// Result stored, acknowledged, succeeded.
    fn ended(&self) -> Pipeline {
        let mut pipe = redis::pipe();
        pipe.atomic();
        let result = json!({ "job_id": self.job, "status": "completed" });
        self.store(&mut pipe, "SUCCESS", &result, Some(&clock::now().to_string()));
        self.tell(&mut pipe, "task-succeeded", &json!({ "result": result.to_string(), "runtime": 0.001 }));
        pipe.zrem("unacked_index", &self.tag).ignore();
        pipe.hdel("unacked", &self.tag).ignore();
        pipe
    }

    fn store(&self, pipe: &mut Pipeline, status: &str, result: &Value, done: Option<&str>) {
        let document = json!({
            "result": result, "traceback": null, "children": [], "date_done": done,
            "name": self.envelope["headers"]["task"], "args": [self.job], "kwargs": {}, "worker": NODE, "retries": 0,
            "queue": "crew_jobs", "task_id": self.id,
        });
        // In what Celery writes, the status comes first.
        let text = format!("{{\"status\": \"{status}\", {}", &document.to_string()[1..]);
        let key = format!("celery-task-meta-{}", self.id);
        pipe.set_ex(&key, &text, RESULT_EXPIRES).ignore();
        pipe.publish(&key, &text).ignore();
    }

    fn tell(&self, pipe: &mut Pipeline, kind: &str, further: &Value) {
        let mut event = json!({
            "hostname": NODE, "utcoffset": 0, "pid": 1, "clock": 1, "uuid": self.id, "timestamp": now(), "type": kind,
        });
        if let (Some(event), Some(further)) = (event.as_object_mut(), further.as_object()) {
            event.extend(further.clone());
        }
        let envelope = json!({
            "body": STANDARD.encode(json!([event]).to_string()),
            "content-encoding": "utf-8", "content-type": "application/json",
            "headers": { "hostname": NODE },
            "properties": {
                "delivery_mode": 1, "delivery_info": { "exchange": "celeryev", "routing_key": "task.multi" },
                "priority": 0, "body_encoding": "base64", "delivery_tag": self.tag,
            },
        });
        pipe.publish("/0.celeryev/task.multi", envelope.to_string()).ignore();
    }
}

fn now() -> f64 {
    clock::now().as_duration().as_secs_f64()
}
