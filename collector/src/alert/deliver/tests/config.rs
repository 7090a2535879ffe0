use rstest::rstest;

use super::*;

fn hook(more: Value) -> Value {
    let mut webhook = json!({
        "url": "https://a.example/services/T0TOKENTOKEN", "secret_file": "key",
        "ca_file": "ca.pem",
    });
    webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "hook", "webhook": webhook})
}

fn mail(more: Value) -> Value {
    let mut mail = json!({
        "server": "mx.example:465", "tls": "implicit", "ca_file": "ca.pem",
        "user": "u", "password_file": "password",
        "from": "関守 <alerts@a.example>", "to": ["soc@a.example"],
    });
    mail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "mail", "mail": mail})
}

fn syslog(more: Value) -> Value {
    let mut syslog = json!({"server": "10.0.0.1:514", "transport": "udp"});
    syslog.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "siem", "syslog": syslog})
}

const EGRESS: &[&str] = &["a.example:443", "mx.example:465", "10.0.0.0/8:514"];

#[rstest]
#[case(json!({"name": "x"}), "exactly one of")]
#[case(json!({"name": "a b", "syslog": {"server": "x", "transport": "udp"}}), "name must")]
#[case(syslog(json!({"server": "10.0.0.1"})), "no host with a port")]
#[case(syslog(json!({"server": "11.0.0.1:514"})), "11.0.0.1:514 is not in the `egress` list")]
#[case(syslog(json!({"ca_file": "ca.pem"})), "`ca_file` is for TLS")]
#[case(syslog(json!({"facility": "kern"})), "unknown variant `kern`")]
#[case(syslog(json!({"port": 1})), "unknown field `port`")]
#[case(hook(json!({"url": "https://b.example/x"})), "b.example:443 is not in the `egress` list")]
#[case(hook(json!({"url": "http://a.example:443/T0TOKENTOKEN"})), "must begin with `https://`")]
#[case(hook(json!({"secret_file": "nowhere"})), "nowhere")]
#[case(hook(json!({"secret_file": "open"})), "has mode 0644")]
#[case(hook(json!({"secret_file": "writable"})), "has mode 0660")]
#[case(hook(json!({"secret_file": "short"})), "fewer than 16 bytes")]
#[case(hook(json!({"secret_file": "empty"})), "is empty")]
#[case(hook(json!({"secret_file": "long"})), "more than 4096 bytes")]
#[case(hook(json!({"secret_file": "."})), "is no file")]
#[case(hook(json!({"ca_file": "key"})), "no certificate")]
#[case(mail(json!({"tls": "none"})), "unknown variant `none`")]
#[case(mail(json!({"password_file": null})), "belong together")]
#[case(mail(json!({"password_file": "two-lines"})), "in one line")]
#[case(mail(json!({"to": []})), "has 0")]
#[case(mail(json!({"to": vec!["a@a.example"; 51]})), "has 51")]
#[case(mail(json!({"to": ["nobody"]})), "`to`: \"nobody\" is no mail address")]
#[case(mail(json!({"to": ["x\r\nRCPT TO:<e@e.example> <a@a.example>"]})), "is no mail address")]
#[case(mail(json!({"to": ["山@a.example"]})), "is no mail address")]
#[case(mail(json!({"from": "a@a.example\nBcc: e@e.example"})), "`from`")]
fn what_is_refused(#[case] config: Value, #[case] reason: &str) {
    let dir = base();
    servers::acceptor(dir.path());
    secret(dir.path(), "open", "0123456789abcdef", 0o644);
    secret(dir.path(), "writable", "0123456789abcdef", 0o660);
    secret(dir.path(), "short", "0123456789abcde\n", 0o600);
    secret(dir.path(), "empty", "\n", 0o600);
    secret(dir.path(), "long", &"x".repeat(4097), 0o600);
    secret(dir.path(), "two-lines", "a\nb\n", 0o600);
    let error = endpoint(config, EGRESS, dir.path()).unwrap_err();
    assert!(error.contains(reason), "{error}");
    for shown in ["T0TOKEN", "0123456789", "correct horse"] {
        assert!(!error.contains(shown), "{error}");
    }
}

#[rstest]
#[case(hook(json!({})))]
#[case(mail(json!({})))]
#[case(mail(json!({"user": null, "password_file": null})))]
#[case(syslog(json!({})))]
fn what_is_taken_shows_no_secret(#[case] config: Value) {
    let dir = base();
    servers::acceptor(dir.path());
    let parsed: EndpointConfig = serde_json::from_value(config.clone()).unwrap();
    let endpoint = endpoint(config.clone(), EGRESS, dir.path()).unwrap();
    assert_eq!(endpoint.name(), config["name"].as_str().unwrap());
    for shown in [format!("{parsed:?}"), format!("{endpoint:?}"), format!("{endpoint:#?}")] {
        for secret in ["T0TOKEN", "0123456789", "correct horse"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
