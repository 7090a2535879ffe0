//! An event as an expression sees it: the names of its JSON form, and a value under every one.
//!
//! What an event does not have is empty, 0 or false, as in CEL over protobuf messages. Numbers whose
//! 0 means something (`login_uid`, `session_id`, `exit_code`) are -1 when they are absent.

use std::borrow::Cow;
use std::sync::LazyLock;

use cel::ExecutionError;
use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelInt, CelList, CelString, CelTimestamp, Type as CelType};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use sekimori_proto::json::escape;
use sekimori_proto::v1;
use sekimori_proto::words::Word as _;

/// What lies under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text that lies in the record byte by byte, but for what is escaped.
    Text,
    /// Text that is made of something: a word, hexadecimal digits.
    Made,
    /// The word of a kind.
    Kind,
    /// The word of a verdict.
    Verdict,
    /// The word of an operation.
    Operation,
    /// A whole number.
    Int,
    /// True or false.
    Bool,
    /// A point in time.
    Time,
    /// Fields of its own.
    Is(Shape),
    /// A list of texts that lie in the record.
    Texts,
    /// A list of what has fields of its own.
    Many(Shape),
}

/// What has fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The event itself.
    Event,
    /// A process.
    Process,
    /// A file.
    File,
    /// A device.
    Device,
    /// Where something is sent.
    Destination,
    /// A name of that.
    Name,
    /// A request of HTTP.
    Http,
    /// An envelope of SMTP.
    Smtp,
    /// What was lost.
    Loss,
    /// What an operator did.
    Act,
    /// What became of a host.
    HostChange,
    /// A policy that came into force.
    Policy,
    /// An alert.
    Alert,
}

