//! Archives in a bucket of a server that shares no code with ours, checks signatures and can be cut
//! off in the middle of an upload.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _};
use sekimori_proto::v1::{Event, Process};
use serde_json::Value;

use super::{PROGRAM, SEALED, ask, event, sealed, sealed_with, told};
use crate::nats::{Program, cached, free_ports};
use crate::support::Pki;

const BUCKET: &str = "records";
const PLACE: &str = "s3://records/sekimori/東京";
const MANIFEST: &str = "manifest.jsonl";
/// What README says that is enough.
const ALLOWED: [&str; 4] =
    ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"];
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one bucket, and one user of it.
struct S3 {
    _server: Program,
    address: SocketAddr,
    id: String,
    secret: String,
}

impl S3 {
    /// What it is asked first needs no credentials: a user with a key, and the bucket.
    async fn start() -> S3 {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [port] = free_ports();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = Command::new(cached("s3-server/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", "4");
        command.stderr(Stdio::null());
        let server = Program::new(command);
        wait(|| TcpStream::connect(address).is_ok());
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": ALLOWED, "Resource": "*" }],
        });
        let policy = policy.to_string();
        let policy = url::form_urlencoded::byte_serialize(policy.as_bytes()).collect::<String>();
        iam(address, "Action=CreateUser&UserName=archive").await;
        let put = "Action=PutUserPolicy&UserName=archive&PolicyName=archive&PolicyDocument=";
        iam(address, &format!("{put}{policy}")).await;
        let key = iam(address, "Action=CreateAccessKey&UserName=archive").await;
        let bucket = reqwest::Client::new().put(format!("http://{address}/{BUCKET}"));
        let made = bucket.header("Authorization", unsigned("s3")).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
        let element = |name: &str| {
            let (_, rest) = key.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let (id, secret) = (element("AccessKeyId"), element("SecretAccessKey"));
        S3 { _server: server, address, id, secret }
    }

    fn credentials(&self, dir: &Path) -> PathBuf {
        credentials(dir, &self.id, &self.secret)
    }

    fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", self.address))
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_bucket_name(BUCKET)
            .with_access_key_id(&self.id)
            .with_secret_access_key(&self.secret)
            .build()
            .unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let found = self.client().list(None).try_collect::<Vec<_>>().await.unwrap();
        let mut names: Vec<String> = found.iter().map(|it| it.location.to_string()).collect();
        names.sort();
        names
    }

    async fn download(&self, name: &str, to: &Path) -> Vec<u8> {
        let bytes = self.client().get(&key(name)).await.unwrap().bytes().await.unwrap();
        fs::write(to, &bytes).unwrap();
        bytes.to_vec()
    }
}

fn key(name: &str) -> Key {
    Key::parse(format!("sekimori/東京/{name}")).unwrap()
}

