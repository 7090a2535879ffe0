#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use rstest::rstest;

use super::*;

proptest! {
    #[test]
    fn garbage_is_no_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Peer::from_certificate(&bytes).is_err());
    }
}

#[rstest]
#[case::plain("host-1.example_x", true)]
#[case::longest(&"a".repeat(64), true)]
#[case::empty("", false)]
#[case::too_long(&"a".repeat(65), false)]
#[case::up("..", false)]
#[case::hidden(".ssh", false)]
#[case::slash("a/b", false)]
#[case::space("a b", false)]
#[case::other_letters("端末", false)]
#[case::colon("a:b", false)]
fn names(#[case] name: &str, #[case] good: bool) {
    assert_eq!(check_name(name).is_ok(), good);
}

#[rstest]
#[case::agent(&["sekimori:agent:h1"], Ok("agent h1"))]
#[case::viewer(&["sekimori:viewer:o"], Ok("viewer o"))]
#[case::analyst(&["sekimori:analyst:o"], Ok("analyst o"))]
#[case::admin(&["sekimori:admin:o"], Ok("admin o"))]
#[case::none(&[], Err(IdentityError::Count(0)))]
#[case::two(&["sekimori:agent:a", "sekimori:viewer:b"], Err(IdentityError::Count(2)))]
#[case::other(&["https://h1.example"], Err(IdentityError::Count(0)))]
#[case::no_such_role(&["sekimori:operator:o"], Err(IdentityError::Count(0)))]
#[case::other_case(&["sekimori:Admin:o"], Err(IdentityError::Count(0)))]
#[case::no_name(&["sekimori:admin"], Err(IdentityError::Count(0)))]
#[case::two_roles(
    &["sekimori:viewer:admin:o"],
    Err(IdentityError::Name(NameError { name: "admin:o".into() }))
)]
#[case::bad_name(
    &["sekimori:agent:../x"],
    Err(IdentityError::Name(NameError { name: "../x".into() }))
)]
fn certificates(#[case] uris: &[&str], #[case] expected: Result<&str, IdentityError>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    for uri in uris {
        params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into().unwrap()));
    }
    let certificate = params.self_signed(&key).unwrap();
    let peer = Peer::from_certificate(certificate.der());
    assert_eq!(peer.map(|peer| peer.to_string()), expected.map(str::to_owned));
}

#[test]
fn no_certificate_at_all() {
    let error = Peer::from_certificate(b"\x30\x03junk").unwrap_err();
    assert!(matches!(error, IdentityError::Unreadable(_)), "{error}");
}

#[test]
fn only_root_and_the_own_user_are_local_operators() {
    assert!(Peer::from_local_uid(0, 990, "h").is_some());
    assert!(Peer::from_local_uid(990, 990, "h").is_some());
    assert_eq!(Peer::from_local_uid(1000, 990, "h"), None);
}

fn request(peer: Peer) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(Caller::Known(peer));
    request
}

#[test]
fn agents_and_operators_do_not_mix() {
    let nobody = Request::new(());
    assert_eq!(Agent::of(&nobody).unwrap_err().code(), tonic::Code::Unauthenticated);
    assert_eq!(Viewer::of(&nobody).unwrap_err().code(), tonic::Code::Unauthenticated);
    let agent = request(Peer::Agent(Agent::for_test("h1")));
    assert_eq!(Agent::of(&agent).unwrap().name(), "h1");
    assert_eq!(Viewer::of(&agent).unwrap_err().code(), tonic::Code::PermissionDenied);
    let root = request(Peer::from_local_uid(0, 990, "h2").unwrap());
    assert_eq!(Admin::of(&root).unwrap().operator().name(), "uid 0");
    assert_eq!(Agent::of(&root).unwrap().name(), "h2");
    let own = request(Peer::from_local_uid(990, 990, "h2").unwrap());
    assert_eq!(Admin::of(&own).unwrap().operator().name(), "uid 990");
    assert_eq!(Agent::of(&own).unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[rstest]
#[case(Rank::Viewer, [true, false, false])]
#[case(Rank::Analyst, [true, true, false])]
#[case(Rank::Admin, [true, true, true])]
fn a_rank_may_what_those_below_it_may(#[case] rank: Rank, #[case] expected: [bool; 3]) {
    let address: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let request = request(Peer::Operator(Operator::new("o", rank)).at(address));
    let may =
        [Viewer::of(&request).is_ok(), Analyst::of(&request).is_ok(), Admin::of(&request).is_ok()];
    assert_eq!(may, expected);
    let viewer = Viewer::of(&request).unwrap();
    assert_eq!(viewer.operator().address(), Some(address));
    assert_eq!(viewer.analyst().is_ok(), rank >= Rank::Analyst);
    assert!(Agent::of(&request).is_err());
    if let Ok(admin) = Admin::of(&request) {
        assert_eq!(Viewer::from(Analyst::from(admin)), viewer);
    }
}

#[test]
fn no_agent_can_be_called_as_the_collector_is() {
    assert!(check_name(Agent::collector().name()).is_err());
}

#[test]
fn words_of_ranks() {
    for rank in Rank::ALL {
        assert_eq!(rank.to_string().parse(), Ok(rank));
    }
    assert_eq!("agent".parse::<Rank>(), Err(RankError));
    assert_eq!(Role::Operator(Rank::Admin).uri("花"), "sekimori:admin:花");
}

#[test]
fn a_stranger_may_enrol_and_nothing_else() {
    let address: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let mut request = Request::new(());
    request.extensions_mut().insert(Caller::stranger(address));
    assert_eq!(Stranger::of(&request).unwrap().address(), address);
    let refused = [
        Agent::of(&request).err(),
        Viewer::of(&request).err(),
        Analyst::of(&request).err(),
        Admin::of(&request).err(),
        Holder::of(&request).err(),
    ];
    for status in refused {
        assert_eq!(status.unwrap().code(), tonic::Code::Unauthenticated);
    }
}

#[test]
fn whoever_has_an_identity_does_not_enrol_and_only_a_certificate_is_renewed() {
    let root = request(Peer::from_local_uid(0, 990, "h2").unwrap());
    assert_eq!(Stranger::of(&root).unwrap_err().code(), tonic::Code::PermissionDenied);
    assert_eq!(Holder::of(&root).unwrap_err().code(), tonic::Code::PermissionDenied);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let uri = "sekimori:admin:jiro".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let certificate = params.self_signed(&key).unwrap();
    let address: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let peer = Peer::from_certificate(certificate.der()).unwrap().at(address);
    let request = request(peer);
    let holder = Holder::of(&request).unwrap();
    assert_eq!(holder.to_string(), "admin jiro");
    assert_eq!(holder.shown().address, Some(address));
    assert!(Stranger::of(&request).is_err());
}
