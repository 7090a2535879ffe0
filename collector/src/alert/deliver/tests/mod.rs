#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod config;
mod egress;
mod mail;
mod servers;
mod syslog;
mod webhook;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// For tries that cannot end otherwise.
const SHORT: Duration = Duration::from_millis(300);

fn notice() -> Notice {
    Notice {
        id: "01JD-7".to_owned(),
        severity: Severity::High,
        rule: "secret-to-usb".to_owned(),
        title: "機密.xlsx が USB に書かれた".to_owned(),
        text: "host: h1\nuser: 山田".to_owned(),
        json: json!({"host": "h1", "id": "forged", "events": [1, 2]}),
        time_ns: 1_764_282_297_123_456_789,
    }
}

/// Text that tries to leave its field in each of the protocols.
fn forged() -> Notice {
    Notice {
        id: "a\"] <0>1\r\n.\r\n".to_owned(),
        rule: "r\"] [x@1 y=\"\\\nz".to_owned(),
        title: "機密\r\nBcc: evil@example.org\n<13>1 - - - - - - forged\u{1b}[2J".to_owned(),
        text: "one\r\n.\r\nMAIL FROM:<evil@example.org>\n<13>1 - - - - - - forged".to_owned(),
        ..notice()
    }
}

fn secret(dir: &Path, name: &str, content: &str, mode: u32) {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory with a password and a key, `password` and `key`.
fn base() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    secret(dir.path(), "password", "correct horse\n", 0o600);
    secret(dir.path(), "key", "0123456789abcdef\n", 0o640);
    dir
}

fn endpoint(config: Value, egress: &[&str], base: &Path) -> Result<Endpoint, String> {
    let config: EndpointConfig = serde_json::from_value(config).map_err(|it| it.to_string())?;
    let egress = Egress::new(egress).unwrap();
    Endpoint::new(&config, &egress, base).map_err(|it| it.to_string())
}
