//! Believable events of many hosts, the same in each run.
//!
//! A host has a person and some processes; each event is done by one of them. So what the processes
//! say of themselves comes again and again, as it does in a true host's records, and what they do
//! differs.

pub mod world;

use std::mem::take;

use fastrand::Rng;
use prost::Message as _;
use sekimori_proto::v1::{
    Destination, Event, File, Kind, Name, NameSource, Operation, Process, Verdict,
};

/// The first event of every run, UTC ns since 1970: 2026-11-01, 00:00.
pub const FIRST_NS: i64 = 1_793_491_200_000_000_000;
/// Processes that a host has at one time.
const PROCESSES: usize = 40;
/// uid of the first user.
const UID_FIRST: u32 = 1000;
/// One event in so many is refused.
const DENIED_EACH: u32 = 200;
/// One event in so many raises an alert.
const ALERTED_EACH: u32 = 100;

/// One host: its events, one after the other.
#[derive(Debug)]
pub struct Host {
    random: Rng,
    user: String,
    uid: u32,
    next_pid: u32,
    processes: Vec<Process>,
}

/// Name of a host, by number.
pub fn host_name(number: u64) -> String {
    format!("pc-{number:04}")
}

/// Who works at a host, by its number.
pub fn person(host: u64) -> String {
    world::user(user_number(host))
}

const fn user_number(host: u64) -> u64 {
    host * 3 % world::USERS
}

impl Host {
    /// The host with this number.
    pub fn new(number: u64) -> Self {
        let user = user_number(number);
        let mut host = Self {
            random: Rng::with_seed(0x5e6b_0000 + number),
            user: person(number),
            uid: UID_FIRST + u32::try_from(user).unwrap_or(0),
            next_pid: 1200,
            processes: Vec::new(),
        };
        host.processes = (0..PROCESSES).map(|_| host.launched()).collect();
        host
    }

    /// What the host does next, encoded as agents do, without what [`crate::wire::Stamp`] says: a
    /// process comes in two parts, the second of which is the thread's own.
    pub fn encoded(&mut self) -> Vec<u8> {
        let mut event = self.event();
        let part = |process| Event { process: Some(process), ..Event::default() }.encode_to_vec();
        let process = event.process.take().map(|mut process| {
            let (tid, comm) = (take(&mut process.tid), take(&mut process.comm));
            [part(process), part(Process { tid, comm, ..Process::default() })].concat()
        });
        [event.encode_to_vec(), process.unwrap_or_default()].concat()
    }

    /// What the host does next.
    pub fn event(&mut self) -> Event {
        let event = match self.random.u32(0..100) {
            0..47 => self.opens(),
            47..65 => self.executes(),
            65..83 => self.exits(),
            83..92 => self.connects(),
            92..97 => self.uploads(),
            _ => self.writes_to_a_stick(),
        };
        self.judged(event)
    }

    fn judged(&mut self, event: Event) -> Event {
        let (verdict, rule) = if self.random.u32(0..DENIED_EACH) == 0 {
            (Verdict::Denied, "持出禁止-usb-write")
        } else if self.random.u32(0..ALERTED_EACH) == 0 {
            (Verdict::Alerted, "customer-data-is-opened")
        } else {
            return event;
        };
        let errno = (verdict == Verdict::Denied).then_some(1);
        Event { verdict: verdict.into(), rule: rule.to_owned(), lane: 1, errno, ..event }
    }

    fn opens(&mut self) -> Event {
        let path = world::file(&self.user, self.random.u64(0..40_000));
        let file = File { open_flags: 0o100_000, ..self.file(path) };
        let event = self.allowed(Kind::FileOpen, Operation::Open);
        Event { file: Some(file), ..event }
    }

    fn executes(&mut self) -> Event {
        let process = self.launched();
        let file = File { mode: 0o100_755, ..self.file(lossy(&process.exe)) };
        let at = self.random.usize(0..PROCESSES);
        if let Some(place) = self.processes.get_mut(at) {
            *place = process.clone();
        }
        let event = self.allowed(Kind::Exec, Operation::Exec);
        Event { file: Some(file), process: Some(process), ..event }
    }