/// Of an event, what has fields.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    Event(&'a v1::Event),
    Process(&'a v1::Process),
    File(&'a v1::File),
    Device(&'a v1::Device),
    Destination(&'a v1::Destination),
    Name(&'a v1::Name),
    Http(&'a v1::HttpRequest),
    Smtp(&'a v1::SmtpEnvelope),
    Loss(&'a v1::Loss),
    Act(&'a v1::OperatorAct),
    HostChange(&'a v1::HostChange),
    Policy(&'a v1::PolicyText),
    Alert(&'a v1::AlertRaised),
}

/// The value under a name.
pub enum Field<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Bool(bool),
    Time(i64),
    Node(Node<'a>),
    Texts(Vec<Cow<'a, str>>),
    Nodes(Vec<Node<'a>>),
}

impl Shape {
    /// Every name and what lies under it.
    pub const fn fields(self) -> &'static [(&'static str, Type)] {
        match self {
            Shape::Event => &[
                ("time", Type::Time),
                ("host", Type::Text),
                ("seq", Type::Int),
                ("kind", Type::Kind),
                ("operation", Type::Operation),
                ("verdict", Type::Verdict),
                ("rule", Type::Text),
                ("process", Type::Is(Shape::Process)),
                ("file", Type::Is(Shape::File)),
                ("bytes", Type::Int),
                ("bytes_in", Type::Int),
                ("calls", Type::Int),
                ("destination", Type::Is(Shape::Destination)),
                ("errno", Type::Int),
                ("truncated", Type::Bool),
                ("exit_code", Type::Int),
                ("signal", Type::Int),
                ("late", Type::Bool),
                ("sources", Type::Many(Shape::File)),
                ("more_sources", Type::Bool),
                ("sha256", Type::Made),
                ("device", Type::Is(Shape::Device)),
                ("loss", Type::Is(Shape::Loss)),
                ("act", Type::Is(Shape::Act)),
                ("policy", Type::Is(Shape::Policy)),
                ("host_change", Type::Is(Shape::HostChange)),
                ("alert", Type::Is(Shape::Alert)),
                ("message", Type::Text),
                ("cursor", Type::Int),
            ],
            Shape::Process => &[
                ("pid", Type::Int),
                ("start", Type::Time),
                ("exe", Type::Text),
                ("argv", Type::Texts),
                ("cwd", Type::Text),
                ("comm", Type::Text),
                ("uid", Type::Int),
                ("gid", Type::Int),
                ("user", Type::Text),
                ("login_uid", Type::Int),
                ("login_user", Type::Text),
                ("session_id", Type::Int),
                ("tty", Type::Text),
                ("environment", Type::Texts),
                ("cgroup_id", Type::Int),
                ("parent", Type::Is(Shape::Process)),
            ],
            Shape::File => &[
                ("path", Type::Text),
                ("new_path", Type::Text),
                ("inode", Type::Int),
                ("device", Type::Is(Shape::Device)),
                ("size", Type::Int),
                ("mode", Type::Int),
                ("open_flags", Type::Int),
                ("unlinked", Type::Bool),
                ("attribute", Type::Text),
            ],
            Shape::Device => &[
                ("class", Type::Text),
                ("vendor", Type::Text),
                ("product", Type::Text),
                ("serial", Type::Text),
                ("port", Type::Text),
                ("vendor_name", Type::Text),
                ("product_name", Type::Text),
                ("functions", Type::Texts),
                ("file_system", Type::Text),
                ("source", Type::Text),
            ],
            Shape::Destination => &[
                ("ip", Type::Text),
                ("port", Type::Int),
                ("protocol", Type::Text),
                ("path", Type::Text),
                ("names", Type::Many(Shape::Name)),
                ("http", Type::Is(Shape::Http)),
                ("smtp", Type::Is(Shape::Smtp)),
            ],
            Shape::Name => &[("name", Type::Text), ("source", Type::Made)],
            Shape::Http => &[("method", Type::Text), ("path", Type::Text)],
            Shape::Smtp => &[("from", Type::Text), ("to", Type::Texts), ("more", Type::Bool)],
            Shape::Loss => &[
                ("stage", Type::Text),
                ("kind", Type::Made),
                ("count", Type::Int),
                ("reason", Type::Text),
            ],
            Shape::Act => &[
                ("name", Type::Text),
                ("role", Type::Text),
                ("method", Type::Text),
                ("question", Type::Text),
                ("answered", Type::Int),
                ("address", Type::Text),
                ("phase", Type::Made),
            ],
            Shape::HostChange => &[
                ("turn", Type::Made),
                ("name", Type::Text),
                ("role", Type::Text),
                ("address", Type::Text),
                ("token", Type::Text),
                ("token_by", Type::Text),
                ("ordered_by", Type::Text),
                ("reason", Type::Text),
            ],
            Shape::Policy => &[("name", Type::Text), ("sha256", Type::Made)],
            Shape::Alert => &[
                ("rule", Type::Text),
                ("severity", Type::Text),
                ("title", Type::Text),
                ("count", Type::Int),
                ("bytes", Type::Int),
            ],
        }
    }

    /// What lies under a name.
    pub fn field(self, name: &str) -> Option<Type> {
        self.fields().iter().find(|(known, _)| *known == name).map(|(_, what)| *what)
    }

    fn cel_type(self) -> &'static CelType {
        macro_rules! types {
            ($($shape:ident => $name:literal,)*) => {
                match self {
                    $(Shape::$shape => {
                        static TYPE: CelType = CelType::new_unspecified_type($name);
                        &TYPE
                    })*
                }
            };
        }
        types! {
            Event => "sekimori.Event",
            Process => "sekimori.Process",
            File => "sekimori.File",
            Device => "sekimori.Device",
            Destination => "sekimori.Destination",
            Name => "sekimori.Name",
            Http => "sekimori.HttpRequest",
            Smtp => "sekimori.SmtpEnvelope",
            Loss => "sekimori.Loss",
            Act => "sekimori.OperatorAct",
            HostChange => "sekimori.HostChange",
            Policy => "sekimori.PolicyText",
            Alert => "sekimori.AlertRaised",
        }
    }
}

/// What stands for a part that an event does not have.
static NOTHING: LazyLock<Nothing> = LazyLock::new(Nothing::default);

#[derive(Default)]
struct Nothing {
    process: v1::Process,
    file: v1::File,
    device: v1::Device,
    destination: v1::Destination,
    http: v1::HttpRequest,
    smtp: v1::SmtpEnvelope,
    loss: v1::Loss,
    act: v1::OperatorAct,
    host_change: v1::HostChange,
    policy: v1::PolicyText,
    alert: v1::AlertRaised,
}

impl<'a> Node<'a> {
    /// Which fields it has.
    pub const fn shape(self) -> Shape {
        match self {
            Node::Event(_) => Shape::Event,
            Node::Process(_) => Shape::Process,
            Node::File(_) => Shape::File,
            Node::Device(_) => Shape::Device,
            Node::Destination(_) => Shape::Destination,
            Node::Name(_) => Shape::Name,
            Node::Http(_) => Shape::Http,
            Node::Smtp(_) => Shape::Smtp,
            Node::Loss(_) => Shape::Loss,
            Node::Act(_) => Shape::Act,
            Node::HostChange(_) => Shape::HostChange,
            Node::Policy(_) => Shape::Policy,
            Node::Alert(_) => Shape::Alert,
        }
    }

    /// The value under a name of [`Shape::fields`].
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        match self {
            Node::Event(it) => of_event(it, name),
            Node::Process(it) => of_process(it, name),
            Node::File(it) => of_file(it, name),
            Node::Device(it) => of_device(it, name),
            Node::Destination(it) => of_destination(it, name),
            Node::Name(it) => Some(match name {
                "name" => text(&it.name),
                "source" => text(it.source().word()),
                _ => return None,
            }),
            Node::Http(it) => Some(match name {
                "method" => text(&it.method),
                "path" => bytes(&it.path),
                _ => return None,
            }),
            Node::Smtp(it) => Some(match name {
                "from" => text(&it.from),
                "to" => Field::Texts(it.to.iter().map(|to| Cow::Borrowed(to.as_str())).collect()),
                "more" => Field::Bool(it.more),
                _ => return None,
            }),
            Node::Loss(it) => Some(match name {
                "stage" => text(&it.stage),
                "kind" if it.kind() == v1::Kind::Unspecified => text(""),
                "kind" => text(it.kind().word()),
                "count" => unsigned(it.count),
                "reason" => text(&it.reason),
                _ => return None,
            }),
            Node::Act(it) => Some(match name {
                "name" => text(&it.name),
                "role" => text(&it.role),
                "method" => text(&it.method),
                "question" => text(&it.question),
                "answered" => unsigned(it.answered),
                "address" => text(&it.address),
                "phase" if it.phase() == v1::ActPhase::Unspecified => text(""),
                "phase" => text(it.phase().word()),
                _ => return None,
            }),
            Node::HostChange(it) => Some(match name {
                "turn" => text(it.turn().word()),
                "name" => text(&it.name),
                "role" => text(&it.role),
                "address" => text(&it.address),
                "token" => text(&it.token),
                "token_by" => text(&it.token_by),
                "ordered_by" => text(&it.ordered_by),
                "reason" => text(&it.reason),
                _ => return None,
            }),
            Node::Policy(it) => Some(match name {
                "name" => text(&it.name),
                "sha256" => hexadecimal(&it.sha256),
                _ => return None,
            }),
            Node::Alert(it) => Some(match name {
                "rule" => text(&it.rule),
                "severity" => text(&it.severity),
                "title" => text(&it.title),
                "count" => unsigned(it.count),
                "bytes" => unsigned(it.bytes),
                _ => return None,
            }),
        }
    }
}

fn of_event<'a>(it: &'a v1::Event, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "time" => Field::Time(it.time_ns),
        "host" => text(&it.host),
        "seq" => unsigned(it.sequence),
        "kind" => text(it.kind().word()),
        "operation" if it.operation() == v1::Operation::Unspecified => text(""),
        "operation" => text(it.operation().word()),
        "verdict" => text(it.verdict().word()),
        "rule" => text(&it.rule),
        "process" => Field::Node(Node::Process(it.process.as_ref().unwrap_or(&NOTHING.process))),
        "file" => Field::Node(Node::File(it.file.as_ref().unwrap_or(&NOTHING.file))),
        "bytes" => unsigned(it.bytes.unwrap_or(0)),
        "bytes_in" => unsigned(it.bytes_in.unwrap_or(0)),
        "calls" => unsigned(it.calls.unwrap_or(0)),
        "destination" => {
            let destination = it.destination.as_ref().unwrap_or(&NOTHING.destination);
            Field::Node(Node::Destination(destination))
        }
        "errno" => Field::Int(it.errno.unwrap_or(0).into()),
        "truncated" => Field::Bool(it.truncated),
        "exit_code" => Field::Int(it.exit_code.map_or(-1, i64::from)),
        "signal" => Field::Int(it.signal.unwrap_or(0).into()),
        "late" => Field::Bool(it.late),
        "sources" => Field::Nodes(it.sources.iter().map(Node::File).collect()),
        "more_sources" => Field::Bool(it.more_sources),
        "sha256" => hexadecimal(&it.sha256),
        "device" => Field::Node(Node::Device(it.device.as_ref().unwrap_or(&NOTHING.device))),
        "loss" => Field::Node(Node::Loss(it.loss.as_ref().unwrap_or(&NOTHING.loss))),
        "act" => Field::Node(Node::Act(it.act.as_ref().unwrap_or(&NOTHING.act))),
        "policy" => Field::Node(Node::Policy(it.policy.as_ref().unwrap_or(&NOTHING.policy))),
        "host_change" => {
            let change = it.host_change.as_ref().unwrap_or(&NOTHING.host_change);
            Field::Node(Node::HostChange(change))
        }
        "alert" => Field::Node(Node::Alert(it.alert.as_ref().unwrap_or(&NOTHING.alert))),
        "message" => text(&it.message),
        "cursor" => unsigned(it.cursor),
        _ => return None,
    })
}

fn of_process<'a>(it: &'a v1::Process, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "pid" => Field::Int(it.pid.into()),
        "start" => Field::Time(it.start_ns),
        "exe" => bytes(&it.exe),
        "argv" => Field::Texts(it.argv.iter().map(|it| escaped(it)).collect()),
        "cwd" => bytes(&it.cwd),
        "comm" => bytes(&it.comm),
        "uid" => Field::Int(it.uid.into()),
        "gid" => Field::Int(it.gid.into()),
        "user" => text(&it.user),
        "login_uid" => Field::Int(it.login_uid.map_or(-1, i64::from)),
        "login_user" => text(&it.login_user),
        "session_id" => Field::Int(it.session_id.map_or(-1, i64::from)),
        "tty" => text(&it.tty),
        "environment" => Field::Texts(it.environment.iter().map(|it| escaped(it)).collect()),
        "cgroup_id" => unsigned(it.cgroup_id),
        "parent" => Field::Node(Node::Process(it.parent.as_deref().unwrap_or(&NOTHING.process))),
        _ => return None,
    })
}

fn of_file<'a>(it: &'a v1::File, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "path" => bytes(&it.path),
        "new_path" => bytes(&it.new_path),
        "inode" => unsigned(it.inode),
        "device" => Field::Node(Node::Device(it.device.as_ref().unwrap_or(&NOTHING.device))),
        "size" => unsigned(it.size),
        "mode" => Field::Int(it.mode.into()),
        "open_flags" => Field::Int(it.open_flags.into()),
        "unlinked" => Field::Bool(it.unlinked),
        "attribute" => bytes(&it.attribute),
        _ => return None,
    })
}

