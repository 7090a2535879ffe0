//! Policies from a real collector on loopback, with the programs as people run them.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use sekimori_agent::config::{Collector as Target, Tls};
use sekimori_agent::ship::{News, Shipper};
use sekimori_agent::spool::{SharedSpool, Spool, SpoolConfig};
use sekimori_collector::config::Config;
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki::{self, Offer};
use sekimori_collector::server::Collector;
use sekimori_policy::bundle;
use sekimori_proto::v1::HostState;
use tempfile::TempDir;
use tokio::sync::watch;

const SEKIMORI: &str = env!("CARGO_BIN_EXE_sekimori");
const AGENT: &str = env!("CARGO_BIN_EXE_sekimori-agent");
const PATIENCE: Duration = Duration::from_secs(30);
const POLICY: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: head-office }
mode: enforce
rules:
  - { id: no-usb, on: usb.write, action: deny }
";

/// A collector that runs, an admin, and a host beside it.
struct World {
    _temporary: TempDir,
    dir: PathBuf,
    host: PathBuf,
    address: SocketAddr,
}

impl World {
    async fn new() -> World {
        let temporary = tempfile::tempdir().unwrap();
        let (dir, host) = (temporary.path().join("collector"), temporary.path().join("host"));
        pki::init(&dir, &[]).unwrap();
        fs::create_dir(&host).unwrap();
        pki::enroll(&dir, "jiro", Role::Operator(Rank::Admin), Some(&host.join("admin"))).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let collector =
            Collector::bind(&Config::new(dir.clone(), listen, None, None)).await.unwrap();
        let address = collector.address();
        tokio::spawn(collector.serve());
        fs::write(host.join("policy.yaml"), POLICY).unwrap();
        World { _temporary: temporary, dir, host, address }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn tls(&self, of: &str) -> Tls {
        let path = |name: &str| self.host.join(of).join(name);
        Tls { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem"), server_name: None }
    }

    /// Runs a program as the admin.
    async fn run(&self, program: &'static str, line: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(program);
        command.args(line).current_dir(&self.host).stdin(Stdio::null()).env_remove("RUST_LOG");
        let tls = self.tls("admin");
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

    /// Enrols the host `desk-12`.
    async fn enroll(&self, more: &[&str]) -> (Option<i32>, String) {
        let tls = self.tls("tls");
        let text = format!(
            "policy: policy.yaml\npolicy_from: collector\ncollector:\n  address: {}\n  ca: {}\n  \
             cert: {}\n  key: {}\n",
            self.url(),
            tls.ca.display(),
            tls.cert.display(),
            tls.key.display(),
        );
        fs::write(self.host.join("agent.yaml"), text).unwrap();
        let valid = Duration::from_secs(60);
        let offer = Offer { name: "desk-12", role: Role::Agent, valid, days: 30, by: "uid 0" };
        let token = pki::issue_token(&self.dir, &offer).unwrap();
        let path = self.host.join("token");
        let _ = fs::remove_file(&path);
        fs::write(&path, format!("{token}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let line = ["enroll", "--config", "agent.yaml", "--token-file", "token"];
        let (code, _, err) = self.run(AGENT, &[&line[..], more].concat()).await;
        (code, err)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_comes_with_the_enrolment_and_stays() {
    let world = World::new().await;
    let (code, err) = world.enroll(&[]).await;
    assert_eq!(code, Some(0), "{err}");
    let pinned = world.host.join("tls/policy.pub");
    let own = fs::read_to_string(world.dir.join("policy.pub")).unwrap();
    assert_eq!(fs::read_to_string(&pinned).unwrap(), own);
    // One that somebody put there is not replaced without being asked.
    let other = bundle::key_text(&[7; 32]);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::remove_file(world.host.join("tls").join(name)).unwrap();
    }
    fs::write(&pinned, &other).unwrap();
    let (code, err) = world.enroll(&[]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("another key of policies"), "{err}");
    assert_eq!(fs::read_to_string(&pinned).unwrap(), other);
    let (code, err) = world.enroll(&["--replace"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(fs::read_to_string(&pinned).unwrap(), own);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_puts_reaches_the_agent_that_asks_for_it() {
    let world = World::new().await;
    let (code, err) = world.enroll(&[]).await;
    assert_eq!(code, Some(0), "{err}");
    let (states, state) = watch::channel(Some(HostState::default()));
    let (policies, mut offered) = watch::channel(None);
    let news = News { state, policies, ..News::default() };
    let (spool, _) = Spool::open(&world.host.join("spool"), SpoolConfig::default()).unwrap();
    let target = Target { address: world.url().parse().unwrap(), tls: Some(world.tls("tls")) };
    let _shipper = Shipper::start(target, SharedSpool::new(spool), news);

    let line = ["policy", "put", "policy.yaml", "--reason", "規則", "--hosts", "desk-*"];
    let (code, out, err) = world.run(SEKIMORI, &line).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("head-office is epoch 1, for 0 of the hosts"), "{out}");
    let taking = HostState { policy_from_collector: true, ..HostState::default() };
    states.send_replace(Some(taking.clone()));
    let wait = offered.wait_for(Option::is_some);
    let bundle = tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap().clone().unwrap();
    let key = fs::read_to_string(world.host.join("tls/policy.pub")).unwrap();
    let key = bundle::key_of(&key).unwrap();
    let (statement, text) = bundle::accept(&bundle, &key, "desk-12", 0).unwrap();
    assert_eq!((statement.reason.as_str(), text.as_slice()), ("規則", POLICY.as_bytes()));

    states.send_replace(Some(HostState { policy_epoch: 1, ..taking }));
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (code, out, err) = world.run(SEKIMORI, &["policy", "rollout", "1", "--json"]).await;
        assert_eq!(code, Some(0), "{err}");
        if out.contains("\"running\":1") && out.contains("\"wanted\":1") {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{out}");
    }
    let (_, out, _) = world.run(SEKIMORI, &["policy", "rollout", "1"]).await;
    assert!(out.contains("desk-12 running") && out.contains("desk-*"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_what_is_wrong() {
    let world = World::new().await;
    let bad = POLICY.replace("usb.write", "usb.wrote");
    fs::write(world.host.join("bad.yaml"), bad).unwrap();
    let line = ["policy", "put", "bad.yaml", "--reason", "a mistake"];
    let (code, out, err) = world.run(SEKIMORI, &line).await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.contains("bad.yaml:6:23: error:") && err.contains("usb.wrote"), "{err}");
    let (code, _, err) = world.run(SEKIMORI, &["policy", "replay", "bad.yaml"]).await;
    assert_eq!(code, Some(2), "{err}");
    let (code, out, _) = world.run(SEKIMORI, &["policy", "rollout"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "no policy was given to the hosts yet\n"));
    let (code, _, err) = world.run(SEKIMORI, &["policy", "rollout", "--percent", "50"]).await;
    assert_eq!(code, Some(64));
    assert!(err.contains("--reason"), "{err}");
    let line = ["policy", "rollback", "9", "--reason", "back"];
    let (code, _, err) = world.run(SEKIMORI, &line).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("no version of this epoch"), "{err}");
    let line = ["policy", "put", "policy.yaml", "--reason", "r", "--canary", "10", "--json"];
    let (code, out, err) = world.run(SEKIMORI, &line).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"epoch\":1"), "{out}");
    let line = ["policy", "rollout", "--percent", "50", "--reason", "good"];
    let (code, out, err) = world.run(SEKIMORI, &line).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("admin jiro") && out.contains(" 50 "), "{out}");
    let line = ["policy", "rollback", "1", "--reason", "back"];
    let (code, out, err) = world.run(SEKIMORI, &line).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("is epoch 2"), "{out}");
    let (code, out, err) = world.run(SEKIMORI, &["policy", "replay", "policy.yaml"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("0 stored operations"), "{out}");
}
