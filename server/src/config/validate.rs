//! Ranges of the settings. Every problem is reported, not only the first.

use super::{FieldProblem, KindRates, Settings};

/// OWASP Password Storage Cheat Sheet, argon2id: at least 19 MiB with two passes.
const MEMORY_KIB: std::ops::RangeInclusive<u32> = 19_456..=1_048_576;

impl Settings {
    /// Everything that is outside its range.
    #[must_use]
    pub fn validate(&self) -> Vec<FieldProblem> {
        let mut check = Check::default();
        self.check_server(&mut check);
        check.that(
            !self.data_dir.as_os_str().is_empty(),
            "data_dir",
            "allowed is the path of a folder",
        );
        check.range("database.max_connections", self.database.max_connections, 1, 1000);
        check.range(
            "tokens.clock_tolerance_seconds",
            self.tokens.clock_tolerance_seconds,
            0,
            120,
        );
        let audience = self.audience();
        let fits = (1..=255).contains(&audience.len()) && audience.bytes().all(|byte| byte.is_ascii_graphic());
        check.that(fits, "tokens.audience", "allowed are 1 to 255 visible ASCII characters");
        // Edge keys are kept for the longest session, 400 days, and 255 of them have a byte: not every day a new one.
        check.range("keys.rotate_days", self.keys.rotate_days, 2, 365);
        check.range(
            "password.memory_kib",
            self.password.memory_kib,
            *MEMORY_KIB.start(),
            *MEMORY_KIB.end(),
        );
        check.range("password.iterations", self.password.iterations, 2, 20);
        check.range("password.parallelism", self.password.parallelism, 1, 16);
        if let Some(threads) = self.password.hashing_threads {
            check.range("password.hashing_threads", threads, 1, 256);
        }
        check.range("password.queue", self.password.queue, 1, 10_000);
        let both = self.secrets.key_encryption_key.is_some() && self.secrets.key_encryption_key_file.is_some();
        check.that(
            !both,
            "secrets.key_encryption_key",
            "set either this or secrets.key_encryption_key_file, not both",
        );
        self.check_limits(&mut check);
        check.that(
            self.metrics.readers.iter().all(|network| network.prefix_len() > 0),
            "metrics.readers",
            "allowed are networks of your own monitoring; /0 would be everybody",
        );
        check.0.extend(self.mail.outlet().err().unwrap_or_default());
        let filter = self.log.filter.parse::<tracing_subscriber::EnvFilter>();
        check.that(
            filter.is_ok(),
            "log.filter",
            "allowed are directives like \"info,server=debug\"",
        );
        check.0
    }

    fn check_server(&self, check: &mut Check) {
        let server = &self.server;
        let exposed = !server.address.ip().to_canonical().is_loopback();
        check.that(
            !exposed || server.tls.is_some() || !server.trusted_proxies.is_empty(),
            "server.address",
            "plain HTTP is allowed only on loopback; set server.tls.cert and server.tls.key, or name the reverse \
             proxies that do TLS in server.trusted_proxies",
        );
        check.that(
            server.tls.is_none() || self.public_url.is_https(),
            "public_url",
            "must start with https:// when server.tls is set",
        );
        check.that(
            server.trusted_proxies.iter().all(|network| network.prefix_len() > 0),
            "server.trusted_proxies",
            "allowed are networks of your own proxies; /0 would trust everybody",
        );
        check.range("server.request_timeout_seconds", server.request_timeout_seconds, 1, 300);
        check.range("server.max_body_bytes", server.max_body_bytes, 4096, 1_048_576);
        check.range("server.max_connections", server.max_connections, 16, 1_000_000);
        check.range("server.drain_seconds", server.drain_seconds, 0, 60);
    }

    fn check_limits(&self, check: &mut Check) {
        let limits = &self.limits;
        check.range("limits.max_keys", limits.max_keys, 1000, 1_000_000);
        for (field, rates) in [
            ("limits.sign_in", limits.sign_in),
            ("limits.code", limits.code),
            ("limits.refresh", limits.refresh),
            ("limits.form", limits.form),
            ("limits.report", limits.report),
            ("limits.client", limits.client),
        ] {
            let KindRates {
                address,
                account_at_address,
                account,
            } = rates;
            let fits = [address, account_at_address, account]
                .iter()
                .all(|rate| (1..=1_000_000).contains(&rate.burst) && (1..=3600).contains(&rate.every_seconds));
            check.that(
                fits,
                field,
                "allowed are burst 1 to 1000000 and every_seconds 1 to 3600",
            );
        }
    }
}

#[derive(Default)]
struct Check(Vec<FieldProblem>);

impl Check {
    fn that(&mut self, holds: bool, field: &'static str, allowed: &str) {
        if !holds {
            self.0.push(FieldProblem {
                field,
                allowed: allowed.to_owned(),
            });
        }
    }

    fn range<T: Copy + PartialOrd + std::fmt::Display>(&mut self, field: &'static str, value: T, least: T, most: T) {
        if value < least || value > most {
            self.0.push(FieldProblem {
                field,
                allowed: format!("{value} is not allowed, {least} to {most} is"),
            });
        }
    }
}