fn credentials(dir: &Path, id: &str, secret: &str) -> PathBuf {
    let path = dir.join("s3.yaml");
    fs::write(&path, format!("access_key_id: {id}\nsecret_access_key: {secret}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// What the server tells the service by, while it asks for no more.
fn unsigned(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=none/20260101/us-east-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=none"
    )
}

async fn iam(address: SocketAddr, action: &str) -> String {
    let request = reqwest::Client::new()
        .post(format!("http://{address}/"))
        .header("Authorization", unsigned("iam"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("{action}&Version=2010-05-08"));
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    text
}

fn wait(mut until: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A way to the server that ends after so many bytes.
struct Way {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Way {
    fn to(server: SocketAddr, bytes_max: u64) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let way = Way { address, sent: Arc::clone(&sent) };
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if sent.load(Ordering::SeqCst) > bytes_max {
                    continue;
                }
                let Ok(server) = TcpStream::connect(server) else { return };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let sent = Arc::clone(&sent);
                thread::spawn(move || {
                    copy(from, to, |bytes| {
                        sent.fetch_add(bytes, Ordering::SeqCst) + bytes <= bytes_max
                    })
                });
                thread::spawn(move || copy(server, client, |_| true));
            }
        });
        way
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(u64) -> bool) {
    let mut buffer = [0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !goes_on(count as u64) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn command(pki: &Pki, place: &str, endpoint: SocketAddr) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("archive").arg("--dir").arg(&pki.dir).args(["--to", place]);
    command.arg("--s3-endpoint").arg(format!("http://{endpoint}"));
    // Nothing of whoever runs the tests; and no proxy gets what goes to this machine.
    for (name, _) in std::env::vars_os().filter(|(it, _)| it.to_string_lossy().starts_with("AWS_"))
    {
        command.env_remove(name);
    }
    command.env("HTTP_PROXY", "http://192.0.2.1:1").env("http_proxy", "http://192.0.2.1:1");
    command
}

fn run(pki: &Pki, place: &str, endpoint: SocketAddr, credentials: &Path) -> Output {
    command(pki, place, endpoint).arg("--s3-credentials").arg(credentials).output().unwrap()
}

/// An event that nothing compresses.
fn large(sequence: u64) -> Event {
    let mut random = fastrand::Rng::with_seed(sequence);
    let argv = vec![(0..16 << 10).map(|_| random.u8(..)).collect()];
    Event { process: Some(Process { argv, ..Process::default() }), ..event(sequence) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_half_way_leaves_nothing_and_the_next_one_brings_it() {
    const HALF_WAY: u64 = 20 << 20;

    let server = sealed_with(1200, large).await;
    let s3 = S3::start().await;
    let dir = tempfile::tempdir().unwrap();
    let credentials = s3.credentials(dir.path());
    // Killed while the second part is on its way.
    let way = Way::to(s3.address, u64::MAX);
    let mut killed = command(&server.pki, PLACE, way.address);
    killed.arg("--s3-credentials").arg(&credentials).env("TMPDIR", dir.path());
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait(|| way.sent.load(Ordering::SeqCst) > HALF_WAY);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success());
    assert_eq!(s3.names().await, [""; 0]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the credentials alone");
    // The server is gone at the same place.
    let way = Way::to(s3.address, HALF_WAY);
    let failed = run(&server.pki, PLACE, way.address, &credentials);
    assert_eq!(failed.status.code(), Some(1), "{}", told(&failed));
    let says = format!("archive {PLACE}: {SEALED}.parquet: ");
    assert!(told(&failed).contains(&says), "{}", told(&failed));
    assert!(told(&failed).contains("the command can be repeated"), "{}", told(&failed));
    assert!(!told(&failed).contains(&s3.secret), "{}", told(&failed));
    assert_eq!(s3.names().await, [""; 0]);

    let output = run(&server.pki, PLACE, s3.address, &credentials);
    assert!(output.status.success(), "{}", told(&output));
    let file = format!("{SEALED}.parquet");
    let names = [key(&file).to_string(), key(MANIFEST).to_string()];
    assert_eq!(s3.names().await, names);
    let text = s3.download(MANIFEST, &dir.path().join(MANIFEST)).await;
    let line: Value = serde_json::from_slice(&text).unwrap();
    let copy = dir.path().join(&file);
    let bytes = s3.download(&file, &copy).await;
    assert!(bytes.len() as u64 > 2 * HALF_WAY, "{}", bytes.len());
    assert_eq!((&line["file"], &line["bytes"]), (&file.into(), &bytes.len().into()));
    let found = ask(&[copy]);
    assert_eq!(found["rows"], line["rows"]);
    let events = found["events"].as_array().unwrap();
    let of_agent: Vec<_> = events.iter().filter(|row| row[1] == "pc-1").collect();
    assert_eq!(of_agent.len(), 1200);
    for (row, sequence) in of_agent.iter().zip(1..) {
        let sent = prost::Message::encode_to_vec(&large(sequence));
        let sent: String = sent.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(row[2] == sent, "event {sequence}");
    }
    let again = run(&server.pki, PLACE, s3.address, &credentials);
    let says = "0 files written with 0 events and 0 bytes, 1 were there";
    assert!(told(&again).contains(says), "{}", told(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_any_more_is_written_again() {
    let server = sealed(500).await;
    let s3 = S3::start().await;
    let file = format!("{SEALED}.parquet");
    for expected in ["1 files written", "0 files written", "1 files written"] {
        let mut command = command(&server.pki, PLACE, s3.address);
        command.env("AWS_ACCESS_KEY_ID", &s3.id).env("AWS_SECRET_ACCESS_KEY", &s3.secret);
        let output = command.output().unwrap();
        assert!(told(&output).contains(expected), "{}", told(&output));
        if expected.starts_with('0') {
            s3.client().put(&key(&file), "PAR1".into()).await.unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let text = s3.download(MANIFEST, &dir.path().join(MANIFEST)).await;
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let copy = dir.path().join(&file);
    assert_eq!(s3.download(&file, &copy).await.len(), lines[1]["bytes"]);
    assert!(ask(&[copy])["rows"].as_u64().unwrap() >= 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_without_the_secret() {
    let server = sealed(10).await;
    let s3 = S3::start().await;
    let dir = tempfile::tempdir().unwrap();
    let good = s3.credentials(dir.path());
    let missing = run(&server.pki, "s3://no-such-bucket/a", s3.address, &good);
    assert_eq!(missing.status.code(), Some(64), "{}", told(&missing));
    assert!(told(&missing).contains("there is no such bucket; make it"), "{}", told(&missing));
    let wrong = "0123456789wrongSecretOfNobody";
    for (id, why) in
        [(s3.id.as_str(), "SignatureDoesNotMatch"), ("AKIANOBODY", "InvalidAccessKeyId")]
    {
        let bad = credentials(dir.path(), id, wrong);
        let refused = run(&server.pki, PLACE, s3.address, &bad);
        let text = told(&refused);
        assert_eq!(refused.status.code(), Some(77), "{text}");
        assert!(text.contains(why) && text.contains("look at the credentials"), "{text}");
        assert!(!text.contains(wrong) && !text.contains(id), "{text}");
    }
    let none = command(&server.pki, PLACE, s3.address).output().unwrap();
    assert_eq!(none.status.code(), Some(64), "{}", told(&none));
    assert!(told(&none).contains("no credentials: name a file"), "{}", told(&none));
    let mut clear = command(&server.pki, PLACE, "192.0.2.1:80".parse().unwrap());
    let clear = clear.arg("--s3-credentials").arg(&good).output().unwrap();
    assert_eq!(clear.status.code(), Some(64), "{}", told(&clear));
    assert!(told(&clear).contains("http:// only to 127.0.0.1"), "{}", told(&clear));
    let directory = command(&server.pki, "archive", s3.address).output().unwrap();
    assert_eq!(directory.status.code(), Some(64), "{}", told(&directory));
    assert_eq!(s3.names().await, [""; 0]);
}
