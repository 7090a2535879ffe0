//! Every bound of the agent's user-space part that is not part of the kernel interface.

use std::time::Duration;

/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 256 << 10;

/// Bytes of one spooled event as it is encoded. The ring's records stay far below.
pub const EVENT_BYTES_MAX: usize = 256 << 10;
/// Bytes of one spool segment unless the configuration says otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 4 << 20;
/// Least bytes of a spool segment: two of the largest events fit.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Most bytes of a spool segment; recovery and dropping read one segment into memory.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// A lane's bound is at least this many segments, so that dropping one never empties it.
pub const LANE_SEGMENTS_MIN: u64 = 4;
/// A segment that is older than this is closed although it is not full.
pub const SEGMENT_AGE_MAX: Duration = Duration::from_secs(600);
/// Bytes that telemetry may take on disk unless the configuration says otherwise.
pub const TELEMETRY_BYTES_DEFAULT: u64 = 1 << 30;
/// Bytes that denials and alerts may take on disk unless the configuration says otherwise.
pub const ALERT_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes appended but not yet written to the kernel; `append` writes by itself beyond them.
pub const SPOOL_BUFFER_BYTES_MAX: usize = 1 << 20;
/// Longest time between a write and its `fdatasync` unless the configuration says otherwise.
pub const SYNC_INTERVAL_MS_DEFAULT: u64 = 200;
/// Damaged segments that are kept aside for a person to look at; the oldest goes first.
pub const CORRUPT_FILES_MAX: usize = 8;
/// Bytes that may be checksummed in search of the next whole entry behind a damaged place.
pub const RESYNC_BYTES_MAX: u64 = 256 << 20;
/// Different (stage, kind, reason) sums that wait to become Loss events.
pub const LOSS_SUMS_MAX: usize = 64;
/// Events after which a signature is due.
pub const CHECKPOINT_EVENTS: usize = 512;
/// Longest time for which an event is not signed.
pub const CHECKPOINT_AGE_MAX: Duration = Duration::from_secs(60);
/// Events under one signature; each takes 16 bytes of the record.
pub const CHECKPOINT_EVENTS_MAX: usize = 4096;

/// Events of one batch to the collector.
pub const BATCH_EVENTS_MAX: usize = 500;
/// Bytes of the events of one batch to the collector; one event always fits.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that are sent and not yet acknowledged.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Alert batches in a row before telemetry gets its turn.
pub const ALERT_BATCHES_IN_ROW_MAX: u32 = 4;
/// Bytes of one message from the collector; the longest is a policy.
pub const ANSWER_BYTES_MAX: usize = sekimori_policy::limits::BUNDLE_BYTES_MAX + (64 << 10);
/// First wait before the collector is tried again.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
/// Longest wait before the collector is tried again.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Time to connect and to open the stream.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A collector that acknowledges nothing for this long while batches wait is taken as dead.
pub const ACKNOWLEDGEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// HTTP/2 pings on the connection, so that a vanished collector is noticed.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Wait for the answer to such a ping.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are read of a file with a token.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
/// Time for an enrolment or a renewal, once connected.
pub const ENROLL_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait behind the start, about, before the end of the certificate is looked at.
pub const RENEW_FIRST: Duration = Duration::from_secs(60);
/// Time between two looks at it, about.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(3600);
/// Time to find the addresses of the collector's name.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Time to connect to one of them.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// Addresses of the collector that are used. Each takes a group of destinations when the host is
/// cut off.
pub const PEERS_MAX: usize = 8;
/// Bytes of the file with the order to cut the host off.
pub const ORDER_BYTES_MAX: u64 = 64 << 10;
/// Bytes of the file with the collector's policy as it was signed.
pub const POLICY_KEPT_BYTES_MAX: u64 = ANSWER_BYTES_MAX as u64;
/// Bytes of the file with the key that the collector's policies are signed with.
pub const POLICY_KEY_BYTES_MAX: u64 = 1 << 10;
/// Bytes of the file with the last epoch of the collector's policy.
pub const EPOCH_BYTES_MAX: u64 = 64;
/// Time between two words to the collector of how the agent stands.
pub const STATE_INTERVAL: Duration = Duration::from_secs(30);
/// Sentences of what does not work that are told to the collector.
pub const FINDINGS_MAX: usize = 32;
/// Characters of such a sentence.
pub const FINDING_CHARS_MAX: usize = 160;

