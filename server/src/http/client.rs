//! Who knocks: the client's address behind trusted proxies, its browser as it names itself, the request's id.
//!
//! Owns: what may be believed about where a request comes from (SECURITY.md C14). Must not know who is signed in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use data_encoding::BASE32_DNSSEC;
use ipnet::IpNet;

use crate::config::ForwardedHeader;
use crate::domain::audit::Circumstances;
use crate::domain::random::Random;

/// Response header with the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest user agent that is kept, in characters.
const USER_AGENT_CHARS: usize = 512;

/// Most hops that are looked at; nobody runs longer chains of proxies.
const MOST_HOPS: usize = 32;

/// Address of the client; an IPv4 address never stands as an IPv4-mapped IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Id of one request: 80 random bits in 16 letters and digits, never taken from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    /// A new one.
    #[must_use]
    pub fn new(random: &dyn Random) -> Self {
        let mut bytes = [0; 10];
        random.fill(&mut bytes);
        Self(BASE32_DNSSEC.encode(&bytes).into())
    }

    /// Names it in an answer.
    ///
    /// # Panics
    /// Never: an id is letters and digits.
    pub fn name(&self, headers: &mut HeaderMap) {
        let value = HeaderValue::from_str(&self.0).expect("letters and digits");
        headers.insert(REQUEST_ID, value);
    }
}

/// Who knocks, as far as it is known before anything of the request was looked at.
#[derive(Clone, Debug)]
pub struct Known {
    /// The request's id.
    pub id: RequestId,
    /// Where it comes from, without a person yet.
    pub from: Circumstances,
}

/// What tells who knocks.
#[derive(Clone, Debug)]
pub struct Identification {
    /// Networks of our own proxies.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The one header they write.
    pub forwarded_header: ForwardedHeader,
    /// For ids.
    pub random: Arc<dyn Random>,
}

impl Identification {
    /// The outermost step: puts [`ClientAddress`], [`RequestId`] and [`Circumstances`] (without a person yet) into the
    /// request's extensions.
    ///
    /// Needs the connection's address (`into_make_service_with_connect_info::<SocketAddr>`): `None` without it, and
    /// then nothing may be answered, because every limit and every audit row would be wrong.
    pub fn identify(&self, request: &mut Request) -> Option<Known> {
        let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() else {
            tracing::error!("the listener does not say where a connection comes from");
            return None;
        };
        let address = self.client_address(peer.ip(), request.headers());
        let id = RequestId::new(&*self.random);
        let from = Circumstances {
            address: Some(address.0.to_string().into()),
            user_agent: user_agent(request.headers()).map(Arc::from),
            request_id: Some(id.0.clone()),
            ..Circumstances::default()
        };
        let extensions = request.extensions_mut();
        extensions.insert(address);
        extensions.insert(id.clone());
        extensions.insert(from.clone());
        Some(Known { id, from })
    }

    /// The address nearest to the client that somebody we trust has seen: the peer, unless it is one of our
    /// proxies; then the rightmost hop that is none. What stands left of that hop was written by strangers.
    #[must_use]
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = peer.to_canonical();
        if !self.trusts(nearest) {
            return ClientAddress(nearest);
        }
        let hops: Vec<&str> = match self.forwarded_header {
            ForwardedHeader::XForwardedFor => values(headers, &X_FORWARDED_FOR).collect(),
            ForwardedHeader::Forwarded => values(headers, &header::FORWARDED).map(forwarded_for).collect(),
        };
        for hop in hops.into_iter().rev().take(MOST_HOPS) {
            // "unknown" or garbage: the proxy that wrote it is the last one whose address is known.
            let Some(address) = parse_hop(hop) else { break };
            nearest = address;
            if !self.trusts(nearest) {
                break;
            }
        }
        ClientAddress(nearest)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }
}

/// The comma-separated values of a header that may stand in several lines.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    // A line that is no text counts as one unreadable hop: leaving it out would shift the others.
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.to_str().unwrap_or("").split(','))
}

/// `for=` of one element (RFC 7239, section 4).
fn forwarded_for(element: &str) -> &str {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    // An element without `for` says nothing about an address; as an unreadable hop it stops the search.
    value.unwrap_or("")
}

/// An address, with or without port, brackets and quotes.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim().trim_matches('"');
    let address = hop.parse::<IpAddr>().ok();
    let address = address.or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    let address = address.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address| address.to_canonical())
}

/// The browser as it names itself, without anything that could disturb a log line or a page.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let raw = String::from_utf8_lossy(headers.get(header::USER_AGENT)?.as_bytes());
    let clean: String = raw.chars().filter(|c| !disturbs(*c)).take(USER_AGENT_CHARS).collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Control characters, line and paragraph separators, and what changes the direction of text or cannot be seen.
