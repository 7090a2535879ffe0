//! Commands over a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rstest::rstest;
use tokio::sync::mpsc;

use super::*;
use crate::limits::CONTROL_REQUEST_BYTES_MAX;

/// An agent that answers `reload` only.
fn agent(directory: &Path) -> PathBuf {
    let path = directory.join("run/agent.sock");
    let listener = bind(&path).unwrap();
    let (commands, mut asked) = mpsc::channel::<Command>(1);
    tokio::spawn(serve(listener, commands));
    tokio::spawn(async move {
        while let Some(command) = asked.recv().await {
            let ok = command.request == Request::Reload;
            let message = format!("{:?}", command.request);
            command.answer.send(Answer { ok, message, ..Answer::default() }).unwrap();
        }
    });
    path
}

async fn raw_exchange(path: PathBuf, text: Vec<u8>) -> String {
    let exchange = move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(&text).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test]
async fn a_command_gets_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = agent(directory.path());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let asked = tokio::task::spawn_blocking(move || {
        (ask(&path, Request::Reload).unwrap(), ask(&path, Request::Status).unwrap())
    });
    let (reload, status) = asked.await.unwrap();
    assert_eq!((reload.ok, reload.message.as_str()), (true, "Reload"));
    assert_eq!((status.ok, status.message.as_str()), (false, "Status"));
}

#[rstest]
#[case::garbage(b"\xff\0garbage\n".to_vec(), "not a request")]
#[case::unknown(b"{\"command\":\"format\"}\n".to_vec(), "unknown variant `format`")]
#[case::empty(Vec::new(), "not a request")]
#[case::too_long(vec![b' '; CONTROL_REQUEST_BYTES_MAX + 1], "at most 4096 bytes")]
#[tokio::test]
async fn bad_requests_are_refused_with_the_reason(#[case] text: Vec<u8>, #[case] reason: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = agent(directory.path());
    let answer: Answer = serde_json::from_str(&raw_exchange(path.clone(), text).await).unwrap();
    assert!(!answer.ok);
    assert!(answer.message.contains(reason), "{}", answer.message);
    let again = raw_exchange(path, b"{\"command\":\"reload\"}\n".to_vec()).await;
    assert!(again.contains("\"ok\":true"), "{again}");
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced_and_one_in_use_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    let listener = bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(ControlError::InUse { .. })));
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(bind(&path), Err(ControlError::Bind { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn without_an_agent_the_error_says_what_to_do() {
    let error = ask(Path::new("/nonexistent/agent.sock"), Request::Status).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nonexistent/agent.sock") && text.contains("is sekimori-agent running"));
}
