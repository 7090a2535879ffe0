//! Enrolment, renewal and the fleet against a real collector on loopback, with the programs as
//! people run them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sekimori_agent::config::{Address, Collector as Target, Tls};
use sekimori_agent::credentials;
use sekimori_agent::ship::{News, Peers, Shipper, channel};
use sekimori_agent::spool::{Lane, SharedSpool, Spool, SpoolConfig};
use sekimori_collector::config::Config;
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki::{self, Life, Offer};
use sekimori_collector::server::Collector;
use sekimori_proto::token::Token;
use sekimori_proto::v1::{Event, HostState, Kind};
use tempfile::TempDir;
use tokio::sync::watch;

const SEKIMORI: &str = env!("CARGO_BIN_EXE_sekimori");
const AGENT: &str = env!("CARGO_BIN_EXE_sekimori-agent");
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector that runs, and a host beside it.
struct World {
    _temporary: TempDir,
    /// The collector's directory.
    dir: PathBuf,
    /// The host's files.
    host: PathBuf,
    address: SocketAddr,
}

impl World {
    async fn new() -> World {
        let temporary = tempfile::tempdir().unwrap();
        let (dir, host) = (temporary.path().join("collector"), temporary.path().join("host"));
        pki::init(&dir, &[]).unwrap();
        fs::create_dir(&host).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let collector =
            Collector::bind(&Config::new(dir.clone(), listen, None, None)).await.unwrap();
        let address = collector.address();
        tokio::spawn(collector.serve());
        let world = World { _temporary: temporary, dir, host, address };
        let tls = world.tls();
        let text = format!(
            "policy: policy.yaml\ncollector:\n  address: {}\n  ca: {}\n  cert: {}\n  key: {}\n",
            world.url(),
            tls.ca.display(),
            tls.cert.display(),
            tls.key.display(),
        );
        fs::write(world.host.join("agent.yaml"), text).unwrap();
        world
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn tls(&self) -> Tls {
        let path = |name: &str| self.host.join("tls").join(name);
        Tls { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem"), server_name: None }
    }

    fn target(&self) -> Target {
        let address: Address = self.url().parse().unwrap();
        Target { address, tls: Some(self.tls()) }
    }

    fn token(&self, name: &str, role: Role) -> Token {
        let valid = Duration::from_secs(60);
        pki::issue_token(&self.dir, &Offer { name, role, valid, days: 30, by: "uid 0" }).unwrap()
    }

    fn token_file(&self, token: &Token) -> PathBuf {
        let path = self.host.join("token");
        fs::write(&path, format!("{token}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    async fn run(&self, program: &'static str, line: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(program);
        command.args(line).current_dir(&self.host).stdin(Stdio::null()).env_remove("RUST_LOG");
        let tls = self.tls();
        command.env("SEKIMORI_COLLECTOR", self.url());
        for (name, path) in
            [("SEKIMORI_CA", tls.ca), ("SEKIMORI_CERT", tls.cert), ("SEKIMORI_KEY", tls.key)]
        {
            command.env(name, path);
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

fn spool(directory: &Path) -> SharedSpool {
    SharedSpool::new(Spool::open(directory, SpoolConfig::default()).unwrap().0)
}

fn fill(spool: &SharedSpool, events: usize) {
    for _ in 0..events {
        let event = Event { kind: Kind::Exec.into(), ..Event::default() };
        spool.append(Lane::Telemetry, &event).unwrap();
    }
    spool.flush(1).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_enrols_delivers_renews_and_goes_on() {
    let world = World::new().await;
    let path = world.token_file(&world.token("desk-12", Role::Agent));
    let line = ["enroll", "--config", "agent.yaml", "--token-file", path.to_str().unwrap()];
    let (code, out, err) = world.run(AGENT, &line).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("enrolled as agent desk-12; the certificate is "), "{out}");
    let tls = world.tls();
    assert_eq!(fs::metadata(&tls.key).unwrap().permissions().mode() & 0o777, 0o600);
    // Once more: nothing is overwritten, and a used token is good for nothing.
    let (code, _, err) = world.run(AGENT, &line).await;
    assert_eq!(code, Some(64));
    assert!(err.contains("is there already"), "{err}");
    let key = fs::read(&tls.key).unwrap();
    let (code, _, err) = world.run(AGENT, &[&line[..], &["--replace"]].concat()).await;
    assert_eq!(code, Some(77), "{err}");
    assert!(err.contains("unknown, was used before, or is out of date"), "{err}");
    assert_eq!(fs::read(&tls.key).unwrap(), key, "the old pair stays");

    let spool = spool(&world.host.join("spool"));
    let (states, state) = watch::channel(None);
    let (renewals, renewed) = watch::channel(());
    let shipper =
        Shipper::start(world.target(), spool.clone(), News { state, renewed, ..News::default() });
    let said =
        HostState {
            policy: "持出し禁止".into(), kernel: "6.12.1".into(), ..HostState::default()
        };
    states.send_replace(Some(said));
    fill(&spool, 100);
    let mut status = shipper.status();
    let wait = status.wait_for(|status| status.acknowledged == 100);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();

    let connection = channel(&world.target(), &Peers::default()).await.unwrap();
    credentials::renew_over(connection, &tls).await.unwrap();
    assert_ne!(fs::read(&tls.key).unwrap(), key, "a new key");
    renewals.send_replace(());
    let wait = status.wait_for(|status| status.connections == 2);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    fill(&spool, 100);
    assert_eq!(shipper.drain(PATIENCE).await.acknowledged, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_collector_is_told_nothing() {
    let world = World::new().await;
    let good = world.token("desk-12", Role::Agent);
    let path = world.token_file(&Token { authority: [7; 32], ..good.clone() });
    let line = ["enroll", "--config", "agent.yaml", "--token-file", path.to_str().unwrap()];
    let (code, _, err) = world.run(AGENT, &line).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("the authority that the token names"), "{err}");
    assert!(!err.contains(good.to_string().split('-').nth(2).unwrap()), "no secret: {err}");
    assert!(!world.tls().key.exists() && !world.host.join("tls/key.pem.next").exists());
    // A host that is not in the certificate is none either.
    let path = world.token_file(&good);
    let other = world.url().replace("localhost", "127.0.0.2");
    let line = ["--collector", other.as_str(), "--token-file", path.to_str().unwrap()];
    let (code, _, err) =
        world.run(AGENT, &[&["enroll", "--config", "agent.yaml"], &line[..]].concat()).await;
    assert_eq!(code, Some(1), "{err}");
    // The token is as good as before.
    let line = ["enroll", "--config", "agent.yaml", "--token-file", path.to_str().unwrap()];
    let (code, _, err) = world.run(AGENT, &line).await;
    assert_eq!(code, Some(0), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_enrols_asks_and_renews_by_asking() {
    let world = World::new().await;
    let path = world.token_file(&world.token("hanako", Role::Operator(Rank::Viewer)));
    let (code, out, err) =
        world.run(SEKIMORI, &["enroll", "--token-file", path.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("enrolled as viewer hanako"), "{out}");
    let (code, out, err) = world.run(SEKIMORI, &["fleet"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "no host delivered or enrolled yet\n"), "{err}");
    // One that is nearly at its end.
    let tls = world.tls();
    let out = world.host.join("short");
    let role = Role::Operator(Rank::Viewer);
    pki::enroll_for(&world.dir, "hanako", role, Life { seconds: 600 }, Some(&out)).unwrap();
    for (from, to) in [("cert.pem", &tls.cert), ("key.pem", &tls.key)] {
        fs::copy(out.join(from), to).unwrap();
    }
    let before = fs::read(&tls.cert).unwrap();
    let (code, _, err) = world.run(SEKIMORI, &["fleet"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_ne!(fs::read(&tls.cert).unwrap(), before, "it was renewed");
    let (code, _, err) = world.run(SEKIMORI, &["fleet", "--json"]).await;
    assert_eq!(code, Some(0), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_shown() {
    let world = World::new().await;
    for (name, role) in [("desk-12", Role::Agent), ("taro", Role::Operator(Rank::Viewer))] {
        let out =
            if role == Role::Agent { world.host.join("agent") } else { world.host.join("tls") };
        pki::enroll(&world.dir, name, role, Some(&out)).unwrap();
    }
    let path = |name: &str| world.host.join("agent").join(name);
    let (ca, cert, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let tls = Some(Tls { ca, cert, key, server_name: None });
    let said = HostState {
        version: "0.1.0".into(),
        policy: "持出し禁止".into(),
        mode: "enforce".into(),
        ..HostState::default()
    };
    let (_states, state) = watch::channel(Some(said));
    let news = News { state, ..News::default() };
    let spool = spool(&world.host.join("spool"));
    fill(&spool, 10);
    let shipper = Shipper::start(Target { tls, ..world.target() }, spool, news);
    let mut status = shipper.status();
    let wait = status.wait_for(|status| status.acknowledged == 10);
    tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
    let (code, out, err) = world.run(SEKIMORI, &["fleet"]).await;
    assert_eq!(code, Some(0), "{err}");
    for part in ["desk-12", "there", "持出し禁止", "enforce", "824 days"] {
        assert!(out.contains(part), "{part} is not in {out}");
    }
    let (_, out, _) = world.run(SEKIMORI, &["fleet", "desk-12", "--json"]).await;
    assert!(
        out.contains("\"connected\":true") && out.contains("\"policy\":\"持出し禁止\""),
        "{out}"
    );
}
