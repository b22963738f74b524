//! A real Kubernetes API server, started once for all tests that ask for it.
//!
//! `CREWJOB_TEST_KUBECONFIG` names the kubeconfig of a running one to use instead.

use std::{
    env,
    future::Future,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use crewjob::api;
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use tokio::{runtime::Runtime, time::timeout};

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");

/// The API server with the project's resources installed, and what it takes to talk to it.
pub struct ControlPlane {
    kubeconfig: PathBuf,
    /// The command that runs kubectl on it.
    kubectl: Vec<String>,
    /// Serves the client, which is bound to the runtime it was made in.
    runtime: Runtime,
    client: Client,
    /// Takes the API server down when its input is closed, be it by the end of this process.
    _guard: Option<Child>,
}

impl ControlPlane {
    /// The one of this test run; the first call starts it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| match env::var_os("CREWJOB_TEST_KUBECONFIG") {
            Some(kubeconfig) => Self::connect(kubeconfig.into(), vec!["kubectl".to_owned()], None),
            None => Self::start(),
        })
    }

    fn start() -> Self {
        let name = format!("tests-{}", process::id());
        let cluster = [CLUSTER, "--name", &name].map(str::to_owned).to_vec();
        let started = Command::new(CLUSTER).args(["--name", &name, "control-plane", "up"]).status();
        assert!(started.expect(CLUSTER).success(), "the API server does not start: see above");

        // A guard of its own process group, so that neither a panic nor Ctrl-C leaves anything behind.
        let guard = Command::new("sh")
            .args(["-c", r#"read -r _; exec "$@" down"#, "sh"])
            .args(&cluster)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let kubeconfig = printed_by(&cluster, ["kubeconfig"]);
        Self::connect(kubeconfig.trim_end().into(), [cluster, vec!["kubectl".to_owned()]].concat(), Some(guard))
    }

    fn connect(kubeconfig: PathBuf, kubectl: Vec<String>, guard: Option<Child>) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let read = Kubeconfig::read_from(&kubeconfig).unwrap();
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
            let client = Client::try_from(config).unwrap();
            install(&client).await;
            client
        });
        Self { kubeconfig, kubectl, runtime, client, _guard: guard }
    }

    /// A client; its calls belong into [`Self::block_on`].
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs what talks to the API server.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// What kubectl prints; panics with what it complains about.
    #[track_caller]
    pub fn kubectl(&self, arguments: &str) -> String {
        let command: Vec<_> = ["env".to_owned(), format!("KUBECONFIG={}", self.kubeconfig.display())]
            .into_iter()
            .chain(self.kubectl.iter().cloned())
            .collect();
        printed_by(&command, arguments.split_whitespace())
    }

    /// A new namespace, which no other test uses.
    pub fn namespace(&self) -> String {
        let metadata = ObjectMeta { generate_name: Some("test-".to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let namespaces: Api<Namespace> = Api::all(self.client());
        self.block_on(namespaces.create(&PostParams::default(), &namespace)).unwrap().name_any()
    }
}

/// Installs the resource definitions and waits until they are served.
async fn install(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in api::crds() {
        let name = definition.name_any();
        let params = PatchParams::apply("crewjob").force();
        definitions.patch(&name, &params, &Patch::Apply(&definition)).await.unwrap();
        let established = await_condition(definitions.clone(), &name, is_crd_established());
        timeout(Duration::from_secs(30), established).await.expect("the definition is established").unwrap();
    }
}

#[track_caller]
fn printed_by<'a>(command: &[String], arguments: impl IntoIterator<Item = &'a str>) -> String {
    let output = Command::new(&command[0]).args(&command[1..]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
