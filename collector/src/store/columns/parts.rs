//! What columns want of an event, as it lies in its bytes.

use prost::{DecodeError, Message as _};
use sekimori_proto::v1::{Destination, Device, Event, File, Name, Process};

use super::Column;
use crate::store::groups::{bytes_in_of, bytes_of};
use crate::wire::{Fields, Value, int32, repeated};

/// Parts of `process` are merged, and there are many sources.
const EVENT_REPEATED: u64 = repeated(&[9, 24]);
const PROCESS_REPEATED: u64 = repeated(&[4, 18]);
const DESTINATION_REPEATED: u64 = repeated(&[5]);

/// What is taken of an event that was stored, and so is one.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    host: &'a str,
    kind: u64,
    operation: u64,
    verdict: u64,
    rule: &'a [u8],
    process: Option<OfProcess<'a>>,
    /// Of the file, encoded.
    below: Option<&'a [u8]>,
    /// That came or went, encoded.
    device: Option<&'a [u8]>,
    destination: Option<OfDestination<'a>>,
    bytes: u64,
    bytes_in: u64,
}

#[derive(Debug, Default)]
struct OfProcess<'a> {
    exe: &'a [u8],
    uid: u64,
    user: &'a [u8],
    login_uid: Option<u64>,
    login_user: &'a [u8],
    seen: u64,
}

#[derive(Debug, Default)]
struct OfDestination<'a> {
    ip: &'a [u8],
    path: &'a [u8],
    names: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// Of an encoded event of this host; `None` when it is not of the plain kind, as nearly all are, and has to be
    /// decoded.
    pub fn of(host: &'a str, body: &'a [u8]) -> Option<Parts<'a>> {
        let mut parts = Parts { host, ..Parts::default() };
        let mut fields = Fields::of(body, EVENT_REPEATED);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (5, Value::Number(it)) => parts.kind = it,
                (6, Value::Number(it)) => parts.operation = it,
                (7, Value::Number(it)) => parts.verdict = it,
                (8, Value::Bytes(it)) => parts.rule = it,
                (9, Value::Bytes(it)) => parts.process.get_or_insert_default().part(it)?,
                (10, Value::Bytes(it)) => parts.below = device_below(it)?,
                (11, Value::Number(it)) => parts.bytes = it,
                (12, Value::Number(it)) => parts.bytes_in = it,
                (14, Value::Bytes(it)) => parts.destination = Some(OfDestination::of(it)?),
                (28, Value::Bytes(it)) => parts.device = Some(it),
                (5..=12 | 14 | 28, _) => return None,
                _ => {}
            }
        }
        Some(parts)
    }

    /// Bytes, and those that came in, as groups count them.
    pub fn bytes(&self) -> (u64, u64) {
        let (bytes, bytes_in) = (Some(self.bytes), Some(self.bytes_in));
        let event = Event { operation: int32(self.operation), bytes, bytes_in, ..Event::default() };
        (bytes_of(&event), bytes_in_of(&event))
    }

    /// Bytes that are the same for the same value of a column, and differ for others.
    pub fn key(&self, column: Column, key: &mut Vec<u8>) {
        match column {
            Column::Host => put_bytes(self.host.as_bytes(), key),
            Column::User => {
                let Some(process) = &self.process else { return };
                put_number(process.uid, key);
                key.push(process.login_uid.is_some().into());
                put_number(process.login_uid.unwrap_or_default(), key);
                put_bytes(process.user, key);
                put_bytes(process.login_user, key);
            }
            Column::Program => {
                if let Some(process) = &self.process {
                    put_bytes(process.exe, key);
                }
            }
            Column::Device => {
                for device in [self.below, self.device] {
                    key.push(device.is_some().into());
                    put_bytes(device.unwrap_or_default(), key);
                }
            }
            Column::Destination => {
                let Some(OfDestination { ip, path, names }) = &self.destination else { return };
                put_bytes(ip, key);
                put_bytes(path, key);
                names.iter().for_each(|name| put_bytes(name, key));
            }
            Column::Act => {
                [self.kind, self.operation, self.verdict]
                    .iter()
                    .for_each(|it| put_number(*it, key));
                put_bytes(self.rule, key);
            }
        }
    }

    /// An event that has nothing but what the column is of.
    ///
    /// # Errors
    /// When a device is none.
    pub fn value(&self, column: Column) -> Result<Event, DecodeError> {
        let process = self.process.as_ref();
        Ok(match column {
            Column::Host => Event { host: self.host.to_owned(), ..Event::default() },
            Column::User => of_process(process.map(|it| Process {
                uid: uint32(it.uid),
                user: text(it.user),
                login_uid: it.login_uid.map(uint32),
                login_user: text(it.login_user),
                ..Process::default()
            })),
            Column::Program => {
                of_process(process.map(|it| Process { exe: it.exe.to_vec(), ..Process::default() }))
            }
            Column::Device => {
                let [below, device] =
                    [self.below, self.device].map(|device| device.map(Device::decode).transpose());
                let (below, device) = (below?, device?);
                let (file, device) = (file_on(below.as_ref()), device.as_ref().map(known));
                Event { file, device, ..Event::default() }
            }
            Column::Destination => {
                let destination = self.destination.as_ref().map(|it| Destination {
                    ip: text(it.ip),
                    path: it.path.to_vec(),
                    names: it.names.iter().map(|name| named(text(name))).collect(),
                    ..Destination::default()
                });
                Event { destination, ..Event::default() }
            }
            Column::Act => Event {
                kind: int32(self.kind),
                operation: int32(self.operation),
                verdict: int32(self.verdict),
                rule: text(self.rule),
                ..Event::default()
            },
        })
    }
}

