//! What everything is measured on: an API server, a Redis, and the resources of one pool.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use crewjob::api::{self, CrewJob, CrewWorkerPool, REDIS_SECRET_LABEL};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{Client, Config, CustomResourceExt, ResourceExt};
use serde_json::json;
use tempfile::TempDir;

use super::Result;
use super::operator::{Operator, free_port, program};
use super::process::Process;
use super::report::Report;

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");

/// The namespace of everything.
pub const NAMESPACE: &str = "bench";
/// Group of a resource like `CrewJob` that no operator looks at.
pub const BARE_GROUP: &str = "bare.crewjob.dev";
const SECRET: &str = "redis";

/// The servers, and where they are. They end when it is dropped.
pub struct Bed {
    /// A client of the API server.
    pub client: Client,
    /// Where Redis is, without the number of a database.
    pub redis: String,
    kubeconfig: String,
    folder: TempDir,
    _redis: RedisServer,
    _cluster: ControlPlane,
}

impl Bed {
    /// Starts the servers and declares pool `default`, which has no Deployment.
    pub async fn prepare(report: &Report) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let redis = RedisServer::start(folder.path())?;
        report.say("redis-server is up; starting an API server");
        let cluster = ControlPlane::start()?;
        let kubeconfig = cluster.run(&["kubeconfig"])?;
        let read = Kubeconfig::read_from(&kubeconfig)?;
        let client = Client::try_from(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)?;
        let redis_url = format!("redis://127.0.0.1:{}", redis.port);
        let bed = Self { client, redis: redis_url, kubeconfig, folder, _redis: redis, _cluster: cluster };
        bed.install().await?;
        report.say("the API server is up");
        Ok(bed)
    }

    async fn install(&self) -> Result<()> {
        let applied = Command::new(program()).args(["crds", "apply"]).env("KUBECONFIG", &self.kubeconfig).output()?;
        if !applied.status.success() {
            return Err(format!("crds apply: {}", String::from_utf8_lossy(&applied.stderr)).into());
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let bare = bare_definition();
        let name = bare.name_any();
        definitions.create(&PostParams::default(), &bare).await?;
        await_condition(definitions, &name, is_crd_established()).await?;
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some([(REDIS_SECRET_LABEL.to_owned(), "true".to_owned())].into()),
                ..ObjectMeta::default()
            },
            string_data: Some(BTreeMap::from([("REDIS_URL".to_owned(), format!("{}/0", self.redis))])),
            ..Secret::default()
        };
        self.api::<Secret>().create(&PostParams::default(), &secret).await?;
        self.create_pool("default", &json!({})).await
    }

    /// The file that leads to the API server, with the token of an administrator.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Resources of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Declares a pool on this Redis with these further fields.
    pub async fn create_pool(&self, name: &str, further: &serde_json::Value) -> Result<()> {
        let mut spec = json!({ "redis": { "secretName": SECRET } });
        if let (Some(spec), Some(further)) = (spec.as_object_mut(), further.as_object()) {
            spec.extend(further.clone());
        }
        let pool = CrewWorkerPool::new(name, serde_json::from_value(spec)?);
        self.api::<CrewWorkerPool>().create(&PostParams::default(), &pool).await?;
        Ok(())
    }

    /// Starts the operator.
    pub async fn operator(&self) -> Result<Operator> {
        Operator::start(&self.kubeconfig, NAMESPACE, NAMESPACE, self.folder.path()).await
    }

    /// Starts an operator that serves these namespaces.
    pub async fn operator_for(&self, namespaces: &[String]) -> Result<Operator> {
        Operator::start(&self.kubeconfig, NAMESPACE, &namespaces.join(","), self.folder.path()).await
    }

    /// Starts one more Redis.
    pub fn redis_server(&self) -> Result<RedisServer> {
        RedisServer::start(self.folder.path())
    }
}

/// A Redis of our own. It ends when it is dropped.
pub struct RedisServer {
    /// Where it listens.
    pub port: u16,
    /// Its first database.
    pub url: String,
    _process: Process,
}

impl RedisServer {
    fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let text = port.to_string();
        let command = ["redis-server", "--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let process = Process::start(&command, &[], &folder.join(format!("redis-{port}.log")))?;
        wait_for_redis(&text, &process)?;
        Ok(Self { port, url: format!("redis://127.0.0.1:{port}/0"), _process: process })
    }
}

/// The definition of `CrewJob` under another group.
fn bare_definition() -> CustomResourceDefinition {
    let [mut definition, ..] = api::crds();
    BARE_GROUP.clone_into(&mut definition.spec.group);
    definition.metadata.name = Some(format!("{}.{BARE_GROUP}", CrewJob::crd().spec.names.plural));
    definition.spec.names.categories = None;
    definition.spec.names.short_names = None;
    definition
}

fn wait_for_redis(port: &str, redis: &Process) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        if Instant::now() > deadline {
            return Err(format!("redis-server does not start; is it installed?\n{}", redis.last_words()).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// An API server of our own, taken down when dropped.
struct ControlPlane {
    name: String,
    guard: Child,
}

impl ControlPlane {
    fn start() -> Result<Self> {
        let name = format!("bench-{}", process::id());
        // A guard of its own process group, so that neither a panic nor Ctrl-C leaves anything behind.
        let guard = Command::new("sh")
            .args(["-c", r#"read -r _; exec "$@""#, "sh", CLUSTER, "--name", &name, "down"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let cluster = Self { name, guard };
        cluster.run(&["control-plane", "up"])?;
        Ok(cluster)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let output =
            Command::new(CLUSTER).args(["--name", &self.name]).args(arguments).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{CLUSTER} {} failed: see above", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