fn of_device<'a>(it: &'a v1::Device, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "class" => text(&it.class),
        "vendor" => text(&it.vendor),
        "product" => text(&it.product),
        "serial" => text(&it.serial),
        "port" => text(&it.port),
        "vendor_name" => text(&it.vendor_name),
        "product_name" => text(&it.product_name),
        "functions" => {
            Field::Texts(it.functions.iter().map(|it| Cow::Borrowed(it.as_str())).collect())
        }
        "file_system" => text(&it.file_system),
        "source" => text(&it.source),
        _ => return None,
    })
}

fn of_destination<'a>(it: &'a v1::Destination, name: &str) -> Option<Field<'a>> {
    Some(match name {
        "ip" => text(&it.ip),
        "port" => Field::Int(it.port.into()),
        "protocol" => text(&it.protocol),
        "path" => bytes(&it.path),
        "names" => Field::Nodes(it.names.iter().map(Node::Name).collect()),
        "http" => Field::Node(Node::Http(it.http.as_ref().unwrap_or(&NOTHING.http))),
        "smtp" => Field::Node(Node::Smtp(it.smtp.as_ref().unwrap_or(&NOTHING.smtp))),
        _ => return None,
    })
}

fn text(text: &str) -> Field<'_> {
    Field::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Field<'_> {
    Field::Text(escaped(bytes))
}

