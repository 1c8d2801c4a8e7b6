//! The one address people use, as browsers write it.

use axum::http::Uri;
use serde::{Deserialize, Deserializer};

/// `scheme://host[:port]`, in the form browsers send as `Origin` (RFC 6454, section 6.2): lower case, without
/// the scheme's own port, path or trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    host: String,
}

impl PublicUrl {
    /// The origin, exactly as a browser writes it; also `iss`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.origin
    }

    /// Host without port; an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Reached over TLS (ours or a proxy's).
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// `localhost` or a loopback address: the only hosts that may do without TLS.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl Default for PublicUrl {
    fn default() -> Self {
        Self {
            origin: "http://localhost:3000".to_owned(),
            host: "localhost".to_owned(),
        }
    }
}

impl std::fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.origin)
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "allowed is https://host or https://host:port without path, query or user (http only for \
                             localhost and loopback addresses)";
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(SHAPE);
        };
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if !plain || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(SHAPE);
        }
        let own_port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(SHAPE),
        };
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => None,
            _ => Some(authority.port_u16().ok_or(SHAPE)?),
        };
        let origin = match port {
            Some(port) if port != own_port => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        };
        let url = Self { origin, host };
        if url.is_https() || url.is_loopback() {
            Ok(url)
        } else {
            Err(SHAPE)
        }
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