/// What the column is of, from an event that was decoded.
pub fn value_of(column: Column, event: &Event) -> Event {
    let process = event.process.as_ref();
    match column {
        Column::Host => Event { host: event.host.clone(), ..Event::default() },
        Column::User => of_process(process.map(|it| Process {
            uid: it.uid,
            user: it.user.clone(),
            login_uid: it.login_uid,
            login_user: it.login_user.clone(),
            ..Process::default()
        })),
        Column::Program => {
            of_process(process.map(|it| Process { exe: it.exe.clone(), ..Process::default() }))
        }
        Column::Device => {
            let below = event.file.as_ref().and_then(|file| file.device.as_ref());
            let device = event.device.as_ref().map(known);
            Event { file: file_on(below), device, ..Event::default() }
        }
        Column::Destination => {
            let destination = event.destination.as_ref().map(|it| Destination {
                ip: it.ip.clone(),
                path: it.path.clone(),
                names: it.names.iter().map(|name| named(name.name.clone())).collect(),
                ..Destination::default()
            });
            Event { destination, ..Event::default() }
        }
        Column::Act => Event {
            kind: event.kind,
            operation: event.operation,
            verdict: event.verdict,
            rule: event.rule.clone(),
            ..Event::default()
        },
    }
}

fn of_process(process: Option<Process>) -> Event {
    Event { process, ..Event::default() }
}

fn file_on(device: Option<&Device>) -> Option<File> {
    device.map(|device| File { device: Some(known(device)), ..File::default() })
}

/// What of a device questions ask for, by name: a field that is new is not among it.
fn known(device: &Device) -> Device {
    let Device { class, vendor, product, serial, source, .. } = device.clone();
    Device { class, vendor, product, serial, source, ..Device::default() }
}

fn named(name: String) -> Name {
    Name { name, ..Name::default() }
}

impl<'a> OfProcess<'a> {
    /// Takes in a part of it: what came in an earlier one does not come again.
    fn part(&mut self, body: &'a [u8]) -> Option<()> {
        let mut fields = Fields::behind(self.seen, body, PROCESS_REPEATED);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (3, Value::Bytes(it)) => self.exe = it,
                (6, Value::Number(it)) => self.uid = it,
                (7, Value::Bytes(it)) => self.user = it,
                (9, Value::Number(it)) => self.login_uid = Some(it),
                (10, Value::Bytes(it)) => self.login_user = it,
                (3 | 6 | 7 | 9 | 10, _) => return None,
                _ => {}
            }
        }
        self.seen = fields.seen();
        Some(())
    }
}

/// That of a file.
fn device_below(body: &[u8]) -> Option<Option<&[u8]>> {
    let mut device = None;
    let mut fields = Fields::of(body, 0);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (4, Value::Bytes(it)) => device = Some(it),
            (4, _) => return None,
            _ => {}
        }
    }
    Some(device)
}

impl<'a> OfDestination<'a> {
    fn of(body: &'a [u8]) -> Option<OfDestination<'a>> {
        let mut destination = OfDestination::default();
        let mut fields = Fields::of(body, DESTINATION_REPEATED);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(it)) => destination.ip = it,
                (4, Value::Bytes(it)) => destination.path = it,
                (5, Value::Bytes(it)) => destination.names.push(name(it)?),
                (1 | 4 | 5, _) => return None,
                _ => {}
            }
        }
        Some(destination)
    }
}

fn name(body: &[u8]) -> Option<&[u8]> {
    let mut name: &[u8] = &[];
    let mut fields = Fields::of(body, 0);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(it)) => name = it,
            (1, _) => return None,
            _ => {}
        }
    }
    Some(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Of a number on the wire only the lower half counts.
fn uint32(number: u64) -> u32 {
    int32(number).cast_unsigned()
}

fn put_number(number: u64, key: &mut Vec<u8>) {
    key.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(bytes: &[u8], key: &mut Vec<u8>) {
    put_number(bytes.len() as u64, key);
    key.extend_from_slice(bytes);
}
