//! Which addresses a sink may connect to. Checked on the address itself, after resolution.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the URL's host is: an address that somebody wrote down, or a name that somebody else
/// resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address, or `localhost`.
    Literal,
    /// Any other name.
    Name,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 0.0.0.0/8, `::`.
    Unspecified,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// A cloud's metadata service.
    Metadata,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 240.0.0.0/4, broadcast included.
    Reserved,
    /// 127.0.0.0/8, `::1`, behind a name.
    Loopback,
    /// Not reachable from the Internet, with `public_only`.
    Private,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address, which is never allowed",
            Self::LinkLocal => "a link-local address, which is never allowed",
            Self::Metadata => "a cloud metadata address, which is never allowed",
            Self::Multicast => "a multicast address, which is never allowed",
            Self::Reserved => "a reserved address, which is never allowed",
            Self::Loopback => "a loopback address, which is allowed only where the URL itself says so",
            Self::Private => "a private address, which public_only refuses",
        })
    }
}

/// Whether a connection to this address may be made.
///
/// Link-local, metadata, multicast, unspecified and reserved addresses are refused always; loopback
/// behind a name; private ranges with `public_only`. An IPv4 address inside an IPv6 one (mapped,
/// compatible, NAT64, 6to4, Teredo) is judged as the address that it leads to.
///
/// # Errors
/// With the reason.
pub fn check(address: IpAddr, host: Host, public_only: bool) -> Result<(), Refusal> {
    match address {
        IpAddr::V4(v4) => check_v4(v4, host, public_only),
        IpAddr::V6(v6) => {
            check_v6(v6, host, public_only)?;
            embedded(v6).map_or(Ok(()), |v4| check_v4(v4, host, public_only))
        }
    }
}

fn check_v4(v4: Ipv4Addr, host: Host, public_only: bool) -> Result<(), Refusal> {
    let [a, b, c, d] = v4.octets();
    match (a, b, c, d) {
        (0, ..) => Err(Refusal::Unspecified),
        // Alibaba's and Oracle's; everybody else's is link-local
        (100, 100, 100, 200) | (192, 0, 0, 192) => Err(Refusal::Metadata),
        (169, 254, 169, 254) => Err(Refusal::Metadata),
        (169, 254, ..) => Err(Refusal::LinkLocal),
        (224..=239, ..) => Err(Refusal::Multicast),
        (240..=255, ..) => Err(Refusal::Reserved),
        (127, ..) if host == Host::Name => Err(Refusal::Loopback),
        _ if public_only && !is_public_v4(v4) => Err(Refusal::Private),
        _ => Ok(()),
    }
}

fn check_v6(v6: Ipv6Addr, host: Host, public_only: bool) -> Result<(), Refusal> {
    let first = v6.segments()[0];
    if v6.is_unspecified() {
        Err(Refusal::Unspecified)
    } else if v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        Err(Refusal::Metadata)
    } else if first & 0xffc0 == 0xfe80 {
        Err(Refusal::LinkLocal)
    } else if first & 0xff00 == 0xff00 {
        Err(Refusal::Multicast)
    } else if v6.is_loopback() && host == Host::Name {
        Err(Refusal::Loopback)
    } else if public_only && embedded(v6).is_none() && !is_public_v6(v6) {
        Err(Refusal::Private)
    } else {
        Ok(())
    }
}

/// IANA's special-purpose registry for IPv4, entries that are not globally reachable.
fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_private()
        || v4.is_loopback()
        || v4.is_documentation()
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && b & 0xfe == 18))
}

/// Global unicast (2000::/3) less documentation and benchmarking.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, c, ..] = v6.segments();
    a & 0xe000 == 0x2000
        && (a, b) != (0x2001, 0x0db8)
        && (a, b, c) != (0x2001, 2, 0)
        && !(a == 0x3fff && b < 0x1000)
}

