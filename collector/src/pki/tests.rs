#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use tempfile::tempdir;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::*;

use super::*;
use crate::identity::{Peer, Rank};

fn der(path: &Path) -> Vec<u8> {
    let text = fs::read(path).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
    pem.contents
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn init_makes_private_keys_and_refuses_to_do_it_again() {
    let dir = tempdir().unwrap();
    let dir = dir.path().join("pki");
    init(&dir, &["collector.example".to_owned(), "10.1.2.3".to_owned()]).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca.key")), 0o600);
    assert_eq!(mode(&dir.join("server.key")), 0o600);
    let before = fs::read(dir.join("ca.key")).unwrap();
    let error = init(&dir, &[]).unwrap_err();
    assert!(matches!(&error, PkiError::Exists(_)), "{error}");
    assert!(error.to_string().contains("nothing is overwritten"), "{error}");
    assert_eq!(fs::read(dir.join("ca.key")).unwrap(), before);

    let server = der(&dir.join("server.pem"));
    let (_, certificate) = X509Certificate::from_der(&server).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let text = format!("{:?}", names.value.general_names);
    for name in ["localhost", "collector.example", "[127, 0, 0, 1]", "[10, 1, 2, 3]"] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    let days = certificate.validity().not_after.timestamp()
        - certificate.validity().not_before.timestamp();
    assert_eq!(days / 86_400, 826);
    assert!(certificate.validity().is_valid());
}

#[test]
fn enroll_gives_a_peer_its_name_and_role() {
    let dir = tempdir().unwrap();
    init(dir.path(), &[]).unwrap();
    let agent = enroll(dir.path(), "pc-1", Role::Agent, None).unwrap();
    assert_eq!(agent, dir.path().join("agents/pc-1"));
    assert_eq!((mode(&agent), mode(&agent.join("key.pem"))), (0o700, 0o600));
    let peer = Peer::from_certificate(&der(&agent.join("cert.pem"))).unwrap();
    assert_eq!(peer.to_string(), "agent pc-1");
    let ca = fs::read(dir.path().join("ca.pem")).unwrap();
    assert_eq!(fs::read(agent.join("ca.pem")).unwrap(), ca);

    let out = dir.path().join("elsewhere");
    enroll(dir.path(), "hanako", Role::Operator(Rank::Viewer), Some(&out)).unwrap();
    let peer = Peer::from_certificate(&der(&out.join("cert.pem"))).unwrap();
    assert_eq!(peer.to_string(), "viewer hanako");

    let admin = enroll(dir.path(), "hanako", Role::Operator(Rank::Admin), None).unwrap();
    assert_eq!(admin, dir.path().join("admins/hanako"));

    let authority = der(&dir.path().join("ca.pem"));
    let (_, authority) = X509Certificate::from_der(&authority).unwrap();
    let leaf = der(&out.join("cert.pem"));
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert_eq!(leaf.issuer(), authority.subject());
    assert_ne!(leaf.raw_serial(), authority.raw_serial());
    assert!(!leaf.is_ca() && authority.is_ca());

    let error = enroll(dir.path(), "pc-1", Role::Agent, None).unwrap_err();
    assert!(matches!(error, PkiError::Exists(_)), "{error}");
}

#[test]
fn enroll_without_an_authority_says_what_to_run() {
    let dir = tempdir().unwrap();
    let missing = dir.path().join("nothing");
    let error = enroll(&missing, "pc-1", Role::Agent, None).unwrap_err().to_string();
    assert!(error.contains("sekimori-collector init --dir"), "{error}");
    let error = enroll(dir.path(), "../x", Role::Agent, None).unwrap_err();
    assert!(matches!(error, PkiError::Name(_)), "{error}");
    let bad = init(&dir.path().join("d"), &["a b".to_owned()]).unwrap_err();
    assert!(matches!(bad, PkiError::ServerName(_)), "{bad}");
    assert!(!dir.path().join("d").exists(), "nothing is left behind");
}

proptest! {
    #[test]
    fn garbage_is_no_request(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(SigningRequest::from_der(&bytes).is_err());
    }

    #[test]
    fn a_request_with_a_changed_byte_is_refused_or_asks_for_the_same_key(at: usize, bit in 0..8u8) {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let mut bytes = request.der().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(request) = SigningRequest::from_der(&bytes) {
            let authority = Authority::new("h").unwrap();
            let life = Life::days(1);
            let made = authority.certify_peer("pc-1", Role::Agent, life, &request).unwrap();
            let (_, pem) = parse_x509_pem(made.certificate_pem.as_bytes()).unwrap();
            let own = rcgen::PublicKeyData::subject_public_key_info(&key);
            let certificate = pem.parse_x509().unwrap();
            prop_assert_eq!(certificate.public_key().raw, own.as_slice());
        }
    }
}

#[test]
fn no_serial_number_comes_twice_and_a_life_is_kept() {
    let authority = Authority::new("h").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let request = SigningRequest::from_der(request.der()).unwrap();
    let made = || authority.certify_peer("pc-1", Role::Agent, Life::days(3), &request).unwrap();
    let (first, second) = (made(), made());
    assert_ne!(first.serial, second.serial, "of one key");
    let day = 86_400;
    let most = Life::days(100);
    assert_eq!(Life::as_between(0, 4 * day, most), Life::days(3));
    assert_eq!(Life::as_between(0, 4000 * day, most), most);
    assert_eq!(Life::as_between(4 * day, 0, most), Life { seconds: 1 });
}
