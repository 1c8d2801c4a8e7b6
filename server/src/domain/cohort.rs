//! Sessions named by what they have in common, to be ended together. Must not know how they are found.

use std::net::IpAddr;

use ipnet::IpNet;

use super::id::UserId;

/// Which sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cohort {
    /// Those of one person.
    Person(UserId),
    /// Those that began from an address in this network.
    Network(IpNet),
    /// All there are.
    Everybody,
}

impl Cohort {
    /// The word in the audit log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Person(_) => "person",
            Self::Network(_) => "network",
            Self::Everybody => "everybody",
        }
    }

    /// Whether a session that began from this address is one of them, as far as the address says. Without a known
    /// address it is in no network.
    #[must_use]
    pub fn has_address(&self, address: &str) -> bool {
        match self {
            Self::Person(_) | Self::Everybody => true,
            Self::Network(network) => address
                .parse()
                .is_ok_and(|address: IpAddr| network.contains(&address.to_canonical())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f59_a_network_has_its_own_addresses_and_no_others() {
        let network = Cohort::Network("192.0.2.0/24".parse().unwrap());
        for (address, is_in) in [
            ("192.0.2.0", true),
            ("192.0.2.255", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.3.0", false),
            ("2001:db8::1", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(network.has_address(address), is_in, "{address}");
            assert!(Cohort::Everybody.has_address(address));
        }
        let network = Cohort::Network("2001:db8::/32".parse().unwrap());
        assert!(network.has_address("2001:db8:ffff::1"));
        assert!(!network.has_address("2001:db9::1"));
    }
}