/// As [`escape`] does, without a copy of what needs none.
fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\\') => Cow::Borrowed(text),
        _ => Cow::Owned(escape(bytes)),
    }
}

/// What is more than CEL's numbers hold is the largest of them.
fn unsigned<'a>(number: u64) -> Field<'a> {
    Field::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn hexadecimal<'a>(bytes: &[u8]) -> Field<'a> {
    Field::Text(Cow::Owned(sekimori_evidence::hex(bytes)))
}

fn value<'a>(field: Field<'a>) -> Box<dyn Val + 'a> {
    match field {
        Field::Text(Cow::Borrowed(text)) => Box::new(CelString::from(text)),
        Field::Text(Cow::Owned(text)) => Box::new(CelString::from(text)),
        Field::Int(number) => Box::new(CelInt::from(number)),
        Field::Bool(truth) => Box::new(CelBool::from(truth)),
        Field::Time(ns) => {
            let time = chrono::DateTime::from_timestamp_nanos(ns).fixed_offset();
            Box::new(CelTimestamp::from(time))
        }
        Field::Node(node) => Box::new(node),
        Field::Texts(texts) => {
            let texts = texts.into_iter().map(|text| value(Field::Text(text)));
            Box::new(CelList::from(texts.collect::<Vec<_>>()))
        }
        Field::Nodes(nodes) => {
            let nodes = nodes.into_iter().map(|node| value(Field::Node(node)));
            Box::new(CelList::from(nodes.collect::<Vec<_>>()))
        }
    }
}

impl Val for Node<'_> {
    fn get_type(&self) -> &CelType {
        self.shape().cel_type()
    }

    fn cel_type() -> &'static CelType {
        Shape::Event.cel_type()
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Node<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = name.downcast_ref::<CelString<'_>>().map_or("", |name| name.inner());
        let field = self.field(name).ok_or_else(|| ExecutionError::no_such_key(name))?;
        Ok(CowVal::Owned(value(field)))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

impl VariableResolver for Node<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        self.field(name).map(|field| CowVal::Owned(value(field)))
    }
}
