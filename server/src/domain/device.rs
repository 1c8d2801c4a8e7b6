//! What a device is called: the user agent and the network in a few plain words.
//!
//! Owns the wording only. Everything here comes from the client and proves nothing; no decision about access
//! may rest on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use woothee::parser::Parser;

/// More of a user agent than this is not looked at.
const MAX_USER_AGENT_BYTES: usize = 512;
/// Longest name of a program shown.
const MAX_PROGRAM_LENGTH: usize = 40;
const UNKNOWN_BROWSER: &str = "Unknown browser";
const UNKNOWN_SYSTEM: &str = "unknown system";

/// The kind of device, for its icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Desktop or laptop computer.
    Computer,
    /// Telephone.
    Phone,
    /// Tablet.
    Tablet,
    /// A program without a browser.
    Program,
}

/// A device in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDescription {
    /// For the icon.
    pub kind: DeviceKind,
    /// "Firefox"; for a program its name, such as "curl".
    pub browser: String,
    /// "Windows"; empty for a program.
    pub system: String,
}

impl fmt::Display for DeviceDescription {
    /// "Firefox on Windows", "curl".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.system.is_empty() {
            f.write_str(&self.browser)
        } else {
            write!(f, "{} on {}", self.browser, self.system)
        }
    }
}

/// Describes a user agent. Any text will do: it is cut and cleaned first, and what nobody knows becomes
/// "Unknown browser on unknown system".
#[must_use]
pub fn describe(user_agent: &str) -> DeviceDescription {
    let user_agent = clean(user_agent);
    let parsed = Parser::new().parse(&user_agent);
    let (name, category, system) = parsed.map_or(("", "", ""), |parsed| (parsed.name, parsed.category, parsed.os));
    // Everything that is a browser calls itself Mozilla first, and Opera once did not.
    let is_program = matches!(category, "misc" | "crawler")
        || (matches!(category, "" | "UNKNOWN") && !user_agent.starts_with("Mozilla/"));
    if is_program && let Some(program) = program_name(&user_agent, name) {
        return DeviceDescription {
            kind: DeviceKind::Program,
            browser: program,
            system: String::new(),
        };
    }
    DeviceDescription {
        kind: kind(&user_agent, category, system),
        browser: browser_name(name).to_owned(),
        system: system_name(&user_agent, system).to_owned(),
    }
}

/// At most 512 bytes, without control and direction characters.
fn clean(user_agent: &str) -> String {
    let end = user_agent.floor_char_boundary(MAX_USER_AGENT_BYTES);
    user_agent[..end]
        .chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { ' ' })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The name before the first slash, space or bracket; for crawlers, which hide theirs, the parser's.
fn program_name(user_agent: &str, parsed: &str) -> Option<String> {
    if user_agent.starts_with("Mozilla/") {
        return (!matches!(parsed, "" | "UNKNOWN")).then(|| parsed.to_owned());
    }
    let name: String = user_agent
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(MAX_PROGRAM_LENGTH)
        .collect();
    name.starts_with(|c: char| c.is_ascii_alphabetic()).then_some(name)
}

fn browser_name(parsed: &str) -> &str {
    match parsed {
        "" | "UNKNOWN" | "HTTP Library" => UNKNOWN_BROWSER,
        "SamsungBrowser" => "Samsung Internet",
        known => known,
    }
}

fn system_name<'a>(user_agent: &str, parsed: &'a str) -> &'a str {
    match parsed {
        // The number a browser gives has been frozen for years, so it would often be wrong.
        system if system.starts_with("Windows Phone") => "Windows Phone",
        system if system.starts_with("Windows") => "Windows",
        "Mac OSX" | "Mac OS Classic" => "macOS",
        "BSD" if user_agent.contains("FreeBSD") => "FreeBSD",
        "iPhone" | "iPad" | "iPod" | "Android" | "Linux" | "ChromeOS" | "BSD" => parsed,
        "iOS" => "iPhone",
        "" | "UNKNOWN" => UNKNOWN_SYSTEM,
        other => other,
    }
}

fn kind(user_agent: &str, category: &str, system: &str) -> DeviceKind {
    // Android browsers say "Mobile" on telephones only (since Android 3).
    let tablet =
        system == "iPad" || user_agent.contains("Tablet") || (system == "Android" && !user_agent.contains("Mobile"));
    match category {
        "smartphone" | "mobilephone" if tablet => DeviceKind::Tablet,
        "smartphone" | "mobilephone" => DeviceKind::Phone,
        _ => DeviceKind::Computer,
    }
}

/// A network in coarse words: enough to recognise one's own, not enough to find a person by it.
#[must_use]
pub fn coarse_network(address: IpAddr) -> String {
    // An IPv4 address that came in over IPv6 is the same network.
    match address.to_canonical() {
        address if address.is_loopback() => "this computer".to_owned(),
        IpAddr::V4(v4) if is_private_v4(v4) => "private network".to_owned(),
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => "private network".to_owned(),
        address if address.is_unspecified() => "unknown network".to_owned(),
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.x")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// RFC 1918, link-local, and the carriers' shared space of RFC 6598.
fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || address.is_link_local() || (a == 100 && (64..128).contains(&b))
}

#[cfg(test)]
mod tests;