/// Turns of reading the rings at the end; what comes later is the next agent's.
pub const STOP_TURNS_MAX: usize = 64;

/// Processes known at one time.
pub const PROCESSES_MAX: usize = 1 << 16;
/// Ended processes that are still known, for their last records and their children.
pub const EXITED_KEPT_MAX: usize = 1 << 13;
/// Parents named in a record, nearest first.
pub const ANCESTORS_MAX: usize = 16;
/// Bytes of arguments kept for a process that ran before the agent.
pub const ARGUMENTS_KEPT_BYTES_MAX: usize = 4096;
/// User names remembered at one time.
pub const USERS_KEPT_MAX: usize = 4096;
/// How long a user's name is remembered.
pub const USER_KEPT: Duration = Duration::from_secs(300);
/// Bytes read of the mount table.
pub const MOUNT_TABLE_BYTES_MAX: u64 = 4 << 20;
/// File systems whose mount points are remembered, unmounted ones included.
pub const MOUNTS_KEPT_MAX: usize = 4096;
/// Longest wait for the mount point of a file system that is being mounted.
pub const MOUNT_PATIENCE: Duration = Duration::from_secs(2);
/// File systems that wait for their mount point at one time.
pub const MOUNTING_MAX: usize = 64;
/// The wall clock is followed when it moved this far against the boot clock, ns.
pub const CLOCK_DRIFT_NS: i64 = 1_000_000;
/// A move this far is a step and is recorded, ns.
pub const CLOCK_STEP_NS: i64 = 2_000_000_000;
/// Policies whose rules are still known by name, for records that were decided before a reload.
pub const GENERATIONS_KEPT_MAX: usize = 8;
/// Polls in which a gap in the ring's numbers must stay before it counts as an unexplained loss: a
/// preempted program may still write the record.
pub const GAP_POLLS: u32 = 5;

/// Ring records that are decoded, put in order of time and recorded at one go: enough to bring a
/// launch and what it did into order, little enough that control requests wait milliseconds.
pub const DRAIN_RECORDS_MAX: usize = 1 << 11;
/// Bytes of them. They stay in the agent's memory once they were needed.
pub const DRAIN_BYTES_MAX: usize = 2 << 20;
/// After so many bytes of records, memory that they took is given back to the machine.
pub const GIVE_BACK_BYTES: usize = 8 << 20;
/// Time for which telemetry gathers on its ring before it is read. The ring holds many times what a
/// machine that is busy with nothing but recorded opens writes in it.
pub const GATHER: Duration = Duration::from_millis(20);
/// After a turn that found so many records, the next one follows at once.
pub const GATHER_RECORDS_MAX: usize = 1 << 9;
/// Longest wait for ring records before the spool is looked after.
pub const DRAIN_PATIENCE: Duration = Duration::from_millis(500);
/// Least time between two looks at the devices: one that is plugged in is announced many times.
pub const DEVICES_INTERVAL: Duration = Duration::from_millis(50);
/// Processes that write to removable media at one time and whose sources are noted.
pub const WRITERS_MAX: usize = 1 << 8;
/// Sources that a receipt names.
pub const RECEIPT_SOURCES_MAX: usize = 64;
/// Bytes of them.
pub const RECEIPT_SOURCES_BYTES_MAX: usize = 32 << 10;
/// Files that wait to be hashed.
pub const RECEIPTS_WAITING_MAX: usize = 1 << 12;
/// Bytes of their receipts.
pub const RECEIPTS_WAITING_BYTES_MAX: usize = 8 << 20;
/// For so long after somebody asked to unmount it nothing is read from a file system for receipts.
pub const RECEIPTS_LEAVE: Duration = Duration::from_secs(3);
/// Bytes of a file that is hashed for its receipt. While it is read its medium is busy.
pub const RECEIPT_FILE_BYTES_MAX: u64 = 1 << 30;
/// Time for the hashes that are not computed yet when the agent stops.
pub const RECEIPTS_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are kept of what records say of processes again and again.
pub const DESCRIBED_BYTES_MAX: usize = 16 << 20;
/// Time between two looks at the counters and the clock.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time the collector has to acknowledge what is left when the agent stops.
pub const SHIP_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages in a row to one terminal about one rule.
pub const TELL_BURST: u32 = 3;
/// Time after which one more may follow.
pub const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// Messages in a row to all terminals together.
pub const TELL_BURST_ALL: u32 = 20;
/// Time after which one more may follow.
pub const TELL_INTERVAL_ALL: Duration = Duration::from_millis(200);
/// How long a message waits for a terminal that is busy.
pub const TELL_PATIENCE: Duration = Duration::from_secs(3);
/// Messages that wait for their terminals.
pub const TELL_WAITING_MAX: usize = 64;
/// (terminal, rule) pairs remembered at one time.
pub const TELL_PAIRS_MAX: usize = 1024;
/// Bytes of one message on a terminal.
pub const TELL_BYTES_MAX: usize = 2048;

