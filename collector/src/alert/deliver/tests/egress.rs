use std::net::{IpAddr, SocketAddr};

use rstest::rstest;

use crate::alert::deliver::dial::Dial;
use crate::alert::deliver::target::Target;

use super::*;

fn target(written: &str) -> Target {
    written.parse().unwrap()
}

#[rstest]
#[case("a.example:443", "a.example:443")]
#[case("A.Example.:443", "a.example:443")]
#[case("10.0.0.1:514", "10.0.0.1:514")]
#[case("[2001:DB8::1]:6514", "[2001:db8::1]:6514")]
fn a_target_is_read(#[case] written: &str, #[case] shown: &str) {
    assert_eq!(target(written).to_string(), shown);
}

#[rstest]
#[case("a.example")]
#[case("a.example:0")]
#[case("a.example:65536")]
#[case("a.example:+1")]
#[case("a..example:1")]
#[case("a example:1")]
#[case("user@a.example:1")]
#[case("https://a.example:1")]
// The resolver would take these for addresses.
#[case("127.1:1")]
#[case("2130706433:1")]
#[case("0x7f000001:1")]
#[case("2001:db8::1:1")]
#[case("[10.0.0.1]:1")]
#[case(":1")]
#[case("")]
fn no_target(#[case] written: &str) {
    assert!(written.parse::<Target>().is_err());
    assert!(Egress::new(&[written]).is_err());
}

#[rstest]
#[case("*:443")]
#[case("*.:443")]
#[case("a.*.example:443")]
#[case("10.0.0.0/33:514")]
#[case("2001:db8::/32:514")]
#[case("[10.0.0.0/8]:514")]
fn no_entry(#[case] written: &str) {
    assert!(Egress::new(&[written]).is_err());
}

#[test]
fn a_network_without_its_prefix_is_told_with_it() {
    let error = Egress::new(&["10.1.2.3/8:514"]).unwrap_err().to_string();
    assert!(error.contains("10.0.0.0/8"), "{error}");
    let many = vec!["a.example:1"; 257];
    assert_eq!(Egress::new(&many).unwrap_err(), EgressError::Many(257));
    let list = serde_json::from_value::<Egress>(json!(["a.example"]));
    assert!(list.unwrap_err().to_string().contains("\"a.example\" is no host"));
}

const LIST: &[&str] = &[
    "a.example:443",
    "*.b.example:443",
    "10.0.0.0/8:514",
    "[2001:db8::/32]:6514",
    "0.0.0.0/0:25",
    "[::/0]:25",
    "127.0.0.2:26",
    "169.254.0.0/16:80",
    "localhost:8080",
];

#[rstest]
#[case("a.example:443", true)]
#[case("a.example:444", false)]
#[case("x.a.example:443", false)]
#[case("xa.example:443", false)]
#[case("x.b.example:443", true)]
#[case("y.x.b.example:443", true)]
#[case("b.example:443", false)]
#[case("xb.example:443", false)]
#[case("10.255.0.1:514", true)]
#[case("11.0.0.1:514", false)]
#[case("[::ffff:10.0.0.1]:514", true)]
#[case("[2001:db8::1]:6514", true)]
#[case("[2001:db9::1]:6514", false)]
// Networks are for addresses, not for names.
#[case("c.example:25", false)]
#[case("192.0.2.1:25", true)]
// A network that has everything in it does not mean these.
#[case("127.0.0.1:25", false)]
#[case("[::1]:25", false)]
#[case("[::]:25", false)]
#[case("[::ffff:127.0.0.1]:25", false)]
#[case("169.254.169.254:25", false)]
#[case("[64:ff9b::a9fe:a9fe]:25", false)]
#[case("[fd00:ec2::254]:25", false)]
#[case("[fe80::1]:25", false)]
#[case("127.0.0.2:26", true)]
#[case("127.0.0.1:26", false)]
#[case("169.254.169.254:80", true)]
#[case("localhost:8080", true)]
#[case("127.0.0.1:8080", false)]
fn what_is_in_the_list(#[case] written: &str, #[case] permitted: bool) {
    assert_eq!(Egress::new(LIST).unwrap().permits(&target(written)), permitted);
    assert!(!Egress::default().permits(&target(written)));
}

#[rstest]
#[case("a.example:443", "192.0.2.1", true)]
#[case("a.example:443", "10.0.0.1", true)]
#[case("a.example:443", "2001:db8::1", true)]
#[case("a.example:443", "127.0.0.1", false)]
#[case("a.example:443", "127.9.9.9", false)]
#[case("a.example:443", "::1", false)]
#[case("a.example:443", "::ffff:127.0.0.1", false)]
#[case("a.example:443", "::127.0.0.1", false)]
#[case("a.example:443", "64:ff9b::7f00:1", false)]
#[case("a.example:443", "64:ff9b:1::a9fe:a9fe", false)]
#[case("a.example:443", "2002:7f00:1::", false)]
#[case("a.example:443", "0.0.0.0", false)]
#[case("a.example:443", "0.1.2.3", false)]
#[case("a.example:443", "::", false)]
#[case("a.example:443", "169.254.169.254", false)]
#[case("a.example:443", "100.100.100.200", false)]
#[case("a.example:443", "168.63.129.16", false)]
#[case("a.example:443", "fd00:ec2::254", false)]
#[case("a.example:443", "fd00:ec2::255", true)]
#[case("a.example:443", "fe80::1", false)]
#[case("a.example:443", "224.0.0.1", false)]
#[case("a.example:443", "255.255.255.255", false)]
#[case("a.example:443", "ff02::1", false)]
// The list names it, for this port.
#[case("a.example:26", "127.0.0.2", true)]
#[case("a.example:26", "127.0.0.1", false)]
#[case("a.example:80", "169.254.1.1", true)]
#[case("localhost:8080", "127.0.0.1", true)]
#[case("localhost:8080", "::1", true)]
#[case("localhost:8080", "192.0.2.1", false)]
#[case("a.example:8080", "127.0.0.1", false)]
fn where_a_name_may_lead(#[case] name: &str, #[case] address: IpAddr, #[case] admitted: bool) {
    let egress = Egress::new(LIST).unwrap();
    assert_eq!(egress.admits(&target(name), address).is_ok(), admitted);
}

#[test]
fn of_several_addresses_those_that_may_be_are_left() {
    let dial = Dial::new(target("a.example:443"), &Egress::new(LIST).unwrap()).unwrap();
    let at = |list: &[&str]| {
        list.iter().map(|it| SocketAddr::new(it.parse().unwrap(), 443)).collect::<Vec<_>>()
    };
    let left = dial.admitted(&at(&["127.0.0.1", "192.0.2.1", "169.254.169.254"])).unwrap();
    assert_eq!(left, at(&["192.0.2.1"]));
    assert_eq!(dial.admitted(&at(&["192.0.2.1"; 20])).unwrap().len(), 8);
    let error = dial.admitted(&at(&["169.254.169.254"])).unwrap_err();
    assert!(error.to_string().contains("add `169.254.169.254:443` to `egress`"), "{error}");
    assert!(!error.is_final());
    assert!(dial.admitted(&[]).unwrap_err().to_string().contains("has no address"));
}
