//! QEMU's machine protocol, as far as plugging sticks needs it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer, and the guest to let go of a device.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// QEMU's name of the card slot.
pub const CARD: &str = "card";

/// A session with one QEMU.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    events: Vec<Value>,
}

impl Qmp {
    /// Reads the greeting and opens the session.
    ///
    /// # Errors
    /// When the other side does not speak the protocol.
    pub fn open(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut session = Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
            events: Vec::new(),
        };
        let greeting = session.read()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greets with {greeting}");
        }
        session.execute("qmp_capabilities", json!({}))?;
        Ok(session)
    }

    /// Plugs a stick whose image exists.
    ///
    /// # Errors
    /// When QEMU refuses, for instance because the stick is plugged already.
    pub fn plug(&mut self, serial: &str, image: &Path) -> Result<()> {
        self.execute("blockdev-add", blockdev(serial, image))?;
        let device = json!({
            "driver": "usb-storage", "bus": "usb.0", "id": device_id(serial),
            "drive": node_name(serial), "serial": serial, "removable": true,
        });
        let Err(error) = self.execute("device_add", device) else {
            return Ok(());
        };
        let _ = self.execute("blockdev-del", json!({ "node-name": node_name(serial) }));
        Err(error)
    }

    /// Unplugs a stick, and returns when the guest no longer has it.
    ///
    /// # Errors
    /// When no such stick is plugged or the guest does not let go in time.
    pub fn unplug(&mut self, serial: &str) -> Result<()> {
        self.execute("device_del", json!({ "id": device_id(serial) }))?;
        self.wait_until_deleted(&device_id(serial))?;
        self.execute("blockdev-del", json!({ "node-name": node_name(serial) }))?;
        Ok(())
    }

    /// Puts a card, whose image exists, into the slot.
    ///
    /// # Errors
    /// When there is one in it.
    pub fn insert(&mut self, serial: &str, image: &Path) -> Result<()> {
        self.execute("blockdev-add", blockdev(serial, image))?;
        let medium = json!({ "id": CARD, "node-name": node_name(serial) });
        self.execute("blockdev-insert-medium", medium).map(drop)
    }

    /// Takes the card out of the slot.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn eject(&mut self, serial: &str) -> Result<()> {
        self.execute("blockdev-remove-medium", json!({ "id": CARD }))?;
        self.execute("blockdev-del", json!({ "node-name": node_name(serial) })).map(drop)
    }

    /// Connects a phone that shows a directory by MTP.
    ///
    /// # Errors
    /// When QEMU refuses, for instance because it is connected already.
    pub fn connect(&mut self, serial: &str, files: &Path) -> Result<()> {
        let device = json!({
            "driver": "usb-mtp", "bus": "usb.0", "id": device_id(serial), "serial": serial,
            "rootdir": files.display().to_string(), "readonly": false,
        });
        self.execute("device_add", device).map(drop)
    }

    /// Takes a phone away, and returns when the guest no longer has it.
    ///
    /// # Errors
    /// When no such phone is connected or the guest does not let go in time.
    pub fn disconnect(&mut self, serial: &str) -> Result<()> {
        self.execute("device_del", json!({ "id": device_id(serial) }))?;
        self.wait_until_deleted(&device_id(serial))
    }

    fn wait_until_deleted(&mut self, device: &str) -> Result<()> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let about = |event: &Value| {
                event.get("event").and_then(Value::as_str) == Some("DEVICE_DELETED")
                    && event.pointer("/data/device").and_then(Value::as_str) == Some(device)
            };
            if let Some(at) = self.events.iter().position(about) {
                self.events.remove(at);
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the guest did not let go of {device}");
            }
            let message = self.read()?;
            self.events.push(message);
        }
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{request}").context("QEMU is gone")?;
        loop {
            let message = self.read()?;
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = message.pointer("/error/desc").and_then(Value::as_str) {
                bail!("{command}: {error}");
            }
            self.events.push(message);
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("QEMU does not answer")? == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU sent {line:?}"))
    }
}

/// The block device behind a stick. Flushes are not passed on: the image lives for one run.
#[must_use]
pub fn blockdev(serial: &str, image: &Path) -> Value {
    json!({
        "driver": "raw",
        "node-name": node_name(serial),
        "cache": { "no-flush": true },
        "file": { "driver": "file", "filename": image.display().to_string() },
    })
}

/// QEMU's name of the stick as a USB device.
#[must_use]
pub fn device_id(serial: &str) -> String {
    format!("stick-{serial}")
}

/// QEMU's name of the stick's block device; at most 31 bytes are allowed, so the serial is hashed
/// when it is long.
#[must_use]
pub fn node_name(serial: &str) -> String {
    const SERIAL_BYTES_MAX: usize = 24;
    if serial.len() <= SERIAL_BYTES_MAX {
        return format!("drive-{serial}");
    }
    let hash = serial.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("drive-{hash:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use super::{Qmp, node_name};

    #[test]
    fn events_between_answers_are_kept_and_errors_are_told() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs).lines().map_while(Result::ok);
            let mut said = Vec::new();
            let _ = writeln!(writer, "{{\"QMP\": {{}}}}");
            for answer in [
                "{\"return\": {}}",
                "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"stick-S\"}}\n{\"return\": {}}",
                "{\"return\": {}}",
                "{\"error\": {\"desc\": \"no such file\"}}",
            ] {
                said.extend(lines.next());
                let _ = writeln!(writer, "{answer}");
            }
            said
        });
        let mut session = Qmp::open(ours).unwrap();
        assert!(session.unplug("S").is_ok());
        let refusal = session.plug("S", Path::new("/x")).unwrap_err().to_string();
        assert_eq!(refusal, "blockdev-add: no such file");
        let said = qemu.join().unwrap_or_default();
        let commands: Vec<_> = said.iter().filter_map(|line| line.split('"').nth(3)).collect();
        assert_eq!(commands, ["qmp_capabilities", "device_del", "blockdev-del", "blockdev-add"]);
    }

    #[test]
    fn node_names_fit_and_differ() {
        let long = "A".repeat(32);
        assert!(node_name(&long).len() <= 31);
        assert_ne!(node_name(&long), node_name(&"B".repeat(32)));
        assert_eq!(node_name("SEKI0001"), "drive-SEKI0001");
    }
}
