//! What a block can be found by.
//!
//! A tag stands for one value of one field. A block carries the tags of its events; a question that
//! wants a value skips every block without its tag. A tag is 32 bits of a checksum: two values may
//! share one, which costs a look into a block and hides nothing. Tags are stored, so what a value's
//! tag is never changes.

use sekimori_proto::v1::Event;

use crate::limits::BLOCK_FIELD_TAGS_MAX;

/// Stands for one value of a field, or for all of them.
pub type Tag = u32;

/// Fields that have tags. The number is in the upper bits of each tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tagged {
    /// Name of the host.
    Host = 1,
    /// Number of the kind, in little endian.
    Kind = 2,
    /// Number of the verdict.
    Verdict = 3,
    /// User or login user.
    User = 4,
    /// Id of the rule.
    Rule = 5,
    /// Serial of a device.
    Serial = 6,
    /// Address or name.
    Destination = 7,
    /// Path of the executable.
    Program = 8,
}

/// Bits of a tag that are the value's.
const VALUE_BITS: u32 = 28;
/// The tag of every value of a field.
const ANY: u32 = (1 << VALUE_BITS) - 1;

/// The tag of one value.
pub fn tag(field: Tagged, value: &[u8]) -> Tag {
    // What the tag of all values is left to is not given to one.
    let value = (crc32fast::hash(value) & ANY).min(ANY - 1);
    (field as u32) << VALUE_BITS | value
}

const fn any(tag: Tag) -> Tag {
    tag | ANY
}

/// What an event is found by, but its host, which the event does not know. What it does not say is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// Number of the kind.
    pub kind: i32,
    /// Number of the verdict.
    pub verdict: i32,
    /// Id of the rule.
    pub rule: &'a [u8],
    /// Of the process.
    pub user: &'a [u8],
    /// Of the process.
    pub login_user: &'a [u8],
    /// Path of the process's executable.
    pub program: &'a [u8],
    /// Of the file's device, and of the device that came or went.
    pub serials: [&'a [u8]; 2],
    /// Address of the destination.
    pub ip: &'a [u8],
    /// Its names.
    pub names: Vec<&'a [u8]>,
}

impl<'a> Found<'a> {
    /// Of an event.
    pub fn of(event: &'a Event) -> Found<'a> {
        let mut found = Found {
            kind: event.kind,
            verdict: event.verdict,
            rule: event.rule.as_bytes(),
            ..Found::default()
        };
        if let Some(process) = &event.process {
            found.user = process.user.as_bytes();
            found.login_user = process.login_user.as_bytes();
            found.program = &process.exe;
        }
        let below = event.file.as_ref().and_then(|file| file.device.as_ref());
        found.serials = [below, event.device.as_ref()]
            .map(|device| device.map(|it| it.serial.as_bytes()).unwrap_or_default());
        if let Some(destination) = &event.destination {
            found.ip = destination.ip.as_bytes();
            found.names = destination.names.iter().map(|it| it.name.as_bytes()).collect();
        }
        found
    }

    /// The tags of an event but that of its host.
    pub fn tags(&self) -> Vec<Tag> {
        let mut tags = Vec::with_capacity(8);
        tags.push(tag(Tagged::Kind, &self.kind.to_le_bytes()));
        tags.push(tag(Tagged::Verdict, &self.verdict.to_le_bytes()));
        let mut add = |field, value: &[u8]| {
            if !value.is_empty() {
                tags.push(tag(field, value));
            }
        };
        add(Tagged::Rule, self.rule);
        add(Tagged::User, self.user);
        if self.login_user != self.user {
            add(Tagged::User, self.login_user);
        }
        add(Tagged::Program, self.program);
        self.serials.iter().for_each(|serial| add(Tagged::Serial, serial));
        add(Tagged::Destination, self.ip);
        self.names.iter().for_each(|name| add(Tagged::Destination, name));
        tags
    }
}

/// The tags of an event but that of its host, which the event does not know.
#[cfg(test)]
pub fn of_event(event: &Event) -> Vec<Tag> {
    Found::of(event).tags()
}

/// The tags of a block, as they are stored: each once, sorted, in little endian. A field with more
/// values than [`BLOCK_FIELD_TAGS_MAX`] has the tag that stands for all of them.
pub fn to_bytes(mut tags: Vec<Tag>) -> Vec<u8> {
    tags.sort_unstable();
    tags.dedup();
    let fields = tags.chunk_by(|one, other| one >> VALUE_BITS == other >> VALUE_BITS);
    fields
        .flat_map(|field| match field {
            [first, ..] if field.len() > BLOCK_FIELD_TAGS_MAX => vec![any(*first)],
            _ => field.to_vec(),
        })
        .flat_map(Tag::to_le_bytes)
        .collect()
}

/// Whether a block with these tags may have an event with one of `wanted`, all of one field.
pub fn may_have(stored: &[u8], wanted: &[Tag]) -> bool {
    let (tags, _) = stored.as_chunks();
    let has = |tag: Tag| tags.binary_search_by_key(&tag, |it| Tag::from_le_bytes(*it)).is_ok();
    wanted.iter().any(|tag| has(*tag)) || wanted.first().is_some_and(|tag| has(any(*tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_there_is_found() {
        let (hanako, taro) = (tag(Tagged::User, "花子".as_bytes()), tag(Tagged::User, b"taro"));
        let same_text = tag(Tagged::Host, "花子".as_bytes());
        let stored = to_bytes(vec![hanako, tag(Tagged::Host, b"pc"), hanako]);
        assert_eq!(stored.len(), 8);
        assert!(may_have(&stored, &[hanako]));
        assert!(may_have(&stored, &[taro, hanako]));
        assert!(!may_have(&stored, &[taro]));
        assert!(!may_have(&stored, &[same_text]));
        assert!(!may_have(&[], &[taro]));
    }

    #[test]
    fn too_many_values_are_all_of_them() {
        let many = (0..=BLOCK_FIELD_TAGS_MAX).map(|it| tag(Tagged::Program, &it.to_le_bytes()));
        let stored = to_bytes(many.chain([tag(Tagged::Host, b"pc")]).collect());
        assert_eq!(stored.len(), 8);
        assert!(may_have(&stored, &[tag(Tagged::Program, b"anything")]));
        assert!(!may_have(&stored, &[tag(Tagged::Host, b"other")]));
    }

    /// They are in stores that exist.
    #[test]
    fn tags_stay_what_they_are() {
        assert_eq!(
            tag(Tagged::Serial, b"SEKI0001"),
            0x6000_0000 | (crc32fast::hash(b"SEKI0001") & ANY)
        );
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }
}