/// Bytes of one request on the control socket.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4096;
/// Bytes of one answer on the control socket.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Time for one request and its answer on the control socket.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests on the control socket that are answered at one time.
pub const CONTROL_CLIENTS_MAX: usize = 8;
/// Bytes of a policy file.
pub const POLICY_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a policy's text in the record of it, compressed.
pub const POLICY_TEXT_BYTES_MAX: usize = 192 << 10;

/// Addresses whose DNS names are remembered.
pub const ADDRESSES_MAX: usize = 1 << 12;
/// DNS names remembered for one address; the latest ones stay.
pub const NAMES_PER_ADDRESS_MAX: usize = 4;
/// Addresses taken from one DNS answer.
pub const ADDRESSES_PER_ANSWER_MAX: usize = 256;
/// A DNS name is remembered for its time to live, and at least this long: programs use an address
/// for longer than they may.
pub const ANSWER_KEPT_MIN: Duration = Duration::from_secs(600);
/// Longest time for which a DNS name is remembered.
pub const ANSWER_KEPT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of the name of a host (RFC 1035, 2.3.4: 255 on the wire).
pub const HOST_BYTES_MAX: usize = 253;

/// Flows that are looked at or described at one time.
pub const FLOWS_MAX: usize = 1 << 10;
/// Bytes that are looked at of one TCP flow: what the kernel half gives.
pub const FLOW_BYTES_MAX: usize = sekimori_abi::limits::FLOW_BYTES_MAX as usize;
/// Pieces that are looked at of one flow; the kernel gives no more.
pub const FLOW_PIECES_MAX: usize = 16;
/// Bytes of the ClientHello of one QUIC flow.
pub const CRYPTO_BYTES_MAX: usize = 8192;
/// Separate parts in which a ClientHello over QUIC may be there at one time.
pub const CRYPTO_PARTS_MAX: usize = 64;
/// QUIC packets that are looked at in one datagram.
pub const QUIC_PACKETS_MAX: usize = 8;
/// Bytes of the method of an HTTP request.
pub const HTTP_METHOD_BYTES_MAX: usize = 32;
/// Bytes kept of the path of an HTTP request.
pub const HTTP_PATH_BYTES_MAX: usize = 1024;
/// Recipients of a mail that are named.
pub const RECIPIENTS_MAX: usize = 64;
/// Bytes of an address of a mail (RFC 5321, 4.5.3.1: 64 before the @, 255 behind it).
pub const MAIL_ADDRESS_BYTES_MAX: usize = 320;
