//! The servers that tests of the bus need: those that `scripts/services.sh` runs, and NATS servers of a test's own, which it
//! may stop and start.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::relay;
use crate::support::ReservedPort;

/// A prefix that no other test has.
pub fn prefix() -> String {
    format!("t{}.", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

fn needed(variable: &str, what: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("this test needs {what}: run `scripts/services.sh up` and `eval \"$(scripts/services.sh env)\"`, which sets {variable}")
    })
}

/// The shared NATS server.
pub fn nats_url() -> String {
    needed("BITBRAT_TEST_NATS_URL", "a NATS server with JetStream")
}

/// The Pub/Sub emulator behind a relay, so that disconnecting consumers are handled as by the service.
pub fn pubsub_host() -> String {
    relay::open(needed("PUBSUB_EMULATOR_HOST", "the Pub/Sub emulator"))
}

/// Creates the stream that a deployment with this prefix has.
pub async fn create_stream(url: &str, prefix: &str) {
    create_stream_on(
        url,
        &prefix.replace('.', "").to_uppercase(),
        &[&format!("{prefix}>")],
    )
    .await;
}

/// Creates a stream with these subjects.
pub async fn create_stream_on(url: &str, name: &str, subjects: &[&str]) {
    let client = async_nats::connect(url).await.expect("the NATS server answers");
    let config = async_nats::jetstream::stream::Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        ..Default::default()
    };
    let made = async_nats::jetstream::new(client).create_stream(config).await;
    made.expect("the stream can be created");
}

/// A NATS server of one test's own.
pub struct NatsServer {
    port: ReservedPort,
    data: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts one with JetStream.
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    /// Starts one without JetStream.
    pub async fn start_without_jetstream() -> Self {
        Self::start_with(false).await
    }

    /// Starts one with JetStream and these lines of configuration.
    pub async fn start_as(configuration: &str) -> Self {
        let mut server = Self::prepared(true);
        let path = server.data.path().join("server.conf");
        std::fs::write(&path, configuration).unwrap();
        server
            .arguments
            .extend(["--config".to_owned(), path.display().to_string()]);
        server.run().await;
        server
    }

    async fn start_with(jetstream: bool) -> Self {
        let mut server = Self::prepared(jetstream);
        server.run().await;
        server
    }

    fn prepared(jetstream: bool) -> Self {
        Self {
            port: ReservedPort::new(),
            data: tempfile::tempdir().unwrap(),
            arguments: if jetstream {
                vec!["-js".to_owned()]
            } else {
                Vec::new()
            },
            child: None,
        }
    }

    /// Runs it, on the port and with the data that it had.
    pub async fn run(&mut self) {
        let mut command = Command::new(program());
        command
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &self.port.number.to_string(),
                "--store_dir",
            ])
            .arg(self.data.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command
            .spawn()
            .expect("nats-server runs (`apt-get install nats-server`)");
        self.child = Some(child);
        timeout(Duration::from_secs(20), async {
            while TcpStream::connect(("127.0.0.1", self.port.number)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("nats-server listens");
    }

    /// Stops it at once, as a crash would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }
}

fn program() -> PathBuf {
    // Debian installs servers in a directory that is not in every PATH.
    let installed = PathBuf::from("/usr/sbin/nats-server");
    match std::env::var_os("BITBRAT_NATS_SERVER") {
        Some(named) => named.into(),
        None if installed.exists() => installed,
        None => "nats-server".into(),
    }
}
