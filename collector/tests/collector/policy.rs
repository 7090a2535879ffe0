//! Policies for the hosts.

use sekimori_evidence::SigningKey;
use sekimori_policy::bundle;
use sekimori_proto::v1::policy_service_client::PolicyServiceClient;
use sekimori_proto::v1::replay_response::Part;
use sekimori_proto::v1::{
    Device, Event, File, Filter, HostState, IngestResponse, Kind, ListPoliciesRequest, Operation,
    PolicyBundle, PolicyStatement, PolicyTurn, PolicyVersion, Process, PromotePolicyRequest,
    PutPolicyRequest, ReplayAnswer, ReplayRequest, RollbackPolicyRequest, Verdict,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{AgentStream, Pki, Server, event, events, search_all};

fn policy(name: &str) -> Vec<u8> {
    format!(
        "apiVersion: sekimori/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nmode: enforce\n\
         rules:\n  - {{ id: no-usb, on: usb.write, action: deny }}\n"
    )
    .into_bytes()
}

fn put(name: &str) -> PutPolicyRequest {
    PutPolicyRequest {
        text: policy(name),
        reason: "ticket 4711".to_owned(),
        ..PutPolicyRequest::default()
    }
}

async fn admin(server: &Server) -> PolicyServiceClient<Channel> {
    PolicyServiceClient::new(server.channel(server.pki.admin()).await)
}

async fn versions(server: &Server, epoch: u64) -> Vec<PolicyVersion> {
    let mut viewer = PolicyServiceClient::new(server.channel(server.pki.viewer()).await);
    viewer.list(ListPoliciesRequest { epoch }).await.unwrap().into_inner().versions
}

fn runs(policy_epoch: u64) -> HostState {
    HostState { policy_epoch, policy_from_collector: true, ..HostState::default() }
}

async fn given(agent: &mut AgentStream) -> PolicyBundle {
    agent.acknowledged().await.unwrap().unwrap().policy.expect("a policy")
}

async fn acts(server: &Server) -> Vec<(String, String, String)> {
    let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let acts = search_all(&mut server.query().await, filter, 1000).await;
    let acts = acts.into_iter().filter_map(|event| event.act);
    let of_policies = acts.filter(|act| act.method.contains("Policy") || act.method == "Replay");
    of_policies.map(|act| (act.name, act.method, act.question)).collect()
}

#[tokio::test]
async fn only_admins_change_what_hosts_run() {
    let server = Server::start().await;
    let pki = &server.pki;
    for peer in [pki.viewer(), pki.analyst(), pki.agent("pc-1")] {
        let mut client = PolicyServiceClient::new(server.channel(peer).await);
        let promote = PromotePolicyRequest { percent: 50, ..PromotePolicyRequest::default() };
        let rollback = RollbackPolicyRequest { epoch: 1, ..RollbackPolicyRequest::default() };
        let refused = [
            client.put(put("head-office")).await.err(),
            client.promote(promote).await.err(),
            client.rollback(rollback).await.err(),
        ];
        for status in refused {
            assert_eq!(status.unwrap().code(), Code::PermissionDenied);
        }
    }
    let request = || ReplayRequest { text: policy("a"), filter: None };
    for peer in [pki.viewer(), pki.agent("pc-1")] {
        let mut client = PolicyServiceClient::new(server.channel(peer).await);
        assert_eq!(client.replay(request()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let mut agent = PolicyServiceClient::new(server.agent_channel("pc-1").await);
    let refused = agent.list(ListPoliciesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(versions(&server, 0).await.is_empty());
    assert!(acts(&server).await.is_empty());
}

#[tokio::test]
async fn a_policy_with_errors_changes_nothing_and_says_where() {
    let server = Server::start().await;
    let mut admin = admin(&server).await;
    let text = b"apiVersion: sekimori/v1\nkind: Policy\nmetadata: { name: a }\nrules:\n  - { id: x, on: usb.wrote, action: deny }\n";
    let answer = admin.put(PutPolicyRequest { text: text.to_vec(), ..put("a") }).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.epoch, 0);
    let finding = &answer.findings[0];
    assert!(finding.error && finding.message.contains("usb.wrote"), "{finding:?}");
    assert_eq!((finding.line, finding.column), (5, 18));
    for (wrong, part) in [
        (PutPolicyRequest { reason: " ".into(), ..put("a") }, "reason"),
        (PutPolicyRequest { percent: 101, ..put("a") }, "percentage"),
        (PutPolicyRequest { hosts: vec!["[".into()], ..put("a") }, "pattern"),
        (PutPolicyRequest { text: Vec::new(), ..put("a") }, "text"),
    ] {
        let refused = admin.put(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(part), "{refused}");
    }
    assert!(versions(&server, 0).await.is_empty());
    assert!(acts(&server).await.is_empty(), "nothing was done");
}

#[tokio::test]
async fn a_version_reaches_its_hosts_and_how_they_stand_is_shown() {
    let server = Server::start().await;
    let mut early = server.agent("pc-1").await;
    early.say(runs(0)).await;
    early.deliver(events(1..3)).await.unwrap();
    let mut admin = admin(&server).await;
    let answer =
        admin.put(PutPolicyRequest { hosts: vec!["pc-*".into()], ..put("持出し禁止") }).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.epoch, answer.name.as_str(), answer.hosts), (1, "持出し禁止", 1));
    // It comes on the stream that is open, and is what the host pinned.
    let bundle = given(&mut early).await;
    let key = std::fs::read_to_string(server.pki.dir.join("policy.pub")).unwrap();
    let key = bundle::key_of(&key).unwrap();
    let (statement, text) = bundle::accept(&bundle, &key, "pc-1", 0).unwrap();
    assert_eq!(text, policy("持出し禁止"));
    assert_eq!((statement.by.as_str(), statement.reason.as_str()), ("admin jiro", "ticket 4711"));
    // One that was away gets it when it comes, again and again, until it says that it runs it.
    for _ in 0..2 {
        let mut late = server.agent("pc-2").await;
        late.say(runs(0)).await;
        assert_eq!(given(&mut late).await, bundle);
    }
    early.say(runs(1)).await;
    early.deliver(events(3..5)).await.unwrap();
    let refused = HostState {
        policy_refused_epoch: 1,
        policy_refusal: "its signature does not hold".into(),
        ..runs(0)
    };
    let mut late = server.agent("pc-2").await;
    late.say(refused).await;
    assert_eq!(given(&mut late).await, bundle, "once more with each stream");
    late.deliver(events(5..7)).await.unwrap();
    let shown = versions(&server, 1).await.remove(0);
    assert_eq!((shown.wanted, shown.running, shown.refused, shown.waiting), (2, 1, 1, 0));
    let each: Vec<_> =
        shown.each.iter().map(|it| (it.host.as_str(), it.turn(), it.refusal.as_str())).collect();
    let expected = [
        ("pc-2", PolicyTurn::Refused, "its signature does not hold"),
        ("pc-1", PolicyTurn::Running, ""),
    ];
    assert_eq!(each, expected);
    let hash = sekimori_evidence::hex(&answer.sha256);
    let question = format!(
        "\"持出し禁止\" --epoch 1 --sha256 {hash} --hosts pc-* --canary 100 --reason \"ticket 4711\" \
         --by \"admin jiro\""
    );
    assert_eq!(acts(&server).await, [("jiro".into(), "PutPolicy".into(), question)]);
    // Who runs it is left alone, and so is who takes none.
    let mut again = server.agent("pc-1").await;
    again.say(runs(1)).await;
    let acknowledged = |answer: IngestResponse| (answer.stored, answer.policy);
    again.send(events(7..9)).await;
    assert_eq!(acknowledged(again.acknowledged().await.unwrap().unwrap()), (2, None));
    let mut own = server.agent("pc-2").await;
    own.say(HostState::default()).await;
    own.send(events(9..11)).await;
    assert_eq!(acknowledged(own.acknowledged().await.unwrap().unwrap()), (2, None));
}

#[tokio::test]
async fn a_rollout_grows_and_the_way_back_is_another_version() {
    let server = Server::start().await;
    let mut admin = admin(&server).await;
    let first = admin.put(put("first")).await.unwrap().into_inner();
    let second = admin.put(PutPolicyRequest { percent: 1, ..put("second") }).await;
    assert_eq!((first.epoch, second.unwrap().into_inner().epoch), (1, 2));
    let promote = |epoch, percent| PromotePolicyRequest { epoch, percent, reason: "good".into() };
    for (epoch, percent) in [(2, 1), (2, 0), (2, 101), (1, 100)] {
        let refused = admin.promote(promote(epoch, percent)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{epoch} {percent}");
    }
    let nobody = admin.promote(promote(9, 50)).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    let promoted = admin.promote(promote(0, 100)).await.unwrap().into_inner();
    assert_eq!(promoted.epoch, 2);
    let mut agent = server.agent("pc-1").await;
    agent.say(runs(1)).await;
    let key = std::fs::read_to_string(server.pki.dir.join("policy.pub")).unwrap();
    let key = bundle::key_of(&key).unwrap();
    let statement = bundle::open(&given(&mut agent).await, &key).unwrap();
    assert_eq!((statement.epoch, statement.percent), (2, 100));
    let back = RollbackPolicyRequest {
        epoch: 1,
        reason: "the printers".into(),
        ..RollbackPolicyRequest::default()
    };
    let third = admin.rollback(back).await.unwrap().into_inner();
    assert_eq!((third.epoch, third.name.as_str(), third.sha256), (3, "first", first.sha256));
    let taken = bundle::accept(&given(&mut agent).await, &key, "pc-1", 2).unwrap();
    assert_eq!(taken.1, policy("first"));
    drop((admin, agent));
    // All of it is there again after a restart, and goes on behind it.
    let server = Server::start_with(server.stop().await, |config| config).await;
    let epochs: Vec<_> =
        versions(&server, 0).await.iter().map(|it| (it.epoch, it.percent)).collect();
    assert_eq!(epochs, [(3, 100), (2, 100), (1, 100)]);
    let mut admin = PolicyServiceClient::new(server.channel(server.pki.admin()).await);
    assert_eq!(admin.put(put("fourth")).await.unwrap().into_inner().epoch, 4);
    let methods: Vec<_> = acts(&server).await.into_iter().map(|act| act.1).collect();
    let expected = ["PutPolicy", "PutPolicy", "PromotePolicy", "RollbackPolicy", "PutPolicy"];
    assert_eq!(methods, expected);
}

#[tokio::test]
async fn without_its_key_a_collector_gives_out_what_is_signed_elsewhere_and_nothing_else() {
    let pki = Pki::new();
    drop(sekimori_collector::policy::Keys::open(&pki.dir).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("policy.key");
    std::fs::rename(pki.dir.join("policy.key"), &path).unwrap();
    let key = SigningKey::open(&path).unwrap();
    let server = Server::start_with(pki, |config| config).await;
    let mut admin = admin(&server).await;
    let refused = admin.put(put("made-up")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("policy sign"), "{refused}");
    let statement = |epoch, percent, name: &str| PolicyStatement {
        epoch,
        percent,
        name: name.to_owned(),
        text_zstd: zstd::encode_all(policy(name).as_slice(), 0).unwrap(),
        sha256: sha(&policy(name)),
        reason: "signed in the safe".into(),
        by: "hanako".into(),
        ..PolicyStatement::default()
    };
    let signed = |key: &SigningKey, statement: PolicyStatement| PutPolicyRequest {
        signed: Some(bundle::sign(key, &statement)),
        reason: "ticket 4711".into(),
        ..PutPolicyRequest::default()
    };
    let good = admin.put(signed(&key, statement(5, 10, "a"))).await.unwrap().into_inner();
    assert_eq!(good.epoch, 5);
    let more = admin.put(signed(&key, statement(5, 50, "a"))).await.unwrap().into_inner();
    assert_eq!(more.epoch, 5);
    let other = SigningKey::open(&elsewhere.path().join("other.key")).unwrap();
    for wrong in [
        signed(&key, statement(5, 50, "a")),
        signed(&key, statement(5, 100, "b")),
        signed(&key, statement(4, 100, "a")),
        signed(&other, statement(6, 100, "a")),
    ] {
        let refused = admin.put(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let shown = versions(&server, 0).await;
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].percent, shown[0].by.as_str()), (50, "hanako"));
    assert!(!server.pki.dir.join("policy.key").exists());
}

#[tokio::test]
async fn what_the_command_signs_is_given_out() {
    use prost::Message as _;
    use std::process::Command;
    let pki = Pki::new();
    drop(sekimori_collector::policy::Keys::open(&pki.dir).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let path = |name: &str| elsewhere.path().join(name).to_string_lossy().into_owned();
    std::fs::rename(pki.dir.join("policy.key"), path("policy.key")).unwrap();
    std::fs::write(path("good.yaml"), policy("from-the-safe")).unwrap();
    std::fs::write(path("bad.yaml"), "kind: Policy\n").unwrap();
    let sign = |file: &str, key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sekimori-collector"));
        command.args(["policy", "sign", &path(file), "--key", &path(key), "--epoch", "3"]);
        command.args(["--hosts", "pc-*", "--canary", "100", "--reason", "ticket 4711"]);
        let output = command.args(["--out", &path("signed")]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, err) = sign("bad.yaml", "policy.key");
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains("bad.yaml:1:1: error:"), "{err}");
    let (code, err) = sign("good.yaml", "no.key");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot read") && err.contains("no.key"), "{err}");
    assert!(!std::path::Path::new(&path("no.key")).exists(), "no key comes into being");
    let (code, err) = sign("good.yaml", "policy.key");
    assert_eq!(code, Some(0), "{err}");
    let signed = PolicyBundle::decode(std::fs::read(path("signed")).unwrap().as_slice()).unwrap();
    let server = Server::start_with(pki, |config| config).await;
    let request = PutPolicyRequest {
        signed: Some(signed.clone()),
        reason: "ticket 4711".into(),
        ..PutPolicyRequest::default()
    };
    let answer = admin(&server).await.put(request).await.unwrap().into_inner();
    assert_eq!((answer.epoch, answer.name.as_str()), (3, "from-the-safe"));
    let mut agent = server.agent("pc-1").await;
    agent.say(runs(0)).await;
    assert_eq!(given(&mut agent).await, signed);
}

fn sha(text: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text).to_vec()
}

async fn replayed(server: &Server, request: ReplayRequest) -> ReplayAnswer {
    let mut analyst = PolicyServiceClient::new(server.analyst_channel().await);
    let mut answers = analyst.replay(request).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(Part::Answer(answer)) = answer.part {
            return answer;
        }
    }
    panic!("no answer");
}

#[tokio::test]
async fn the_past_is_asked_on_record() {
    let server = Server::start().await;
    let written = |sequence, user: &str, time_ns| Event {
        kind: Kind::UsbWrite.into(),
        operation: Operation::Open.into(),
        verdict: Verdict::Allowed.into(),
        time_ns,
        process: Some(Process { uid: 1000, user: user.into(), ..Process::default() }),
        file: Some(File {
            path: b"/media/usb/x".into(),
            device: Some(Device { class: "usb".into(), ..Device::default() }),
            ..File::default()
        }),
        ..event(sequence)
    };
    let mut all: Vec<Event> = (1..=7).map(|sequence| written(sequence, "taro", 100)).collect();
    all.push(written(8, "taro", 5));
    all.push(written(9, "花子", 100));
    all.extend(events(10..20));
    server.agent("pc-1").await.deliver(all).await.unwrap();
    let filter = Some(Filter { since_ns: Some(50), ..Filter::default() });
    let answer = replayed(&server, ReplayRequest { text: policy("candidate"), filter }).await;
    assert_eq!((answer.events, answer.stopped, answer.stopped_then), (8, 8, 0));
    let groups: Vec<_> =
        answer.groups.iter().map(|it| (it.user.as_str(), it.rule.as_str(), it.count)).collect();
    assert_eq!(groups, [("taro", "no-usb", 7), ("花子", "no-usb", 1)]);
    assert_eq!(answer.groups[0].verdict(), Verdict::Denied);
    assert_eq!(answer.groups[0].verdict_then(), Verdict::Allowed);
    assert_eq!(answer.groups[0].cursors.len(), 5);
    let hash = sekimori_evidence::hex(&sha(&policy("candidate")));
    let question = format!("\"candidate\" --sha256 {hash} --since 1970-01-01T00:00:00.00000005Z");
    let act = ("hanako".to_owned(), "Replay".to_owned(), question);
    assert_eq!(acts(&server).await, [act.clone(), act], "its beginning and its end");
    // With errors nothing is read.
    let text = b"kind: Policy\n".to_vec();
    let answer = replayed(&server, ReplayRequest { text, filter: None }).await;
    assert!(answer.findings.iter().any(|finding| finding.error) && answer.events == 0);
    assert_eq!(acts(&server).await.len(), 2);
}