fn disturbs(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::random::SystemRandom;

    fn behind(proxies: &[&str], forwarded_header: ForwardedHeader) -> Identification {
        let trusted_proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
        Identification {
            trusted_proxies,
            forwarded_header,
            random: Arc::new(SystemRandom::default()),
        }
    }

    fn seen(identification: &Identification, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        identification
            .client_address(peer.parse().unwrap(), &headers)
            .0
            .to_string()
    }

    #[test]
    fn c14_headers_of_strangers_are_ignored() {
        let direct = behind(&[], ForwardedHeader::XForwardedFor);
        let proxied = behind(&["10.0.0.0/8"], ForwardedHeader::XForwardedFor);
        for lines in [
            &[("x-forwarded-for", "1.1.1.1")][..],
            &[("forwarded", "for=1.1.1.1")],
            &[("x-real-ip", "1.1.1.1")],
            &[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")],
        ] {
            assert_eq!(seen(&direct, "203.0.113.9", lines), "203.0.113.9");
            assert_eq!(seen(&proxied, "203.0.113.9", lines), "203.0.113.9");
        }
    }

    #[test]
    fn c14_only_the_rightmost_untrusted_hop_counts() {
        let proxied = behind(&["10.0.0.0/8", "2001:db8::/32"], ForwardedHeader::XForwardedFor);
        for (lines, client) in [
            (&[("x-forwarded-for", "203.0.113.9")][..], "203.0.113.9"),
            (&[("x-forwarded-for", "1.1.1.1, 203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.2.2.2")], "203.0.113.9"),
            (
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")],
                "203.0.113.9",
            ),
            (&[("x-forwarded-for", "203.0.113.9:5555")], "203.0.113.9"),
            (&[("x-forwarded-for", "[2001:dead::1]:5555")], "2001:dead::1"),
            (&[("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9"),
            (&[("x-forwarded-for", "10.3.3.3, 10.2.2.2")], "10.3.3.3"),
            (&[("x-forwarded-for", "1.1.1.1, unknown")], "10.1.1.1"),
            (&[("x-forwarded-for", "1.1.1.1, unknown, 10.2.2.2")], "10.2.2.2"),
            (&[("x-forwarded-for", "1.1.1.1,")], "10.1.1.1"),
            (
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "\u{ff}")],
                "10.1.1.1",
            ),
            // The header our proxies do not write comes from the client as it is.
            (&[("forwarded", "for=1.1.1.1")], "10.1.1.1"),
            (&[], "10.1.1.1"),
        ] {
            assert_eq!(seen(&proxied, "10.1.1.1", lines), client, "{lines:?}");
        }
        let mapped = seen(&proxied, "::ffff:10.1.1.1", &[("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(
            mapped, "203.0.113.9",
            "a proxy seen through an IPv6 socket is still our proxy"
        );
    }

    #[test]
    fn c14_forwarded_of_rfc_7239() {
        let proxied = behind(&["10.0.0.0/8"], ForwardedHeader::Forwarded);
        for (value, client) in [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=\"[2001:dead::1]:4711\";proto=https", "2001:dead::1"),
            ("for=1.1.1.1, for=203.0.113.9;by=10.0.0.1, for=10.9.9.9", "203.0.113.9"),
            ("for=\"1.1.1.1, for=203.0.113.9", "203.0.113.9"),
            ("for=1.1.1.1, for=_hidden", "10.1.1.1"),
            ("for=1.1.1.1, proto=https", "10.1.1.1"),
        ] {
            assert_eq!(seen(&proxied, "10.1.1.1", &[("forwarded", value)]), client, "{value}");
        }
        assert_eq!(
            seen(&proxied, "10.1.1.1", &[("x-forwarded-for", "1.1.1.1")]),
            "10.1.1.1"
        );
    }

    #[test]
    fn l6_user_agents_are_cut_and_cleaned() {
        let named = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_bytes(value).unwrap());
            user_agent(&headers)
        };
        assert_eq!(named(b"Mozilla/5.0"), Some("Mozilla/5.0".to_owned()));
        let hostile = "a\u{2028}b\u{202E}c\u{85}d\u{FEFF}e\tf\u{E0041}g";
        assert_eq!(named(hostile.as_bytes()), Some("abcdefg".to_owned()));
        assert_eq!(named("x".repeat(5000).as_bytes()).unwrap().len(), 512);
        assert_eq!(named("é".repeat(5000).as_bytes()).unwrap().chars().count(), 512);
        assert!(named(b"\xff\xfe").is_some());
        assert_eq!(named(b"  "), None);
        assert_eq!(user_agent(&HeaderMap::new()), None);
    }

    #[test]
    fn request_ids_are_short_and_differ() {
        let random = SystemRandom::default();
        let (one, two) = (RequestId::new(&random), RequestId::new(&random));
        assert_ne!(one, two);
        assert_eq!(one.0.len(), 16);
        assert!(
            one.0
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
    }
}
