//! Every bound of the collector, in one place.

use std::time::Duration;

/// Bytes of one request of an agent, encoded.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of what an operator asks at a time, encoded: the longest question that is recorded fits.
pub const ASKED_BYTES_MAX: usize = 2 * QUESTION_BYTES_MAX;
/// Bytes of one answer, encoded. Stock clients refuse more than 4 MiB.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;
/// Events of one batch.
pub const BATCH_EVENTS_MAX: usize = 1000;
/// Bytes of one event, encoded.
pub const EVENT_BYTES_MAX: usize = 256 << 10;
/// Bytes of an agent boot, exactly.
pub const BOOT_BYTES: usize = 16;
/// Bytes of a path, an executable or a working directory.
pub const PATH_BYTES_MAX: usize = 8 << 10;
/// Bytes of all arguments of one process.
pub const ARGV_BYTES_MAX: usize = 64 << 10;
/// Arguments of one process.
pub const ARGV_PARTS_MAX: usize = 16 << 10;
/// Bytes of a short text: user, rule, device, address, stage.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a sentence: message of the agent, reason of a loss.
pub const SENTENCE_BYTES_MAX: usize = 4 << 10;
/// Ancestors of a process.
pub const ANCESTORS_MAX: usize = 32;
/// Characters of an agent's or operator's name.
pub const PEER_NAME_MAX: usize = 64;

/// Batches of one agent that are read but not yet acknowledged.
pub const STREAM_BATCHES_MAX: usize = 8;
/// Batches of all agents that wait for the writer; more wait in their streams.
pub const WRITER_QUEUE_MAX: usize = 32;
/// Events committed in one transaction, about: the batch that reaches it is the last one.
pub const COMMIT_EVENTS_MAX: usize = 32_000;
/// How long the first batch of a transaction waits for others.
pub const COMMIT_GATHER: Duration = Duration::from_millis(5);
/// Events that are joined into blocks of one kind each; fewer wait for more of them.
pub const JOINED_EVENTS: usize = 16_384;
/// Blocks that wait to be joined, however few events they have: each costs a question a look.
pub const SMALL_BLOCKS_MAX: usize = 512;
/// Events of one block.
pub const BLOCK_EVENTS_MAX: usize = 1024;
/// Bytes of the events of one block, unless it is a single one.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a block with all that belongs to it, decompressed.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Values of one field that a block is found by; with more of them it is found by any.
pub const BLOCK_FIELD_TAGS_MAX: usize = 256;
/// How hard blocks are compressed: the least of zstd's levels that are no shortcut.
pub const ZSTD_LEVEL: i32 = 1;
/// Bytes of a file of the store behind which the next one is begun.
pub const FILE_BYTES_MAX: u64 = 4 << 30;
/// Time between two looks at what is to be removed.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
/// Cursors that are left out behind a file whose own cannot be read.
pub const CURSORS_SKIPPED: u64 = 1 << 40;
/// Pause of the writer after a failed commit, so that a full disk is not hammered.
pub const WRITER_PAUSE: Duration = Duration::from_millis(200);
/// How long SQLite waits for a lock held by someone else.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the write-ahead log is cut back to after a checkpoint.
pub const WAL_BYTES_KEPT: i64 = 64 << 20;

