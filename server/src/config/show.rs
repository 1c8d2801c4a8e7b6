//! Printing the configuration in force, as TOML, with every secret replaced by `<redacted>`.

use std::fmt;

use secrecy::ExposeSecret;

use super::{KindRates, Rate, Settings};

const REDACTED: &str = "<redacted>";

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "data_dir = {}", quoted(&self.data_dir.display()))?;
        writeln!(f, "public_url = {}", quoted(&self.public_url))?;

        let server = &self.server;
        writeln!(f, "\n[server]\naddress = {}", quoted(&server.address))?;
        let proxies: Vec<String> = server.trusted_proxies.iter().map(quoted).collect();
        writeln!(f, "trusted_proxies = [{}]", proxies.join(", "))?;
        writeln!(f, "forwarded_header = {}", word(&server.forwarded_header)?)?;
        writeln!(f, "request_timeout_seconds = {}", server.request_timeout_seconds)?;
        writeln!(f, "max_body_bytes = {}", server.max_body_bytes)?;
        writeln!(f, "max_connections = {}", server.max_connections)?;
        writeln!(f, "drain_seconds = {}", server.drain_seconds)?;
        if let Some(tls) = &server.tls {
            let (cert, key) = (quoted(&tls.cert.display()), quoted(&tls.key.display()));
            writeln!(f, "\n[server.tls]\ncert = {cert}\nkey = {key}")?;
        }

        let url = without_password(self.database_url().expose_secret());
        writeln!(
            f,
            "\n[database]\nurl = {}\nmax_connections = {}",
            quoted(&url),
            self.database.max_connections
        )?;

        writeln!(f, "\n[tokens]\nalgorithm = {}", quoted(&self.tokens.algorithm.as_str()))?;
        writeln!(f, "clock_tolerance_seconds = {}", self.tokens.clock_tolerance_seconds)?;
        writeln!(f, "audience = {}", quoted(&self.audience()))?;
        writeln!(f, "bind_browsers = {}", self.tokens.bind_browsers)?;

        writeln!(f, "\n[keys]\nrotate_days = {}", self.keys.rotate_days)?;

        let password = &self.password;
        writeln!(
            f,
            "\n[password]\nmemory_kib = {}\niterations = {}",
            password.memory_kib, password.iterations
        )?;
        writeln!(f, "parallelism = {}", password.parallelism)?;
        match password.hashing_threads {
            Some(threads) => writeln!(f, "hashing_threads = {threads}")?,
            None => writeln!(f, "# hashing_threads: one for each core")?,
        }
        writeln!(f, "queue = {}", password.queue)?;

        writeln!(f, "\n[secrets]")?;
        match self.secrets.key_encryption_key {
            None => writeln!(f, "key_encryption_key_file = {}", quoted(&self.key_file().display()))?,
            Some(_) => writeln!(f, "key_encryption_key = {}", quoted(&REDACTED))?,
        }

        let limits = &self.limits;
        writeln!(f, "\n[limits]\nmax_keys = {}", limits.max_keys)?;
        for (name, rates) in [
            ("sign_in", limits.sign_in),
            ("code", limits.code),
            ("refresh", limits.refresh),
            ("form", limits.form),
            ("report", limits.report),
            ("client", limits.client),
        ] {
            writeln!(f, "{name} = {}", Rates(rates))?;
        }

        let mail = &self.mail;
        let texts = [
            ("server", &mail.server),
            ("username", &mail.username),
            ("from", &mail.from),
        ];
        writeln!(f, "\n[mail]")?;
        for (name, text) in texts {
            match text {
                Some(text) => writeln!(f, "{name} = {}", quoted(text))?,
                None => writeln!(f, "# {name}")?,
            }
        }
        if mail.password.is_some() {
            writeln!(f, "password = {}", quoted(&REDACTED))?;
        }
        let desk: Vec<String> = mail.security_desk.iter().map(quoted).collect();
        writeln!(f, "security_desk = [{}]", desk.join(", "))?;

        match self.metrics.address {
            Some(address) => writeln!(f, "\n[metrics]\naddress = {}", quoted(&address))?,
            None => writeln!(f, "\n[metrics]\n# address: none, no metrics are served")?,
        }
        let readers: Vec<String> = self.metrics.readers.iter().map(quoted).collect();
        writeln!(f, "readers = [{}]", readers.join(", "))?;

        writeln!(
            f,
            "\n[log]\nformat = {}\nfilter = {}",
            word(&self.log.format)?,
            quoted(&self.log.filter)
        )
    }
}

struct Rates(KindRates);

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |rate: Rate| format!("{{ burst = {}, every_seconds = {} }}", rate.burst, rate.every_seconds);
        let KindRates {
            address,
            account_at_address,
            account,
        } = self.0;
        let (address, both, account) = (one(address), one(account_at_address), one(account));
        write!(
            f,
            "{{ address = {address}, account_at_address = {both}, account = {account} }}"
        )
    }
}

/// A TOML basic string.
fn quoted(text: &impl fmt::Display) -> String {
    let mut quoted = String::from("\"");
    for c in text.to_string().chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The name of an enum's variant in the file.
fn word(value: &impl serde::Serialize) -> Result<String, fmt::Error> {
    serde_json::to_string(value).map_err(|_| fmt::Error)
}

/// A database URL without anything that could be a password: the user's part goes up to the last `@` of the
/// authority, and the whole query (`?password=…` is possible) goes as well.
fn without_password(url: &str) -> String {
    let (url, had_query) = url.split_once('?').map_or((url, false), |(before, _)| (before, true));
    let mut shown = match url.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, host)) => {
                let name = user.split_once(':').map_or(user, |(name, _)| name);
                let password = if user.contains(':') { ":<redacted>" } else { "" };
                format!("{scheme}://{name}{password}@{host}")
            }
            None => format!("{scheme}://{rest}"),
        },
        None => url.to_owned(),
    };
    if had_query {
        shown.push_str("?<redacted>");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn l5_a_database_password_is_never_shown() {
        for url in [
            "postgres://mayfly:s3cret@db:5432/mayfly",
            "postgres://mayfly:s3cret@x@db/mayfly",
            "postgres://mayfly:@s3cret@db/mayfly",
            "postgres://db/mayfly?user=mayfly&password=s3cret",
            "postgres://:s3cret@db/mayfly",
        ] {
            let shown = without_password(url);
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("db"), "{shown}");
        }
        assert_eq!(without_password("sqlite:data/mayfly.db"), "sqlite:data/mayfly.db");
    }
}
