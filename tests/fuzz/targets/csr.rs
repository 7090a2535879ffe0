//! Any bytes as a request for a certificate, and as the signed part of one.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use sekimori_collector::identity::{Peer, Role};
use sekimori_collector::pki::{Authority, Life, SigningRequest};
use sekimori_fuzz::certificates::{certificate_of, signed_request};
use sekimori_fuzz::seeds;
use sekimori_proto::token::Token;
use sekimori_proto::v1::EnrollRequest;

static AUTHORITY: LazyLock<Authority> =
    LazyLock::new(|| Authority::new("fuzz").expect("an authority"));

fuzz_target!(
    init: {
        let seeds = seeds::requests();
        let good = |it: &&Vec<u8>| SigningRequest::from_der(&signed_request(it)).is_ok();
        assert_eq!(seeds.iter().filter(good).count(), 2, "the signed parts are such");
        seeds::write(seeds);
    },
    |bytes: &[u8]| {
        if let Ok(EnrollRequest { token, csr }) = EnrollRequest::decode(bytes) {
            if let Ok(token) = token.parse::<Token>() {
                assert_eq!(token.to_string().parse(), Ok(token));
            }
            given(&csr);
        }
        given(bytes);
        given(&signed_request(bytes));
    }
);

/// What a request asks for besides a key is not given.
fn given(request: &[u8]) {
    let Ok(request) = SigningRequest::from_der(request) else { return };
    let certified = AUTHORITY
        .certify_peer("pc-1", Role::Agent, Life::days(30), &request)
        .expect("whoever has a key is given a certificate");
    let peer = Peer::from_certificate(&certificate_of(&certified.certificate_pem));
    assert_eq!(peer.expect("an identity").to_string(), "agent pc-1");
}