/// Connections that read the store.
pub const READERS_MAX: usize = 4;
/// How long one query may run.
pub const QUERY_TIME_MAX: Duration = Duration::from_secs(20);
/// Parts of the store that cannot be read, of which one answer tells.
pub const GAPS_TOLD_MAX: usize = 20;
/// The same for a verification.
pub const VERIFY_TOLD_MAX: usize = 1000;
/// What a verification tells of the indexes of one file.
pub const INDEX_FAULTS_MAX: usize = 3;
/// Blocks that are kept unpacked, for the next one who asks.
pub const BLOCKS_KEPT: usize = 64;
/// Events of one search page.
pub const SEARCH_EVENTS_MAX: u32 = 1000;
/// Events of a search page when the request does not say.
pub const SEARCH_EVENTS_DEFAULT: u32 = 100;
/// Bytes of the events of one page; the page ends early so that the answer fits.
pub const PAGE_BYTES_MAX: usize = 3 << 20;
/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 4 << 10;
/// Brackets and conditions of an expression that lie in one another.
pub const EXPRESSION_NESTING_MAX: usize = 32;
/// Parts of an expression that lie in one another, once it is parsed.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Bytes of alerts.yaml.
pub const ALERT_FILE_BYTES_MAX: u64 = 256 << 10;
/// Rules in it.
pub const ALERT_RULES_MAX: usize = 200;
/// Endpoints in it.
pub const ALERT_ENDPOINTS_MAX: usize = 32;
/// Parts of a sequence.
pub const ALERT_STAGES_MAX: usize = 8;
/// The longest time that a rule looks back, or an alert waits.
pub const ALERT_WITHIN_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Groups of one rule that are counted at a time; those that were still longest make room.
pub const ALERT_GROUPS_MAX: usize = 10_000;
/// Open alerts of one rule; what comes beyond them is one more.
pub const ALERTS_OPEN_MAX: u64 = 500;
/// Alerts that are kept, those that are over first to go. The record of each stays in the store.
pub const ALERTS_KEPT: u64 = 100_000;
/// Notices of one endpoint that wait; the oldest make room, and are counted.
pub const ALERT_NOTICES_MAX: usize = 20_000;
/// Between two looks at what is new.
pub const ALERT_GATHER: Duration = Duration::from_millis(200);
/// Between two looks at what is over, and at the file.
pub const ALERT_TICK: Duration = Duration::from_secs(5);
/// Between two notes of how far the store is.
pub const ALERT_MARK_INTERVAL: Duration = Duration::from_secs(60);
/// The first and the longest pause before a notice is tried again.
pub const NOTICE_PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest one.
pub const NOTICE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long a notice is tried.
pub const NOTICE_TIME_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Alerts of a page.
pub const ALERTS_PAGE_MAX: u32 = 1000;
/// Alerts of a page when the request does not say.
pub const ALERTS_PAGE_DEFAULT: u32 = 100;
/// Values of one repeated condition of a filter.
pub const FILTER_VALUES_MAX: usize = 200;
/// Bytes of one value of a filter.
pub const FILTER_BYTES_MAX: usize = 4 << 10;
/// Memory of the values that a question keeps while it goes from block to block by columns; beyond
/// it, it begins anew with the next block.
pub const COLUMN_BYTES_KEPT: usize = 16 << 20;
/// Combinations of their numbers that it keeps.
pub const COLUMN_NUMBERS_KEPT: usize = 200_000;
/// Events of a block that are decoded for its columns; a block with more of them gets none.
pub const COLUMN_DECODED_MAX: usize = 64;
/// Fields that events are put into groups by.
pub const GROUP_FIELDS_MAX: usize = 4;
/// Groups that one question may make, of which the answer has some.
pub const GROUPS_MAX: usize = 100_000;
/// Groups of one answer.
pub const GROUPS_SHOWN_MAX: u32 = 1000;
/// Groups of an answer when the request does not say.
pub const GROUPS_SHOWN_DEFAULT: u32 = 20;
/// Different values that one question may count, over all groups.
pub const DISTINCT_VALUES_MAX: usize = 500_000;
/// Seconds that a time zone may be from UTC.
pub const ZONE_OFFSET_MAX: i32 = 18 * 3600;
/// Questions of one operator that wait or run; more are refused.
pub const QUESTIONS_RUNNING_MAX: usize = 20;
/// Questions of one operator that read the store at one time; one place is left for others.
pub const QUESTIONS_READING_MAX: usize = READERS_MAX - 1;
/// Time between two questions of one operator, in the long run.
pub const QUESTION_INTERVAL: Duration = Duration::from_millis(10);
/// Questions of one operator that need not keep to it.
pub const QUESTIONS_BURST: u32 = 200;
/// Operators whose questions are told apart; the idle ones are forgotten first.
pub const OPERATORS_KEPT_MAX: usize = 1024;
/// Bytes of a question as its record tells it. What is longer is refused: nothing is left out of
/// the record.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;
/// Bytes of a page token.
pub const PAGE_TOKEN_BYTES_MAX: usize = 128;

