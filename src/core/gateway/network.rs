//! Which address a request comes from, where proxies stand in front of the gateway.

use std::net::IpAddr;

/// A range of addresses, such as `10.0.0.0/8` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    bits: u8,
}

impl Range {
    /// Reads a range; an address alone is a range of one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is no range of addresses, such as 10.0.0.0/8 or fd00::/8");
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.trim(), None),
        };
        let first: IpAddr = address.parse().map_err(|_| usage())?;
        let all = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), |bits| bits.parse::<u8>().map_err(|_| usage()))?;
        if bits > all { Err(usage()) } else { Ok(Self { first, bits }) }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, address, all) = match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (u128::from(first.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits(), address.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let rest = all - u32::from(self.bits);
        first.checked_shr(rest).unwrap_or(0) == address.checked_shr(rest).unwrap_or(0)
    }
}

/// Whether a trusted proxy has this address.
pub fn is_trusted(address: IpAddr, proxies: &[Range]) -> bool {
    proxies.iter().any(|range| range.contains(address))
}

/// The address of the client: the peer's, or, where that is a trusted proxy, the last one in `X-Forwarded-For` that is none. What
/// stands before it was written by the client itself.
pub fn client(peer: IpAddr, forwarded_for: Option<&str>, proxies: &[Range]) -> IpAddr {
    let mut address = peer.to_canonical();
    for hop in forwarded_for.unwrap_or_default().rsplit(',') {
        if !is_trusted(address, proxies) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(hop) => address = hop.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<Range> {
        texts.iter().map(|text| Range::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_range_has_the_addresses_that_begin_like_it() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("192.168.1.128/25", "::ffff:192.168.1.200", "192.168.1.100"),
        ] {
            let range = Range::parse(range).unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{range:?} {inside}");
            assert!(!range.contains(outside.parse().unwrap()), "{range:?} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "all", "10.0.0.0/-1"] {
            assert!(Range::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_header_counts_as_far_as_trusted_proxies_have_written_it() {
        let proxies = ranges(&["10.0.0.0/8"]);
        for (peer, header, expected) in [
            ("203.0.113.9", None, "203.0.113.9"),
            ("203.0.113.9", Some("198.51.100.1"), "203.0.113.9"),
            ("10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", Some("6.6.6.6, 198.51.100.1, 10.0.0.2"), "198.51.100.1"),
            ("10.0.0.1", Some("nonsense"), "10.0.0.1"),
            ("10.0.0.1", Some("nonsense, 10.0.0.2"), "10.0.0.2"),
            ("::ffff:10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", None, "10.0.0.1"),
        ] {
            let found = client(peer.parse().unwrap(), header, &proxies);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {header:?}");
        }
        assert_eq!(client("10.0.0.1".parse().unwrap(), Some("6.6.6.6"), &[]).to_string(), "10.0.0.1");
    }
}
