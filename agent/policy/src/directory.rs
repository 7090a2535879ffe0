//! Who people are: names to uids.

use std::{collections::BTreeSet, fs};

use nix::unistd::{Group, User};

/// Turns the names in a policy into uids. A name that is not there yet is no mistake of the policy:
/// the caller loads it again when people change.
pub trait Directory {
    /// The uid of a login name.
    fn uid_of(&self, name: &str) -> Option<u32>;
    /// The uids of a group's members, those included whose primary group it is. `None`: no group.
    fn members_of(&self, group: &str) -> Option<Vec<u32>>;
}

/// This machine's user database, through the system's name service.
///
/// People whose *primary* group is asked for are found in `/etc/passwd` only: the name service has
/// no question for them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDirectory;

impl Directory for SystemDirectory {
    fn uid_of(&self, name: &str) -> Option<u32> {
        Some(User::from_name(name).ok()??.uid.as_raw())
    }

    fn members_of(&self, group: &str) -> Option<Vec<u32>> {
        let group = Group::from_name(group).ok()??;
        let mut uids: BTreeSet<u32> =
            group.mem.iter().filter_map(|name| self.uid_of(name)).collect();
        let passwd = fs::read("/etc/passwd").unwrap_or_default();
        uids.extend(primary_members(&String::from_utf8_lossy(&passwd), group.gid.as_raw()));
        Some(uids.into_iter().collect())
    }
}

/// Uids of the lines of a passwd file (`name:password:uid:gid:…`) with this gid.
fn primary_members(passwd: &str, gid: u32) -> impl Iterator<Item = u32> {
    passwd.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let its_gid: u32 = fields.next()?.parse().ok()?;
        (its_gid == gid).then_some(uid)
    })
}

/// Knows nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDirectory;

impl Directory for NoDirectory {
    fn uid_of(&self, _name: &str) -> Option<u32> {
        None
    }

    fn members_of(&self, _group: &str) -> Option<Vec<u32>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_members_are_found_by_gid() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbad line\na:x:1000:50::\nb:x:1001:50::\nc:x:1:5\n";
        assert_eq!(primary_members(passwd, 50).collect::<Vec<_>>(), [1000, 1001]);
        assert_eq!(primary_members(passwd, 7).count(), 0);
    }

    #[test]
    fn this_machine_knows_root() {
        assert_eq!(SystemDirectory.uid_of("root"), Some(0));
        assert_eq!(SystemDirectory.uid_of("no-such-login-here"), None);
        assert_eq!(SystemDirectory.members_of("no-such-group-here"), None);
        assert!(SystemDirectory.members_of("root").is_some_and(|uids| uids.contains(&0)));
    }
}