/// Live streams at one time.
pub const SUBSCRIBERS_MAX: usize = 256;
/// Live streams of one operator.
pub const SUBSCRIBERS_OF_ONE_MAX: usize = 16;
/// Events a subscriber may lag behind its own reading task.
pub const SUBSCRIBER_QUEUE_MAX: usize = 64;
/// Events that are handed to it at a time.
pub const SUBSCRIBER_CHUNK: usize = 16;
/// Events a subscriber's task reads from the store at once.
pub const WATCH_PAGE_EVENTS: usize = 1000;
/// How long a subscriber who has been told everything waits for more than the next commit.
pub const WATCH_GATHER: Duration = Duration::from_millis(50);
/// Events of the tail that a live stream looks at without a place among those who read the store.
pub const STEP_AT_ONCE_MAX: usize = 4_000;
/// Texts that it may look for in each.
pub const STEP_TEXTS_MAX: usize = 8;
/// Events of the last commits that are kept as they are for those who follow the store.
pub const TAIL_EVENTS_MAX: usize = 131_072;
/// Their bytes.
pub const TAIL_BYTES_MAX: usize = 64 << 20;
/// Events whose blocks a subscriber's task looks at in one query, however few of them match.
pub const WATCH_WINDOW: u64 = 20_000;

/// Records of one OTLP request.
pub const OTLP_EVENTS_MAX: usize = WATCH_PAGE_EVENTS;
/// Bytes of them, unless it is a single one. Stock receivers refuse more than 4 MiB.
pub const OTLP_REQUEST_BYTES: usize = 2 << 20;
/// Bytes of what an OTLP receiver answers.
pub const OTLP_ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long it waits for more events before it sends some.
pub const OTLP_GATHER: Duration = Duration::from_millis(500);
/// How long one request may take.
pub const OTLP_SEND_TIME_MAX: Duration = Duration::from_secs(30);
/// The first pause before a request is tried again.
pub const OTLP_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest one.
pub const OTLP_PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest one that a receiver may ask for.
pub const OTLP_PAUSE_ASKED_MAX: Duration = Duration::from_secs(600);
/// Events that are refused for good one after the other; then it is the receiver that is wrong, and
/// nothing more is left out.
pub const OTLP_REFUSED_MAX: usize = 100;
/// Headers of a request.
pub const OTLP_HEADERS_MAX: usize = 32;
/// Bytes of the file with them.
pub const OTLP_HEADERS_BYTES_MAX: u64 = 16 << 10;

/// Time between two signatures over the collector's own records, when there are any.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Records under one signature; each takes 16 bytes of it.
pub const CHECKPOINT_EVENTS_MAX: usize = 4096;
/// Time between two looks for checkpoints that are to be countersigned.
pub const CUSTODY_INTERVAL: Duration = Duration::from_secs(10);
/// Checkpoints that one record countersigns.
pub const COUNTERSIGNED_MAX: usize = 1000;
/// Verifications and exports at one time: each reads all of the store.
pub const EVIDENCE_RUNNING_MAX: usize = 1;
/// Events between two words on how far a verification has come.
pub const EVIDENCE_PROGRESS: u64 = 100_000;
/// Links that a verification may be asked for.
pub const HEADS_MAX: usize = 10_000;
/// Bytes of a request for a verification or a case, encoded: all these links fit.
pub const EVIDENCE_BYTES_MAX: usize = ASKED_BYTES_MAX + HEADS_MAX * (PEER_NAME_MAX + 128);
/// Records of one case.
pub const CASE_RECORDS_MAX: u64 = 1_000_000;
/// Bytes of the records of one case.
pub const CASE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of the reason for a case.
pub const CASE_REASON_BYTES_MAX: usize = 2 << 10;
/// Bytes of a case that are sent at once.
pub const CASE_CHUNK_BYTES: usize = 256 << 10;

/// Events of one row group of an archive: as many as the usual readers take at once.
pub const ARCHIVE_GROUP_ROWS: usize = 122_880;
/// Bytes of the values of one row group; it ends early behind them.
pub const ARCHIVE_GROUP_BYTES: usize = 64 << 20;
/// How hard an archive is compressed: it is written once and kept for long.
pub const ARCHIVE_ZSTD_LEVEL: i32 = 9;
/// Bytes of the list of what an archive has.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Time between two words on how far a file of an archive has come.
pub const ARCHIVE_PROGRESS: Duration = Duration::from_secs(10);
/// Damaged parts of one file that are told one by one.
pub const ARCHIVE_DAMAGE_TOLD_MAX: u64 = 20;

