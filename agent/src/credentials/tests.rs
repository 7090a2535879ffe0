#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;

use super::*;
use crate::config::Tls;

fn tls(directory: &Path) -> Tls {
    let path = |name: &str| directory.join(name);
    Tls { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem"), server_name: None }
}

/// A key and a certificate of it, PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    (key.serialize_pem(), certificate.pem())
}

fn write(tls: &Tls, (key, certificate): &(String, String)) {
    fs::write(&tls.key, key).unwrap();
    fs::write(&tls.cert, certificate).unwrap();
    fs::write(&tls.ca, certificate).unwrap();
}

fn with_next(path: &Path) -> std::path::PathBuf {
    format!("{}.next", path.display()).into()
}

fn certificate_of(request: &[u8], staged: &Staged) -> String {
    // The authority's work: the request's key in a certificate.
    let request =
        rcgen::CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
    let authority = KeyPair::generate().unwrap();
    let issuer = rcgen::Issuer::new(CertificateParams::default(), authority);
    let _ = staged;
    request.params.signed_by(&request.public_key, &issuer).unwrap().pem()
}

#[test]
fn a_new_pair_takes_the_place_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let tls = tls(&directory.path().join("tls"));
    for round in 0..2 {
        let staged = stage(&tls).unwrap();
        let certificate = certificate_of(&staged.request().unwrap(), &staged);
        assert!(matches!(stage(&tls), Err(CredentialsError::Busy(_))), "one at a time");
        let (_, ca) = pair();
        staged.commit(&certificate, &ca).unwrap();
        let found = read(&tls).unwrap();
        assert_eq!(found.cert, certificate.as_bytes(), "round {round}");
        assert_eq!(found.ca, ca.as_bytes());
        assert_eq!(fs::metadata(&tls.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(directory.path().join("tls")).unwrap().count(),
            3,
            "nothing is left"
        );
    }
}

#[test]
fn what_is_given_up_leaves_the_old_pair_and_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let tls = tls(directory.path());
    let old = pair();
    write(&tls, &old);
    drop(stage(&tls).unwrap());
    let (_, foreign) = pair();
    let refused = stage(&tls).unwrap().commit(&foreign, &foreign).unwrap_err();
    assert!(matches!(refused, CredentialsError::Answer(_)), "{refused}");
    let half = stage(&tls).unwrap().commit("-----BEGIN", &foreign).unwrap_err();
    assert!(matches!(half, CredentialsError::Answer(_)), "{half}");
    assert_eq!(read(&tls).unwrap().key, old.0.as_bytes());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

/// Where a process can be killed: what lies there then, and whether the old pair is found or the
/// new.
#[rstest]
#[case::before_anything(&[], false)]
#[case::the_key_is_there(&["key.pem.next"], false)]
#[case::half_a_certificate(&["key.pem.next", "half"], false)]
#[case::both_are_there(&["key.pem.next", "cert.pem.next"], true)]
#[case::the_key_is_in_place(&["key.pem", "cert.pem.next"], true)]
#[case::both_are_in_place(&["key.pem", "cert.pem"], true)]
fn killed_at_any_point_there_is_one_whole_pair(#[case] there: &[&str], #[case] new: bool) {
    let directory = tempfile::tempdir().unwrap();
    let tls = tls(directory.path());
    let (old, next) = (pair(), pair());
    write(&tls, &old);
    for name in there {
        let text = match *name {
            "half" => &next.1[..40],
            name if name.starts_with("key") => &next.0,
            _ => &next.1,
        };
        let name = if *name == "half" { "cert.pem.next" } else { name };
        fs::write(directory.path().join(name), text).unwrap();
    }
    // A reader first, then whoever renews: both find the same.
    let before = read(&tls).unwrap();
    let pairs = [&old, &next].map(|(key, cert)| (key.as_bytes(), cert.as_bytes()));
    assert!(pairs.contains(&(before.key.as_slice(), before.cert.as_slice())));
    drop(stage(&tls).unwrap());
    let after = read(&tls).unwrap();
    let expected = if new { &next } else { &old };
    assert_eq!(after.key, expected.0.as_bytes());
    assert_eq!(after.cert, expected.1.as_bytes());
    assert!(!with_next(&tls.key).exists() && !with_next(&tls.cert).exists());
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let tls = tls(directory.path());
    write(&tls, &pair());
    fs::write(&tls.key, pair().0).unwrap();
    let error = read(&tls).err().unwrap();
    assert!(error.to_string().contains("cert.pem does not belong to the key"), "{error}");
}

#[rstest]
#[case(0, false)]
#[case(200, false)]
#[case(201, true)]
#[case(1000, true)]
fn due_in_the_last_third(#[case] now_s: i64, #[case] due: bool) {
    assert_eq!(Life { from_s: 0, until_s: 300 }.is_due(now_s), due);
}

#[test]
fn a_token_that_others_may_read_is_refused_and_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let secret = "ab".repeat(32);
    let text = format!("sekimori-{}-{secret}-{}", "0".repeat(16), "1".repeat(64));
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = read_token(&path).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read_token(&path).unwrap().to_string(), text);
    fs::write(&path, &text[1..]).unwrap();
    let error = read_token(&path).unwrap_err();
    assert!(!error.to_string().contains(&secret), "{error}");
}

#[test]
fn the_host_is_known_by_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let tls = tls(directory.path());
    let certificate = |uris: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
        params.self_signed(&key).unwrap().pem()
    };
    fs::write(&tls.cert, certificate(&["sekimori:agent:desk-12"])).unwrap();
    assert_eq!(own_name(Some(&tls)).unwrap(), "desk-12");
    let other = ["sekimori:admin:jiro"];
    let two = ["sekimori:agent:desk-12", "sekimori:agent:desk-13"];
    for uris in [&other[..], &two, &[]] {
        fs::write(&tls.cert, certificate(uris)).unwrap();
        let error = own_name(Some(&tls)).unwrap_err().to_string();
        assert!(error.contains("not the certificate of one agent"), "{error}");
    }
    assert!(!own_name(None).unwrap().is_empty());
}