    fn exits(&mut self) -> Event {
        let code = if self.random.u32(0..10) == 0 { 1 } else { 0 };
        Event { exit_code: Some(code), ..self.allowed(Kind::Exit, Operation::Exit) }
    }

    fn connects(&mut self) -> Event {
        let destination = self.destination();
        let event = self.allowed(Kind::NetConnect, Operation::Connect);
        Event { destination: Some(destination), ..event }
    }

    fn uploads(&mut self) -> Event {
        let destination = self.destination();
        let event = self.allowed(Kind::NetUpload, Operation::Close);
        Event {
            destination: Some(destination),
            bytes: Some(self.random.u64(300..4_000_000)),
            bytes_in: Some(self.random.u64(300..400_000)),
            calls: Some(self.random.u64(1..900)),
            ..event
        }
    }

    fn writes_to_a_stick(&mut self) -> Event {
        let number = self.random.u64(0..40_000);
        // People have one stick of their own, and sometimes one that goes round.
        let own = u64::from(self.uid) % (world::STICKS - 10) + 10;
        let stick = if self.random.u32(0..12) == 0 { self.random.u64(0..10) } else { own };
        let path = world::on_stick(&self.user, number);
        let file = File { device: Some(world::stick(stick)), ..self.file(path) };
        let bytes = self.random.u64(1_000..9_000_000);
        let event = match self.random.u32(0..3) {
            0 => self.allowed(Kind::UsbWrite, Operation::Create),
            1 => Event {
                sources: vec![self.file(world::document(&self.user, number))],
                sha256: std::iter::repeat_with(|| self.random.u8(..)).take(32).collect(),
                bytes: Some(bytes),
                ..self.allowed(Kind::UsbWrite, Operation::Receipt)
            },
            _ => Event {
                bytes: Some(bytes),
                calls: Some(self.random.u64(1..200)),
                ..self.allowed(Kind::UsbWrite, Operation::Close)
            },
        };
        Event { file: Some(file), ..event }
    }

    /// An event by some process of the host.
    fn allowed(&mut self, kind: Kind, operation: Operation) -> Event {
        // Few processes do most of it.
        let at = self.random.usize(0..PROCESSES).min(self.random.usize(0..PROCESSES));
        Event {
            kind: kind.into(),
            operation: operation.into(),
            verdict: Verdict::Allowed.into(),
            process: self.processes.get(at).cloned(),
            ..Event::default()
        }
    }

    fn file(&mut self, path: String) -> File {
        File {
            path: path.into_bytes(),
            inode: self.random.u64(100_000..9_000_000),
            size: self.random.u64(0..5_000_000),
            mode: 0o100_644,
            ..File::default()
        }
    }

    fn destination(&mut self) -> Destination {
        // Some are asked for much more than others.
        let number = self.random.u64(0..world::DESTINATIONS);
        let (name, ip) = world::destination(number * number / world::DESTINATIONS);
        let name = |source: NameSource| Name { name: name.clone(), source: source.into() };
        Destination {
            ip,
            port: 443,
            protocol: "tcp".to_owned(),
            names: vec![name(NameSource::Tls), name(NameSource::Dns)],
            ..Destination::default()
        }
    }

