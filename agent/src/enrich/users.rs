//! Names of users.

use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use nix::unistd::{Uid, User};

use crate::limits::{USER_KEPT, USERS_KEPT_MAX};

/// Asks the system's user database, and remembers the answers for a few minutes.
pub struct Users {
    ask: Box<dyn Fn(u32) -> Option<String> + Send>,
    known: HashMap<u32, String>,
    /// How often everything was forgotten.
    names: u32,
    since: Instant,
}

impl Users {
    /// The system's user database.
    #[must_use]
    pub fn new() -> Self {
        Self::asking(Box::new(|uid| {
            User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
        }))
    }

    /// Another source of names.
    #[must_use]
    pub fn asking(ask: Box<dyn Fn(u32) -> Option<String> + Send>) -> Self {
        Self { ask, known: HashMap::new(), names: 0, since: Instant::now() }
    }

    /// Looks at the clock; call it about once a second.
    pub fn refresh(&mut self) {
        if self.since.elapsed() >= USER_KEPT {
            self.known.clear();
            self.names = self.names.wrapping_add(1);
            self.since = Instant::now();
        }
    }

    /// Changes when names may be others than before.
    #[must_use]
    pub const fn names(&self) -> u32 {
        self.names
    }

    /// The user's name, or the number as text when nobody has that uid.
    pub fn name(&mut self, uid: u32) -> &str {
        if self.known.len() >= USERS_KEPT_MAX && !self.known.contains_key(&uid) {
            self.known.clear();
        }
        let Self { ask, known, .. } = self;
        known.entry(uid).or_insert_with(|| ask(uid).unwrap_or_else(|| uid.to_string()))
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}