/// Bytes of a file of an archive that are sent to a bucket at once, and are in memory; S3 takes
/// 10,000 times as much as one file.
pub const ARCHIVE_SENT_BYTES: usize = 16 << 20;
/// Time for one request to a bucket.
pub const BUCKET_TIME_MAX: Duration = Duration::from_secs(180);
/// How often a request to a bucket is repeated after an error that may pass.
pub const BUCKET_RETRIES_MAX: usize = 6;
/// Time after which it is not repeated any more.
pub const BUCKET_RETRY_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of a file with credentials for a bucket.
pub const BUCKET_CREDENTIALS_BYTES_MAX: u64 = 16 << 10;

/// Bytes of the list of revoked certificates.
pub const REVOKED_BYTES_MAX: u64 = 16 << 20;
/// Time between two looks at it.
pub const REVOKED_INTERVAL: Duration = Duration::from_secs(1);
/// Certificates of one revoked name that are still let in when the list is made shorter.
pub const REVOKED_EXCEPT_KEPT: usize = 8;

/// Time between two looks at the collector's certificates. They are read when they did not change
/// for as long: key and certificate are two files.
pub const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(1);
/// Days before the end of the collector's own certificate from which on the log warns of it.
pub const CERTIFICATE_DAYS_LEFT: i64 = 90;
/// Days before the end of the authority from which on the log warns of it.
pub const AUTHORITY_DAYS_LEFT: i64 = 365;
/// Certificates of authorities that are sent with the collector's own.
pub const AUTHORITIES_SHOWN_MAX: usize = 4;
/// Seconds of a day.
pub const SECONDS_A_DAY: u64 = 86_400;
/// Bytes of a request for a certificate; one for a key on P-256 has some 250.
pub const CSR_BYTES_MAX: usize = 4 << 10;
/// Bytes of one call of `EnrollService`, encoded.
pub const ENROLL_BYTES_MAX: usize = 16 << 10;
/// Days that the certificate of a peer may be valid.
pub const PEER_DAYS_MAX: u32 = 3650;
/// Tokens that nobody used yet.
pub const TOKENS_MAX: usize = 10_000;
/// How soon what was done beside the collector becomes a record.
pub const DESK_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after one could not be stored.
pub const DESK_PAUSE: Duration = Duration::from_secs(30);
/// Notes that are read at a time.
pub const DESK_NOTES_MAX: usize = 1000;
/// Bytes of one of them: less than an event may have.
pub const NOTE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a SHA-256.
pub const SHA256_BYTES: usize = 32;
/// Bytes of the file of one token.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
/// How long a token may be good for.
pub const TOKEN_TIME_MAX: Duration = Duration::from_secs(30 * SECONDS_A_DAY);
/// And how long at least.
pub const TOKEN_TIME_MIN: Duration = Duration::from_secs(60);
/// Connections without a certificate at one time.
pub const STRANGERS_MAX: usize = 64;
/// Of them, from one address (IPv6: from one /64).
pub const STRANGERS_OF_ONE_MAX: usize = 16;
/// How long such a connection may last.
pub const STRANGER_TIME_MAX: Duration = Duration::from_secs(30);
/// Time between two attempts to enrol from one address that fail, in the long run.
pub const ATTEMPT_INTERVAL: Duration = Duration::from_secs(6);
/// Attempts from one address that need not keep to it.
pub const ATTEMPTS_BURST: u32 = 20;
/// The same for all addresses together.
pub const ATTEMPTS_ALL_INTERVAL: Duration = Duration::from_millis(50);
/// Attempts from all addresses that need not keep to it.
pub const ATTEMPTS_ALL_BURST: u32 = 500;
/// Time between two renewals of one name, in the long run.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Renewals of one name that need not keep to it.
pub const RENEWALS_BURST: u32 = 10;
/// Addresses, and names, whose pace is known at one time; those that were idle longest go first.
pub const PACES_KEPT_MAX: usize = 16 << 10;

