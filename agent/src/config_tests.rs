#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use rstest::rstest;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("agent.yaml"))
}

#[test]
fn the_example_shows_the_defaults() {
    let text = include_str!("../dist/agent.yaml");
    let config = parse(text).unwrap();
    assert_eq!(config.policy, Path::new("/etc/sekimori/policy.yaml"));
    assert_eq!(config.spool, Spool::default());
    assert_eq!(config.control, Control::default());
    assert_eq!(config.record, Record::default());
    let tls = Tls {
        ca: "/var/lib/sekimori/tls/ca.pem".into(),
        cert: "/var/lib/sekimori/tls/cert.pem".into(),
        key: "/var/lib/sekimori/tls/key.pem".into(),
        server_name: None,
    };
    let address = Address::Https("https://collector.example:7443".into());
    assert_eq!(config.collector, Collector { address, tls: Some(tls) });
}

#[test]
fn little_is_needed_and_japanese_names_work() {
    let config =
        parse("policy: /etc/関守/規則.yaml\ncollector: { address: \"unix:/run/集.sock\" }\n");
    let config = config.unwrap();
    assert_eq!(config.policy, Path::new("/etc/関守/規則.yaml"));
    assert_eq!(config.collector.address, Address::Unix("/run/集.sock".into()));
    assert_eq!(config.collector.tls, None);
    assert_eq!(config.collector.address.to_string(), "unix:/run/集.sock");
}

#[test]
fn the_policy_is_the_files_unless_it_is_said() {
    let config = parse("collector: { address: \"unix:/c\" }\n").unwrap();
    assert_eq!((config.policy_from, config.policy_key), (PolicyFrom::File, None));
    let tls = "collector: { address: \"https://c:1\", ca: /t/ca, cert: /t/cert, key: /t/key }\n";
    let config = parse(&format!("{tls}policy_from: collector\n")).unwrap();
    assert_eq!(config.policy_from, PolicyFrom::Collector);
    assert_eq!(config.policy_key.unwrap(), Path::new("/t/policy.pub"));
    let refused = parse("collector: { address: \"unix:/c\" }\npolicy_from: collector\n");
    let refused = refused.unwrap_err().to_string();
    assert!(refused.starts_with("agent.yaml:2:") && refused.contains("policy_key"), "{refused}");
}

#[test]
fn kinds_become_bits() {
    let text = "collector: { address: \"unix:/c\" }\nrecord: { kinds: [usb.write, exec] }\n";
    let record = parse(text).unwrap().record;
    assert_eq!(record.kinds_mask(), 1 << kind::USB_WRITE | 1 << kind::EXEC);
    assert!(!record.kernel_log);
}

#[rstest]
#[case::unknown("collector: { address: \"unix:/c\" }\nspol: 1\n", 2, "spol", "spool")]
#[case::address("collector:\n  address: http://c:1\n", 2, "http://c:1", "https://HOST:PORT")]
#[case::no_port("collector:\n  address: https://c\n", 2, "https://c", "https://HOST:PORT")]
#[case::relative("collector:\n  address: unix:c\n", 2, "unix:c", "unix:/ABSOLUTE/PATH")]
#[case::keys("collector:\n  address: https://c:1\n  ca: /a\n", 2, "cert, key missing", "enroll")]
#[case::kind("collector: { address: \"unix:/c\" }\nrecord:\n  kinds: [exek]\n", 3, "exek", "exec")]
#[case::segment(
    "collector: { address: \"unix:/c\" }\nspool:\n  segment_bytes_max: 7\n",
    3,
    "segment_bytes_max is 7",
    "expected 1048576 to"
)]
#[case::lane(
    "collector: { address: \"unix:/c\" }\nspool:\n  alert_bytes_max: 7\n",
    3,
    "alert_bytes_max is 7",
    "16777216"
)]
#[case::no_collector("policy: /p\n", 1, "collector", "missing")]
#[case::syntax("collector: [\n", 0, "", "")]
fn mistakes_have_a_place(
    #[case] text: &str,
    #[case] expected_line: u64,
    #[case] found: &str,
    #[case] wanted: &str,
) {
    let error = parse(text).unwrap_err();
    let shown = error.to_string();
    let ConfigError::Invalid { line, column, message, .. } = error else {
        panic!("{shown}");
    };
    assert!(shown.starts_with(&format!("agent.yaml:{line}:{column}: ")), "{shown}");
    assert!(column >= 1, "{shown}");
    assert!(message.contains(found) && message.contains(wanted), "{shown}");
    assert!(!message.contains('\n'), "{shown}");
    if expected_line > 0 {
        assert_eq!(line, expected_line, "{shown}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/agent.yaml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/agent.yaml") && error.contains("--config"), "{error}");
}

#[test]
fn a_huge_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(limits::CONFIG_BYTES_MAX + 1).unwrap();
    let error = Config::load(file.path()).unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
}
