//! Where a request comes from: the other end of its socket; or, when that is a proxy of ours, whom the proxy
//! names.
//!
//! Only what a trusted proxy wrote is believed. Each proxy appends the address it sees, so the list is read
//! from its end, and the first that is no proxy of ours is the client: what stands before it the client may
//! have written itself.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap};
use ipnet::IpNet;

use crate::config::ForwardedHeader;

/// Proxies one behind the other that are looked through.
const HOPS: usize = 16;

/// The proxies whose word is taken.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Beside this machine's own.
    pub trusted: Vec<IpNet>,
    /// Where they write it. The other header is the client's own.
    pub header: ForwardedHeader,
}

impl Proxies {
    /// Whether it is a proxy, or may be one: a loopback address.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.trusted.iter().any(|net| net.contains(&address))
    }

    /// The client of a request.
    pub fn client_of(&self, request: &HttpRequest) -> IpAddr {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let peer = request.peer_addr().unwrap_or(nobody);
        self.client(peer.ip(), request.headers())
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let mut hops = hops(self.header, headers).into_iter().rev().take(HOPS);
        while self.trusts(client) {
            match hops.next() {
                Some(Some(hop)) => client = hop,
                // What cannot be read no proxy of ours wrote, or it does not know.
                Some(None) | None => break,
            }
        }
        client
    }
}

/// The addresses in the header's fields, the client's first; `None` for what is no address.
fn hops(header: ForwardedHeader, headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let name = match header {
        ForwardedHeader::XForwardedFor => header::X_FORWARDED_FOR,
        ForwardedHeader::Forwarded => header::FORWARDED,
    };
    let fields = headers.get_all(name);
    let elements = fields.flat_map(|field| field.to_str().unwrap_or("?").split(','));
    let hop = |element: &str| match header {
        ForwardedHeader::XForwardedFor => address(element),
        ForwardedHeader::Forwarded => element
            .split(';')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))
            .and_then(|(_, node)| address(node.trim().trim_matches('"'))),
    };
    elements.map(hop).collect()
}

/// An address with or without port, in brackets or not.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    ip.or_else(with_port).map(|ip| ip.to_canonical())
}

/// What limits by address count together: an IPv4 address, or the network of an IPv6 one, whose owner has
/// 2^64 of them.
pub fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(proxies: &Proxies, peer: &str, fields: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    // X2
    #[test]
    fn a_client_is_who_a_trusted_proxy_says_and_nobody_else() {
        let proxies = Proxies {
            trusted: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8:1::/48".parse().unwrap(),
            ],
            header: ForwardedHeader::XForwardedFor,
        };
        let xff = |value| [("x-forwarded-for", value)];
        for (peer, fields, expected) in [
            // A stranger names somebody else.
            ("192.0.2.1", &xff("198.51.100.1")[..], "192.0.2.1"),
            // A proxy names a stranger, who names somebody else.
            ("10.0.0.1", &xff("198.51.100.1, 192.0.2.1"), "192.0.2.1"),
            // Two proxies, one behind the other; ports and spelling.
            ("10.0.0.1", &xff("192.0.2.1,  10.1.1.1"), "192.0.2.1"),
            ("10.0.0.1", &xff("192.0.2.1:4711"), "192.0.2.1"),
            ("10.0.0.1", &xff("[2001:db8::1]:4711"), "2001:db8::1"),
            ("10.0.0.1", &xff("2001:db8::1"), "2001:db8::1"),
            ("10.0.0.1", &xff("::ffff:192.0.2.1"), "192.0.2.1"),
            ("::ffff:10.0.0.1", &xff("192.0.2.1"), "192.0.2.1"),
            ("2001:db8:1::7", &xff("192.0.2.1"), "192.0.2.1"),
            // Several fields are one list.
            (
                "127.0.0.1",
                &[
                    ("x-forwarded-for", "198.51.100.1"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                "192.0.2.1",
            ),
            // What is no address ends the search at the proxy itself.
            ("10.0.0.1", &xff("192.0.2.1, unknown"), "10.0.0.1"),
            ("10.0.0.1", &xff(""), "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            // Nothing but proxies: the first of them asks on its own behalf.
            ("127.0.0.1", &xff("10.2.2.2, 10.1.1.1"), "10.2.2.2"),
            // The header that the proxy does not write.
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1")], "10.0.0.1"),
        ] {
            assert_eq!(
                client(&proxies, peer, fields),
                expected,
                "{peer} {fields:?}"
            );
        }
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_configured() {
        let proxies = Proxies {
            trusted: Vec::new(),
            header: ForwardedHeader::Forwarded,
        };
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            (
                "proto=https;For=\"[2001:db8::1]:4711\";by=10.0.0.1",
                "2001:db8::1",
            ),
            ("for=198.51.100.1, for=192.0.2.1;proto=http", "192.0.2.1"),
            ("for=192.0.2.1, for=_hidden", "127.0.0.1"),
            ("by=192.0.2.1", "127.0.0.1"),
        ] {
            let fields = [("forwarded", value), ("x-forwarded-for", "198.51.100.9")];
            assert_eq!(client(&proxies, "127.0.0.1", &fields), expected, "{value}");
        }
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let of = |text: &str| subnet(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
