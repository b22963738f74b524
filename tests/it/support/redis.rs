//! A real redis-server on a free loopback port, stopped when dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Client, Commands, Connection, FromRedisValue};
use tempfile::TempDir;

/// How a server is to be set up.
#[derive(Default)]
pub struct Setup {
    config: String,
    tls: bool,
    mutual: bool,
    sentinel: bool,
}

impl Setup {
    /// A line of redis.conf.
    pub fn config(mut self, line: &str) -> Self {
        self.config += line;
        self.config += "\n";
        self
    }

    /// Speaks TLS only, with a certificate of its own authority: [`RedisServer::ca`].
    pub fn tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// The same, and asks for a certificate of the client: [`RedisServer::file`] `client.crt` with `client.key`.
    pub fn mutual_tls(self) -> Self {
        Self { tls: true, mutual: true, ..self }
    }

    /// A sentinel that takes `primary` for the primary called `mymaster`.
    pub fn sentinel_of(self, primary: &RedisServer) -> Self {
        let monitor = format!("sentinel monitor mymaster 127.0.0.1 {} 1", primary.port);
        Self { sentinel: true, ..self }.config(&monitor)
    }

    pub fn start(self) -> RedisServer {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        if self.tls {
            certificates(dir.path());
        }
        // Another process may take the port between finding and using it.
        for _ in 0..20 {
            let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).expect("a port").port();
            let (tls, sentinel) = (self.tls, self.sentinel);
            let mut server =
                RedisServer { dir: dir.clone(), port, tls, sentinel, process: None, own: Mutex::default() };
            fs::write(dir.path().join("redis.conf"), self.render(port)).expect("redis.conf");
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start; is it installed?");
    }

    fn render(&self, port: u16) -> String {
        let ports = if self.tls {
            let asks = if self.mutual { "yes" } else { "no" };
            format!(
                "port 0\ntls-port {port}\ntls-cert-file server.crt\ntls-key-file server.key\ntls-ca-cert-file ca.crt\ntls-auth-clients {asks}\n"
            )
        } else {
            format!("port {port}\n")
        };
        let kept = if self.sentinel { "" } else { "save \"\"\nappendonly no\n" };
        format!("bind 127.0.0.1\n{kept}{ports}{}", self.config)
    }
}

/// A running server.
pub struct RedisServer {
    dir: Arc<TempDir>,
    port: u16,
    tls: bool,
    sentinel: bool,
    process: Option<Child>,
    own: Mutex<Option<Connection>>,
}

impl RedisServer {
    /// A server without password and TLS.
    pub fn start() -> Self {
        Setup::default().start()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL for a database, without credentials.
    pub fn url(&self, database: u8) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}/{database}", self.port)
    }

    /// Its URL with credentials.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url(0).replacen("127", &format!("{user}:{password}@127"), 1)
    }

    /// PEM of the authority that signed its certificate.
    pub fn ca(&self) -> String {
        self.file("ca.crt")
    }

    /// The text of a file beside it.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// Where a file beside it is.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A connection for looking behind the store's back.
    pub fn connection(&self) -> Connection {
        Client::open(self.url(0)).and_then(|client| client.get_connection()).expect("a connection")
    }

    /// Runs a command given as words.
    pub fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut packed = redis::cmd(command[0]);
        packed.arg(&command[1..]);
        let mut own = self.own.lock().expect("no panic meanwhile");
        let answer = own.as_mut().map(|connection| packed.query(connection));
        match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) if !error.is_connection_dropped() => panic!("{command:?}: {error}"),
            // The test may have killed or restarted it.
            Some(Err(_)) | None => packed.query(own.insert(self.connection())).expect("the command works"),
        }
    }

    /// All elements of a list, head first.
    pub fn list(&self, key: &str) -> Vec<Vec<u8>> {
        self.connection().lrange(key, 0, -1).expect("a list")
    }

    /// Kills the server; nothing it held survives.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Starts it on the same port after [`RedisServer::stop`].
    pub fn start_again(&mut self) {
        assert!(self.launch(), "redis-server starts again on port {}", self.port);
    }

    fn launch(&mut self) -> bool {
        let mut process = Command::new("redis-server")
            .arg("redis.conf")
            .args(self.sentinel.then_some("--sentinel"))
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if process.try_wait().expect("a child").is_some() {
                return false;
            }
            if self.answers() {
                self.process = Some(process);
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        process.kill().and_then(|()| process.wait()).expect("it can be killed");
        false
    }
}

impl RedisServer {
    /// Whether it greets: it listens before it has read its users. TLS is taken on trust.
    fn answers(&self) -> bool {
        let greeting = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.write_all(b"PING\r\n")?;
            if self.tls { Ok(1) } else { stream.read(&mut [0; 64]) }
        });
        greeting.is_ok_and(|bytes| bytes > 0)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An authority, and certificates that it signed: for 127.0.0.1, and of a client. `stranger.crt` is of no authority.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let done = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().expect("openssl");
        assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for own in ["ca", "stranger"] {
        openssl(&format!("req -x509 {key} -keyout {own}.key -out {own}.crt -days 2 -subj /CN=test-{own}"));
    }
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("extensions");
    for signed in ["server", "client"] {
        openssl(&format!("req {key} -keyout {signed}.key -out {signed}.csr -subj /CN={signed}"));
        openssl(&format!(
            "x509 -req -in {signed}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {signed}.crt"
        ));
    }
}