/// Open connections.
pub const CONNECTIONS_MAX: usize = 2048;
/// Connections that may shake hands at one time. One address has at most as many of them as are
/// left for all others.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a peer may take to shake hands.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a peer may take from there to the preface of HTTP/2. Behind it, it is asked whether it
/// is still there.
pub const PREFACE_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections with certificates of one name and role. Those whose other end is gone are among them
/// until that is noticed.
pub const PEER_CONNECTIONS_MAX: usize = 64;
/// Streams of events of one host, likewise.
pub const HOST_STREAMS_MAX: usize = 16;
/// How long a message may take from its first byte to its last. A full batch of an agent comes in
/// time with 10 KB/s.
pub const MESSAGE_TIME_MAX: Duration = Duration::from_secs(120);
/// Pause after `accept` failed, usually for want of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Calls at one time on one connection.
pub const CONNECTION_CALLS_MAX: u32 = 64;
/// How long a call may take to its first answer.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// HTTP/2 flow-control window of one stream: one full request fits.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 flow-control window of one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of the headers of one call.
pub const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Idle time after which a peer is asked whether it is still there.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer that.
pub const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a stop waits for calls that are still open.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Hosts that are known; the certificates of more are good, and they are not in the list.
pub const FLEET_HOSTS_MAX: usize = 100_000;
/// Bytes of what an agent says of itself, encoded. What is longer is not kept.
pub const HOST_STATE_BYTES_MAX: usize = 8 << 10;
/// Time between two looks at who is silent, and between two writes of what is known.
pub const FLEET_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two writes of a host of which nothing changed but that it gave a sign of life.
pub const FLEET_SIGNS_INTERVAL: Duration = Duration::from_secs(60);
/// A host is silent after this time unless it is said.
pub const SILENT_AFTER: Duration = Duration::from_secs(300);
/// The least that may be said: an agent gives a sign each 30 s.
pub const SILENT_AFTER_MIN: Duration = Duration::from_secs(60);
/// Hosts of one page when the request does not say.
pub const FLEET_PAGE_DEFAULT: u32 = 500;
/// Hosts of one page.
pub const FLEET_PAGE_MAX: u32 = 1000;
/// Bytes of the hosts of one page; the page ends early so that the answer fits.
pub const FLEET_PAGE_BYTES_MAX: usize = 3 << 20;
/// A host whose certificate ended and that gave no sign for so many days is forgotten.
pub const FLEET_DAYS_KEPT: i64 = 90;

/// Versions of policies for the hosts. The oldest that a newer one replaced makes room.
pub const POLICIES_MAX: usize = 100;
/// Bytes of one call of `PolicyService`, encoded: the longest policy fits.
pub const POLICY_REQUEST_BYTES_MAX: usize = 5 << 20;
/// How far the next epoch goes beyond the last one because a host says that it has had one.
pub const EPOCH_LEAP_MAX: u64 = 1_000_000;
/// Findings of one answer.
pub const POLICY_FINDINGS_MAX: usize = 200;
/// Hosts of one version that are named in an answer.
pub const POLICY_HOSTS_SHOWN_MAX: usize = 1000;
/// Replays at one time: each reads much of the store.
pub const REPLAYS_RUNNING_MAX: usize = 1;
/// How long a replay may take.
pub const REPLAY_TIME_MAX: Duration = Duration::from_secs(600);
/// Time between two words on how far it has come.
pub const REPLAY_PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Groups of events that a replay tells apart.
pub const REPLAY_GROUPS_MAX: usize = 20_000;
/// Groups of its answer.
pub const REPLAY_GROUPS_SHOWN_MAX: usize = 2000;
/// Events that are named of each group.
pub const REPLAY_SAMPLES: usize = 5;
/// Events between two of its words at most.
pub const REPLAY_PROGRESS: u64 = 10_000;

