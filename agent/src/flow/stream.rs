//! What was sent first over a TCP connection.

use sekimori_proto::v1::NameSource;

use super::hello::{self, ServerName};
use super::smtp::{self, Dialogue};
use super::{Learned, Reading, http};
use crate::limits::FLOW_BYTES_MAX;

/// The beginning of a stream as far as it is known.
#[derive(Default)]
pub(super) struct Stream {
    /// Bytes that came, those that are forgotten already included.
    came: usize,
    unread: Vec<u8>,
    /// It is SMTP. Its lines are forgotten as they are read.
    dialogue: Option<Dialogue>,
}

impl Stream {
    /// One more piece. What comes twice counts once; a gap ends the stream.
    pub(super) fn take(&mut self, offset: u64, bytes: &[u8]) -> Reading<Learned> {
        let overlap = u64::try_from(self.came).unwrap_or(u64::MAX).checked_sub(offset);
        let Some(overlap) = overlap.and_then(|it| usize::try_from(it).ok()) else {
            return Reading::Found(self.rest());
        };
        let fresh = bytes.get(overlap..).unwrap_or_default();
        let room = FLOW_BYTES_MAX.saturating_sub(self.came);
        let fresh = fresh.get(..room).unwrap_or(fresh);
        self.unread.extend_from_slice(fresh);
        self.came = self.came.saturating_add(fresh.len());
        match self.read() {
            Reading::More if self.came >= FLOW_BYTES_MAX => Reading::Found(self.rest()),
            reading => reading,
        }
    }

    /// What is known when nothing more comes.
    pub(super) fn rest(&self) -> Learned {
        let learned = match &self.dialogue {
            Some(dialogue) => Some(mail(dialogue)),
            None => {
                hello::read_rest(&self.unread).map(tls).or_else(|| http::read_rest(&self.unread))
            }
        };
        learned.unwrap_or_default()
    }

    /// What is kept of it.
    #[cfg(test)]
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    fn read(&mut self) -> Reading<Learned> {
        if let Some(dialogue) = &mut self.dialogue {
            return dialogue.read(&mut self.unread).map(|()| mail(dialogue));
        }
        match smtp::begins(&self.unread) {
            Reading::Found(()) => {
                let dialogue = self.dialogue.insert(Dialogue::default());
                return dialogue.read(&mut self.unread).map(|()| mail(dialogue));
            }
            Reading::More => return Reading::More,
            Reading::Nothing => {}
        }
        match hello::read(&self.unread) {
            Reading::Nothing => http::read(&self.unread),
            reading => reading.map(tls),
        }
    }
}

fn tls(found: ServerName) -> Learned {
    let source = if found.outer { NameSource::TlsOuter } else { NameSource::Tls };
    Learned { name: Some((found.name, source)), ..Learned::default() }
}

fn mail(dialogue: &Dialogue) -> Learned {
    Learned { smtp: dialogue.envelope(), ..Learned::default() }
}