    /// A new process with its line of parents, of which the agent knows less.
    fn launched(&mut self) -> Process {
        let number = self.random.u64(0..world::PROGRAMS_ALL);
        // The usual ones more often than those of the house.
        let number = if self.random.bool() { number } else { number % 24 };
        let document = world::document(&self.user, self.random.u64(0..40_000));
        let init = self.ancestor("/usr/lib/systemd/systemd", "root", 0, None);
        let (user, uid) = (self.user.clone(), self.uid);
        let session = self.ancestor("/usr/libexec/gnome-session-binary", &user, uid, Some(init));
        let terminal = self.random.bool().then(|| {
            self.ancestor("/usr/libexec/gnome-terminal-server", &user, uid, Some(session.clone()))
        });
        let parent = self.ancestor("/usr/bin/bash", &user, uid, terminal.or(Some(session)));
        let parent = Process { argv: arguments(&["-bash", "-l"]), ..parent };
        let exe = world::program(number);
        let argv = arguments(&[name_of(&exe), "--出力=/tmp/結果.txt", "-v", "--", &document]);
        Process {
            argv,
            cwd: format!("/home/{user}/文書").into_bytes(),
            gid: uid,
            login_uid: Some(uid),
            login_user: user.clone(),
            session_id: Some(3),
            tty: "pts/0".to_owned(),
            cgroup_id: 9_120,
            tid: self.next_pid,
            exe_inode: 400_000 + number,
            ..self.ancestor(&exe, &user, uid, Some(parent))
        }
    }

    fn ancestor(&mut self, exe: &str, user: &str, uid: u32, parent: Option<Process>) -> Process {
        self.next_pid += 1 + self.random.u32(0..4);
        Process {
            pid: self.next_pid,
            start_ns: FIRST_NS + i64::from(self.next_pid) * 1_013_700_419,
            exe: exe.as_bytes().to_vec(),
            uid,
            user: user.to_owned(),
            comm: name_of(exe).bytes().take(15).collect(),
            parent: parent.map(Box::new),
            ..Process::default()
        }
    }
}

fn name_of(exe: &str) -> &str {
    exe.rsplit('/').next().unwrap_or(exe)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn arguments(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashSet;

    use sekimori_collector::ingest::check_batch;

    use super::*;

    fn events(host: u64, count: usize) -> Vec<Event> {
        let mut host = Host::new(host);
        let numbered = |(sequence, event)| Event { boot: vec![7; 16], sequence, ..event };
        (1..).zip(std::iter::repeat_with(|| host.event())).take(count).map(numbered).collect()
    }

    #[test]
    fn the_collector_takes_them() {
        for host in 0..20 {
            let encoded = events(host, 1000).iter().map(|it| it.encode_to_vec().into()).collect();
            check_batch(1, encoded).unwrap();
        }
    }

    #[test]
    fn they_are_as_long_as_true_ones() {
        let lengths: Vec<usize> = events(3, 5000).iter().map(Event::encoded_len).collect();
        let mean = lengths.iter().sum::<usize>() / lengths.len();
        assert!((500..900).contains(&mean), "{mean} bytes");
        assert!(lengths.iter().all(|length| (300..1500).contains(length)));
    }

    #[test]
    fn they_are_the_same_each_time_and_differ_between_hosts() {
        assert_eq!(events(5, 100), events(5, 100));
        assert_ne!(events(5, 100), events(6, 100));
    }

    #[test]
    fn every_kind_is_there_and_some_are_refused() {
        let events = events(1, 5000);
        let kinds: HashSet<i32> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds.len(), 6);
        let refused = events.iter().filter(|event| event.verdict == i32::from(Verdict::Denied));
        let refused = refused.count();
        assert!((10..50).contains(&refused), "{refused} of 5000");
        let programs: HashSet<_> =
            events.iter().filter_map(|event| Some(event.process.as_ref()?.exe.clone())).collect();
        assert!((100..310).contains(&programs.len()), "{} programs", programs.len());
    }

    #[test]
    fn the_hosts_have_different_people_and_some_sticks_go_round() {
        assert_eq!((0..100).map(person).collect::<HashSet<_>>().len(), 100);
        let sticks = |host: u64| -> HashSet<String> {
            let sticks = events(host, 5000).into_iter();
            sticks.filter_map(|event| Some(event.file?.device?.serial)).collect()
        };
        assert!(sticks(1).intersection(&sticks(2)).count() > 0);
    }
}