/// The IPv4 address that packets to this IPv6 address end up at, if any.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, .., high, low] => v4(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;

    #[test]
    fn the_table_of_addresses() {
        use Refusal::*;
        type Row = (&'static str, Option<Refusal>, Option<Refusal>, Option<Refusal>);
        // address, refused behind a name, refused as a literal, refused behind a name with public_only
        let table: &[Row] = &[
            ("93.184.216.34", None, None, None),
            ("2606:2800:220:1::1", None, None, None),
            ("10.0.0.1", None, None, Some(Private)),
            ("172.16.0.1", None, None, Some(Private)),
            ("172.31.255.255", None, None, Some(Private)),
            ("172.32.0.1", None, None, None),
            ("192.168.1.10", None, None, Some(Private)),
            ("100.64.0.1", None, None, Some(Private)),
            ("100.127.255.255", None, None, Some(Private)),
            ("100.128.0.1", None, None, None),
            ("192.0.0.8", None, None, Some(Private)),
            ("192.0.2.1", None, None, Some(Private)),
            ("198.18.0.1", None, None, Some(Private)),
            ("198.19.255.255", None, None, Some(Private)),
            ("198.51.100.7", None, None, Some(Private)),
            ("203.0.113.7", None, None, Some(Private)),
            ("192.88.99.1", None, None, Some(Private)),
            ("fc00::1", None, None, Some(Private)),
            ("fd12:3456::1", None, None, Some(Private)),
            ("fec0::1", None, None, Some(Private)),
            ("2001:db8::1", None, None, Some(Private)),
            ("100::1", None, None, Some(Private)),
            ("127.0.0.1", Some(Loopback), None, Some(Loopback)),
            ("127.255.255.254", Some(Loopback), None, Some(Loopback)),
            ("::1", Some(Loopback), None, Some(Loopback)),
            ("::ffff:127.0.0.1", Some(Loopback), None, Some(Loopback)),
            ("::127.0.0.1", Some(Loopback), None, Some(Loopback)),
            ("64:ff9b::7f00:1", Some(Loopback), None, Some(Loopback)),
            ("2002:7f00:1::", Some(Loopback), None, Some(Loopback)),
            ("::ffff:10.0.0.1", None, None, Some(Private)),
            ("::ffff:93.184.216.34", None, None, None),
            ("64:ff9b::a00:1", None, None, Some(Private)),
            ("64:ff9b::5db8:d822", None, None, None),
            ("64:ff9b:1::a00:1", None, None, Some(Private)),
            ("2002:a00:1::1", None, None, Some(Private)),
            // Teredo hides the address inverted: 10.0.0.1
            ("2001:0:5ef5:79fb::f5ff:fffe", None, None, Some(Private)),
            ("0.0.0.0", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
            ("::", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
            ("::ffff:0.0.0.0", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
            ("169.254.0.1", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("100.100.100.200", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("192.0.0.192", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("fd00:ec2::254", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("::ffff:169.254.169.254", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("64:ff9b::a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("2002:a9fe:a9fe::", Some(Metadata), Some(Metadata), Some(Metadata)),
            ("fe80::1", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
            ("febf::1", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
            ("224.0.0.1", Some(Multicast), Some(Multicast), Some(Multicast)),
            ("239.255.255.255", Some(Multicast), Some(Multicast), Some(Multicast)),
            ("ff02::1", Some(Multicast), Some(Multicast), Some(Multicast)),
            ("240.0.0.1", Some(Reserved), Some(Reserved), Some(Reserved)),
            ("255.255.255.255", Some(Reserved), Some(Reserved), Some(Reserved)),
        ];
        for &(text, named, literal, public) in table {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(check(address, Host::Name, false).err(), named, "{text} behind a name");
            assert_eq!(check(address, Host::Literal, false).err(), literal, "{text} as a literal");
            assert_eq!(check(address, Host::Name, true).err(), public, "{text} with public_only");
        }
    }

    #[test]
    fn public_only_refuses_a_literal_loopback_too() {
        assert_eq!(check("127.0.0.1".parse().unwrap(), Host::Literal, true), Err(Refusal::Private));
        assert_eq!(check("::1".parse().unwrap(), Host::Literal, true), Err(Refusal::Private));
    }
}
