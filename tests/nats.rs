//! A cluster of three NATS servers on loopback, for the tests of the bus and for its measurement.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// What `cargo xtask setup` put there below the cache.
pub fn cached(path: &str) -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let cache = of("SEKIMORI_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|it| it.join("sekimori")))
        .unwrap_or_else(|| of("HOME").unwrap().join(".cache/sekimori"));
    let path = cache.join(path);
    assert!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    path
}

/// Ports that were free a moment ago.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

/// A program that is killed when the test ends however it ends.
pub struct Program {
    command: Command,
    child: Option<Child>,
}

impl Program {
    /// Runs it.
    pub fn new(command: Command) -> Program {
        let mut program = Program { command, child: None };
        program.start();
        program
    }

    /// Runs it again.
    pub fn start(&mut self) {
        let child = self.command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three servers that know each other, and whoever comes, by certificates of an authority of their
/// own.
pub struct Cluster {
    /// Everything is in it.
    pub dir: TempDir,
    /// The servers.
    pub nodes: Vec<Program>,
    ports: [u16; 3],
}

impl Cluster {
    /// Starts them, each with its store below `place`, and waits for nothing.
    pub fn start(place: &Path) -> Cluster {
        let dir = tempfile::tempdir_in(place).unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "bus");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for name in ["node", "collector"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let signed = params.signed_by(&key, &ca).unwrap();
            fs::write(dir.path().join(format!("{name}.pem")), signed.pem()).unwrap();
            fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let ports = free_ports::<3>();
        let routes = free_ports::<3>();
        let nodes = (0..3).map(|index| {
            let path = dir.path().join(format!("{index}.conf"));
            fs::write(&path, configuration(dir.path(), index, &ports, &routes)).unwrap();
            let mut command = Command::new(cached("nats/usr/sbin/nats-server"));
            command.arg("--config").arg(path).stderr(Stdio::null());
            Program::new(command)
        });
        let nodes = nodes.collect();
        Cluster { dir, nodes, ports }
    }

    /// Where the servers are.
    pub fn servers(&self) -> [String; 3] {
        self.ports.map(|port| format!("tls://127.0.0.1:{port}"))
    }

    /// `bus.yaml` of a collector.
    pub fn bus(&self, name: &str) -> String {
        let (dir, servers) = (self.dir.path().display(), self.servers());
        format!(
            "version: sekimori/bus/v1\nbus: nats\nservers: {servers:?}\nca: {dir}/ca.pem\n\
             certificate: {dir}/collector.pem\nkey: {dir}/collector.key\nname: {name}\n"
        )
    }
}

fn configuration(dir: &Path, index: usize, ports: &[u16; 3], routes: &[u16; 3]) -> String {
    let dir = dir.display();
    let tls = format!(
        "tls {{ cert_file: \"{dir}/node.pem\", key_file: \"{dir}/node.key\", \
         ca_file: \"{dir}/ca.pem\", verify: true }}"
    );
    let others = routes.map(|port| format!("nats-route://127.0.0.1:{port}"));
    let (port, route) = (ports[index], routes[index]);
    format!(
        "server_name: n{index}\nlisten: 127.0.0.1:{port}\n{tls}\n\
         jetstream {{ store_dir: \"{dir}/{index}\", max_file: 1GB, max_mem: 64MB }}\n\
         cluster {{ name: sekimori, listen: 127.0.0.1:{route}, routes: {others:?}, {tls} }}\n"
    )
}
