//! `[mail]`: where mails are handed in.

use std::net::{Ipv4Addr, Ipv6Addr};

use lettre::Address;
use lettre::message::Mailbox;
use secrecy::SecretString;
use serde::Deserialize;
use url::{Host, Url};

use super::{FieldProblem, secret};

/// Ports that are meant when none is named: RFC 8314, RFC 5321.
const SUBMISSIONS: u16 = 465;
const SMTP: u16 = 25;
/// Most addresses of the security desk.
const MOST_AT_DESK: usize = 20;

/// Where mails are handed in; without a server none are sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// `smtps://host`, or on this machine `smtp://localhost`, with a port if need be.
    pub server: Option<String>,
    /// Sign-in name there.
    pub username: Option<String>,
    /// Password there.
    #[serde(deserialize_with = "secret")]
    pub password: Option<SecretString>,
    /// Who mails are from: `Mayfly <mayfly@example.com>`.
    pub from: Option<String>,
    /// Who is alerted when tokens are stolen or forged.
    pub security_desk: Vec<String>,
}

impl Mail {
    /// The way out; none without a server.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn outlet(&self) -> Result<Option<Outlet>, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut problem = |field, allowed: &str| {
            problems.push(FieldProblem {
                field,
                allowed: allowed.to_owned(),
            });
        };
        let server = self.server.as_deref().map(server);
        if server == Some(None) {
            problem(
                "mail.server",
                "allowed are smtps://host and, on this machine, smtp://localhost, with a port if need be and nothing else",
            );
        }
        let from = self.from.as_deref().map(str::parse::<Mailbox>);
        if matches!(from, Some(Err(_))) || (from.is_none() && server.is_some()) {
            problem(
                "mail.from",
                "an address is needed, like \"Mayfly <mayfly@example.com>\"",
            );
        }
        let desk: Result<Vec<Address>, _> = self.security_desk.iter().map(|address| address.parse()).collect();
        if desk.as_ref().map_or(true, |desk| desk.len() > MOST_AT_DESK) {
            problem(
                "mail.security_desk",
                "allowed are up to 20 addresses like \"security@example.com\"",
            );
        }
        if self.username.is_some() != self.password.is_some() {
            problem("mail.password", "mail.username and mail.password belong together");
        }
        if server.is_none() && (from.is_some() || self.username.is_some() || !self.security_desk.is_empty()) {
            problem(
                "mail.server",
                "without it no mail is sent; set it, or nothing of [mail]",
            );
        }
        match (server, from, desk) {
            (None, ..) if problems.is_empty() => Ok(None),
            (Some(Some(server)), Some(Ok(from)), Ok(security_desk)) if problems.is_empty() => Ok(Some(Outlet {
                server,
                credentials: self.username.clone().zip(self.password.clone()),
                from,
                security_desk,
            })),
            _ => Err(problems),
        }
    }
}

/// The way mails go out.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Who takes them.
    pub server: SmtpServer,
    /// Sign-in name and password there.
    pub credentials: Option<(String, SecretString)>,
    /// Who they are from.
    pub from: Mailbox,
    /// Who is alerted.
    pub security_desk: Vec<Address>,
}

impl Outlet {
    /// Whether somebody with this address is alerted.
    #[must_use]
    pub fn has_at_desk(&self, address: &str) -> bool {
        self.security_desk
            .iter()
            .any(|there| AsRef::<str>::as_ref(there) == address)
    }
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// It speaks TLS from the first byte (RFC 8314); else it is on this machine.
    pub is_tls: bool,
}

fn server(text: &str) -> Option<SmtpServer> {
    let url = Url::parse(text).ok()?;
    let has_more = !url.username().is_empty()
        || url.password().is_some()
        || !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || url.fragment().is_some();
    // Of a scheme that is not the web's, the host comes as it was written.
    let host = match url.host()? {
        Host::Domain(name) => name.to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let is_here = host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    // TLS from the first byte, as RFC 8314, section 3.3, prefers: a connection that is upgraded has a past in the clear.
    let (is_tls, port) = match url.scheme() {
        "smtps" => (true, SUBMISSIONS),
        "smtp" if is_here => (false, SMTP),
        _ => return None,
    };
    (!has_more && !host.is_empty()).then(|| SmtpServer {
        host,
        port: url.port().unwrap_or(port),
        is_tls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m7_mails_are_handed_in_over_tls_or_on_this_machine() {
        for (text, expected) in [
            ("smtps://mail.example.com", Some(("mail.example.com", 465, true))),
            ("smtps://Mail.example.com:8465/", Some(("mail.example.com", 8465, true))),
            ("smtps://localhost", Some(("localhost", 465, true))),
            ("smtp://mail.example.com", None),
            ("smtp://192.0.2.25:25", None),
            ("smtp://localhost", Some(("localhost", 25, false))),
            ("smtp://127.0.0.1:1025", Some(("127.0.0.1", 1025, false))),
            ("smtp://[::1]:1025", Some(("::1", 1025, false))),
            ("smtp://localhost.example.com", None),
            ("mail.example.com", None),
            ("https://mail.example.com", None),
            ("smtps://user:secret@mail.example.com", None),
            ("smtp://mail.example.com?tls=opportunistic", None),
            ("smtp://mail.example.com/x", None),
            ("smtp://", None),
            ("", None),
        ] {
            let found = server(text);
            let found = found
                .as_ref()
                .map(|found| (found.host.as_str(), found.port, found.is_tls));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn m7_what_of_mails_is_missing_or_wrong_is_named() {
        let mail = |text: &str| toml_of(text).outlet().map(|outlet| outlet.is_some());
        let fields = |text: &str| -> Vec<&'static str> {
            let problems = toml_of(text).outlet().expect_err(text);
            problems.into_iter().map(|problem| problem.field).collect()
        };
        assert_eq!(mail(""), Ok(false));
        assert_eq!(mail("server = 'smtp://localhost'\nfrom = 'm@example.com'"), Ok(true));
        assert_eq!(fields("server = 'smtp://localhost'"), ["mail.from"]);
        assert_eq!(fields("from = 'm@example.com'"), ["mail.server"]);
        assert_eq!(
            fields("server = 'x'\nfrom = 'y'\nusername = 'z'\nsecurity_desk = ['']").len(),
            4
        );
        assert_eq!(
            fields("server = 'smtp://localhost'\nfrom = \"m@example.com\\r\\nBcc: all@example.com\""),
            ["mail.from"]
        );
    }

    fn toml_of(text: &str) -> Mail {
        use figment::Figment;
        use figment::providers::{Format as _, Toml};
        Figment::from(Toml::string(text)).extract().expect(text)
    }
}
