//! Names of users.

use std::collections::HashMap;
use std::time::Instant;

use nix::unistd::{Uid, User};

use crate::limits::{USER_KEPT, USERS_KEPT_MAX};

/// Asks the system's user database, and remembers the answer for a few minutes.
pub struct Users {
    ask: Box<dyn Fn(u32) -> Option<String> + Send>,
    known: HashMap<u32, (String, Instant)>,
    now: Instant,
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
        Self { ask, known: HashMap::new(), now: Instant::now() }
    }

    /// Looks at the clock; call it about once a second.
    pub fn refresh(&mut self) {
        self.now = Instant::now();
    }

    /// The user's name, or the number as text when nobody has that uid.
    pub fn name(&mut self, uid: u32) -> String {
        let now = self.now;
        if let Some((name, read)) = self.known.get(&uid)
            && now.duration_since(*read) < USER_KEPT
        {
            return name.clone();
        }
        let name = (self.ask)(uid).unwrap_or_else(|| uid.to_string());
        if self.known.len() >= USERS_KEPT_MAX && !self.known.contains_key(&uid) {
            self.known.clear();
        }
        self.known.insert(uid, (name.clone(), now));
        name
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}
