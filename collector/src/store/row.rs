//! An event as a row, and back.

use prost::Message as _;
use rusqlite::{Row as SqlRow, Statement, params};
use sekimori_proto::v1::Event;

use crate::identity::Agent;

/// An event made ready for the writer: everything that costs time is done here, outside its thread.
#[derive(Debug)]
pub struct Row {
    boot: Vec<u8>,
    sequence: i64,
    /// UTC, ns since 1970.
    pub time_ns: i64,
    kind: i32,
    verdict: i32,
    user: String,
    login_user: String,
    rule: String,
    text: Vec<u8>,
    body: Vec<u8>,
    /// Events that this one says were lost.
    pub lost: i64,
}

impl Row {
    /// The host is the agent's, whatever the event says.
    pub fn new(agent: &Agent, mut event: Event) -> Row {
        agent.name().clone_into(&mut event.host);
        event.cursor = 0;
        let (user, login_user) = match &event.process {
            Some(process) => (process.user.clone(), process.login_user.clone()),
            None => Default::default(),
        };
        let lost = event.loss.as_ref().map_or(0, |loss| loss.count);
        Row {
            sequence: i64::try_from(event.sequence).unwrap_or(i64::MAX),
            time_ns: event.time_ns,
            kind: event.kind,
            verdict: event.verdict,
            user,
            login_user,
            rule: event.rule.clone(),
            text: searched_text(&event),
            body: event.encode_to_vec(),
            lost: i64::try_from(lost).unwrap_or(i64::MAX),
            boot: event.boot,
        }
    }

    /// SQL of [`Row::insert`]: an event that is there already is left as it is.
    pub const INSERT: &str = "
        INSERT INTO events (host, boot, sequence, time_ns, kind, verdict, user, login_user, rule,
            text, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
        ON CONFLICT (host, boot, sequence) DO NOTHING";

    /// Inserts the row; false when the store had it already.
    pub fn insert(&self, statement: &mut Statement<'_>, host: &str) -> rusqlite::Result<bool> {
        let changed = statement.execute(params![
            host,
            self.boot,
            self.sequence,
            self.time_ns,
            self.kind,
            self.verdict,
            self.user,
            self.login_user,
            self.rule,
            self.text,
            self.body,
        ])?;
        Ok(changed == 1)
    }
}

/// The bytes that a filter's text is looked for in, with a zero byte, which no name holds, between.
fn searched_text(event: &Event) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    if let Some(file) = &event.file {
        parts.push(file.path.clone());
        parts.push(file.new_path.clone());
        if !file.attribute.is_empty() {
            parts.push(file.attribute.clone());
        }
        parts.extend(file.device.as_ref().map(|device| device.serial.clone().into()));
    }
    parts.extend(event.sources.iter().map(|source| source.path.clone()));
    if let Some(device) = &event.device {
        let texts = [&device.serial, &device.vendor_name, &device.product_name];
        parts.extend(texts.map(|text| text.clone().into()));
    }
    if let Some(process) = &event.process {
        parts.push(process.exe.clone());
    }
    if let Some(destination) = &event.destination {
        let ip = &destination.ip;
        if !ip.is_empty() {
            let bracketed = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            parts.push(format!("{bracketed}:{}", destination.port).into_bytes());
        }
        parts.push(destination.path.clone());
        parts.extend(destination.names.iter().map(|name| name.name.clone().into()));
        parts.extend(destination.http.as_ref().map(|http| http.path.clone()));
        if let Some(mail) = &destination.smtp {
            parts.push(mail.from.clone().into());
            parts.extend(mail.to.iter().map(|to| to.clone().into()));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join(&0)
}

/// Columns that [`read`] wants, in its order.
pub const COLUMNS: &str = "cursor, time_ns, body";

/// A stored event: its cursor, its time, and the encoded rest.
#[derive(Debug)]
pub struct Stored {
    /// Place in the store.
    pub cursor: i64,
    /// UTC, ns since 1970.
    pub time_ns: i64,
    /// Encoded event without its cursor.
    pub body: Vec<u8>,
}

impl Stored {
    /// Takes one row of [`COLUMNS`].
    pub fn read(row: &SqlRow<'_>) -> rusqlite::Result<Stored> {
        Ok(Stored { cursor: row.get(0)?, time_ns: row.get(1)?, body: row.get(2)? })
    }

    /// The event as it is shown.
    ///
    /// # Errors
    /// The body is not an event: the file was damaged or changed by someone else.
    pub fn event(&self) -> Result<Event, prost::DecodeError> {
        let mut event = Event::decode(self.body.as_slice())?;
        event.cursor = self.cursor.unsigned_abs();
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use sekimori_proto::v1::{Destination, Device, File, Name, Process, SmtpEnvelope};

    use super::*;

    #[test]
    fn the_host_is_the_agents_and_the_text_has_all_parts() {
        let event = Event {
            host: "liar".into(),
            cursor: 9,
            file: Some(File {
                path: b"/a\xff".to_vec(),
                new_path: b"/b".to_vec(),
                device: Some(Device { serial: "S1".into(), ..Device::default() }),
                ..File::default()
            }),
            sources: vec![File { path: "/顧客".into(), ..File::default() }],
            process: Some(Process { exe: b"/bin/cp".to_vec(), ..Process::default() }),
            destination: Some(Destination {
                ip: "::1".into(),
                port: 25,
                names: vec![Name { name: "mx.example".into(), ..Name::default() }],
                smtp: Some(SmtpEnvelope { to: vec!["b@c".into()], ..SmtpEnvelope::default() }),
                ..Destination::default()
            }),
            ..Event::default()
        };
        let row = Row::new(&Agent::for_test("pc"), event.clone());
        let rest = "S1\0/顧客\0/bin/cp\0[::1]:25\0mx.example\0b@c";
        assert_eq!(row.text, [b"/a\xff\0/b\0", rest.as_bytes()].concat());
        let stored = Stored { cursor: 3, time_ns: 0, body: row.body };
        assert_eq!(stored.event(), Ok(Event { host: "pc".into(), cursor: 3, ..event }));
    }
}