/// Characters of the name of an endpoint.
pub const ENDPOINT_NAME_MAX: usize = 64;
/// Entries of the list of where notices may go.
pub const EGRESS_ENTRIES_MAX: usize = 256;
/// Recipients of one endpoint's mail.
pub const RECIPIENTS_MAX: usize = 50;
/// Bytes of a password or a key.
pub const SECRET_BYTES_MAX: u64 = 4 << 10;
/// Bytes of a key that webhooks are signed with, at least.
pub const SIGNING_SECRET_BYTES_MIN: usize = 16;
/// Bytes of a notice's title as it is sent.
pub const TITLE_BYTES_MAX: usize = 512;
/// Bytes of a notice's text as it is sent.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a webhook's body with what machines are told; with more of it, it is left out.
pub const HOOK_BODY_BYTES_MAX: usize = 512 << 10;
/// Bytes of a webhook's answer that are read.
pub const HOOK_ANSWER_BYTES_MAX: usize = 4 << 10;
/// Bytes of the head of a webhook's answer.
pub const HOOK_HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of a server's answer that an error tells.
pub const ANSWER_TOLD_BYTES_MAX: usize = 300;
/// The longest that a webhook may ask to wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Bytes that a mail server may say in one connection.
pub const SMTP_BYTES_MAX: usize = 256 << 10;
/// Mails of which it is known who has them already, when others are still to get them.
pub const MAILS_KEPT_MAX: usize = 256;
/// Bytes of one syslog datagram. Every receiver should take so many (RFC 5424, section 6.1).
pub const SYSLOG_DATAGRAM_BYTES: usize = 2048;
/// Bytes of one syslog record on a connection; rsyslog takes 8 KiB unless told otherwise.
pub const SYSLOG_RECORD_BYTES_MAX: usize = 8 << 10;
/// Bytes of one value of a syslog record's structured data.
pub const SYSLOG_VALUE_BYTES_MAX: usize = 256;
/// Addresses of one name that are tried.
pub const ADDRESSES_TRIED_MAX: usize = 8;
/// How long one of them may take to answer.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a mail may take, in all. Servers make strangers wait.
pub const MAIL_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a webhook may take, in all.
pub const HOOK_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a syslog record may take, in all.
pub const SYSLOG_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the other side may take to say goodbye. By then it has the notice.
pub const GOODBYE_TIME_MAX: Duration = Duration::from_secs(2);

/// How far a host's clock may be from the collector's before that is said to be wrong.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(60);

/// Bytes of `bus.yaml`.
pub const BUS_FILE_BYTES_MAX: u64 = 16 << 10;
/// Servers named in it.
pub const BUS_SERVERS_MAX: usize = 16;
/// Bytes of a collector's and of a stream's name on the bus. NATS keeps directories of these names.
pub const BUS_NAME_BYTES_MAX: usize = 32;
/// Bytes of events after which a message of the bus is closed. With one event more, and if nothing
/// could be made smaller, it is below the 1 MiB that servers take by default.
pub const PARCEL_BYTES: usize = 640 << 10;
/// Bytes of a message, unpacked.
pub const PARCEL_BYTES_MAX: u64 = 1 << 20;
/// Bytes of messages that were published and not answered.
pub const BUS_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// The same in messages.
pub const BUS_FLIGHT_MESSAGES_MAX: usize = 4096;
/// Messages asked for at once.
pub const BUS_FETCH_MAX: usize = 64;
/// Messages that were given and not answered.
pub const BUS_UNANSWERED_MAX: i64 = 128;
/// After which time the stream has taken a message, or the agent sends it again.
pub const BUS_PUBLISH_TIME_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at what the stream forgot to give: longer than until it is given again.
pub const BUS_MEND_INTERVAL: Duration = Duration::from_secs(40);
/// Messages that one look takes; the next look goes on soon then.
pub const BUS_MEND_MAX: usize = 1000;
/// How long what was found is left to the other collectors, which may have been given it no more than
/// this one: time for some looks of theirs.
pub const BUS_MEND_LEFT: Duration = Duration::from_secs(150);
/// Messages that are left to them at a time.
pub const BUS_MEND_LEFT_MAX: usize = 100_000;
/// After which time a message that was given and not answered is given again.
pub const BUS_STORE_TIME_MAX: Duration = Duration::from_secs(30);
/// How often the consumer says that it is there when it has nothing.
pub const BUS_HEARTBEAT: Duration = Duration::from_secs(5);
/// The pause before something is tried again.
pub const BUS_AGAIN: Duration = Duration::from_secs(2);
/// Signs of life that wait for the bus.
pub const BUS_SIGNS_MAX: usize = 4096;
/// Commands that wait for the connection to the bus.
pub const BUS_COMMANDS_MAX: usize = 128;
/// How often it is said that the bus takes nothing.
pub const BUS_TOLD_INTERVAL: Duration = Duration::from_secs(10);
/// After which time a message is given again that the store could not take.
pub const BUS_FULL_PAUSE: Duration = Duration::from_secs(30);
/// The same of one that this version does not take.
pub const BUS_LATER: Duration = Duration::from_secs(600);
/// How old a sign of life may be that another collector heard.
pub const SIGN_AGE_MAX: Duration = Duration::from_secs(30);
