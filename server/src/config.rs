//! Configuration: one TOML file, the environment on top of it, checked as a whole before anything starts.
//!
//! Owns: names, defaults, allowed ranges, and printing without secrets. Must not know what any setting is used
//! for beyond its range; opens no database, key or socket.
//!
//! Precedence: defaults, then the file, then `MAYFLY__SECTION__KEY`. `MAYFLY__SECTION__KEY_FILE` names a file
//! whose content is the value (mounted secrets).

mod environment;
mod mail;
mod public_url;
mod show;
mod validate;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};

pub use mail::{Mail, Outlet, SmtpServer};
pub use public_url::PublicUrl;

use crate::domain::keys::Algorithm;

/// File that is read when none is named and it exists in the current folder.
pub const DEFAULT_FILE: &str = "mayfly.toml";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there or cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The root of all secrets stands in a file that others can read.
    #[error(
        "configuration file {}: it holds secrets.key_encryption_key and others can read it (mode {mode:04o}): make it 0600", path.display()
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A `…_FILE` variable names a file that cannot be read.
    #[error("{variable}: file {}: {source}", path.display())]
    ValueFile {
        /// The variable.
        variable: String,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A variable and its `…_FILE` twin are both set.
    #[error("{0} and {0}_FILE are both set; set one of them")]
    Twice(String),
    /// Not TOML, an unknown name, or a value of the wrong type.
    #[error("{0}")]
    Shape(String),
    /// Values outside their range, every one of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Values(Vec<FieldProblem>),
}

/// A field outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {allowed}")]
pub struct FieldProblem {
    /// Dotted name as in the file.
    pub field: &'static str,
    /// What is allowed there.
    pub allowed: String,
}

/// Everything that can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Folder for database, keys and other files of the server.
    pub data_dir: PathBuf,
    /// Address people use; also the issuer of tokens and the only accepted origin.
    pub public_url: PublicUrl,
    /// Listening.
    pub server: Server,
    /// Where data is kept.
    pub database: Database,
    /// Signed tokens.
    pub tokens: Tokens,
    /// The life of keys.
    pub keys: Keys,
    /// Cost of password hashing.
    pub password: Password,
    /// The key-encryption key.
    pub secrets: Secrets,
    /// Rates.
    pub limits: LimitSettings,
    /// Mails.
    pub mail: Mail,
    /// Metrics.
    pub metrics: Metrics,
    /// Log lines.
    pub log: Log,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            public_url: PublicUrl::default(),
            server: Server::default(),
            database: Database::default(),
            tokens: Tokens::default(),
            keys: Keys::default(),
            password: Password::default(),
            secrets: Secrets::default(),
            limits: LimitSettings::default(),
            mail: Mail::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

/// Listening.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port to listen on.
    pub address: SocketAddr,
    /// Certificate and key for TLS by the server itself.
    pub tls: Option<Tls>,
    /// Networks of reverse proxies whose word about the client's address is taken; anybody else's is ignored.
    pub trusted_proxies: Vec<IpNet>,
    /// The one header those proxies write. The other one may come from the client unchanged, so it is never read.
    pub forwarded_header: ForwardedHeader,
    /// Longest time for one request, from its headers to the first byte of the answer.
    pub request_timeout_seconds: u64,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// How long requests in flight may finish after SIGTERM.
    pub drain_seconds: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 3000)),
            tls: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            request_timeout_seconds: 30,
            max_body_bytes: 65_536,
            max_connections: 10_000,
            drain_seconds: 10,
        }
    }
}

/// Files for TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file: certificate, then its chain.
    pub cert: PathBuf,
    /// PEM file: private key.
    pub key: PathBuf,
}

/// How a trusted proxy names the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client` (RFC 7239).
    Forwarded,
}

/// Where data is kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite:path` or `postgres://…`; none: `mayfly.db` in the data folder. May hold a password.
    #[serde(deserialize_with = "secret")]
    pub url: Option<SecretString>,
    /// Most connections of a pool.
    pub max_connections: u32,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
        }
    }
}

/// Signed tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tokens {
    /// Algorithm of signing keys; a change begins a rotation at the next start, and the old key verifies on.
    #[serde(deserialize_with = "algorithm")]
    pub algorithm: Algorithm,
    /// The one tolerance for other machines' clocks (M19).
    pub clock_tolerance_seconds: u64,
    /// `aud`; none: the issuer.
    pub audience: Option<String>,
    /// Sessions of browsers are bound to a key of theirs, where the browser can (device bound session credentials).
    pub bind_browsers: bool,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            clock_tolerance_seconds: 30,
            audience: None,
            bind_browsers: true,
        }
    }
}

/// The life of keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Age at which signing keys and edge keys are replaced.
    pub rotate_days: u64,
}

impl Default for Keys {
    fn default() -> Self {
        Self { rotate_days: 30 }
    }
}

/// Cost of password hashing (argon2id).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Password {
    /// `m`.
    pub memory_kib: u32,
    /// `t`.
    pub iterations: u32,
    /// `p`.
    pub parallelism: u32,
    /// Hashings at once; none: one for each core.
    pub hashing_threads: Option<usize>,
    /// Hashings that may wait; more are told to come back later.
    pub queue: usize,
}

impl Default for Password {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            hashing_threads: None,
            queue: 64,
        }
    }
}

/// The key-encryption key: at most one of the two; none: a file made at first run in the data folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// The key itself: 32 bytes in base64.
    #[serde(deserialize_with = "secret")]
    pub key_encryption_key: Option<SecretString>,
    /// File that holds it, readable by its owner alone.
    pub key_encryption_key_file: Option<PathBuf>,
}

/// Metrics for the operator's monitoring.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port where `/metrics` is served, in plain HTTP; none: nowhere.
    pub address: Option<SocketAddr>,
    /// Networks whose machines may read them.
    pub readers: Vec<IpNet>,
}

impl Default for Metrics {
    fn default() -> Self {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        Self {
            address: None,
            readers: loopback.map(IpNet::from).to_vec(),
        }
    }
}

/// A bucket of tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Tries at once.
    pub burst: u32,
    /// Seconds until one more is allowed.
    pub every_seconds: u32,
}

/// Rates of one kind of request; what each protects stands in [`crate::http::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KindRates {
    /// From one network (IPv4 address, IPv6 /64), whatever the account.
    pub address: Rate,
    /// At one account from one network.
    pub account_at_address: Rate,
    /// At one account from everywhere.
    pub account: Rate,
}

/// Rates.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Password tries.
    pub sign_in: KindRates,
    /// Codes of a second factor.
    pub code: KindRates,
    /// Refreshes; the account is the session.
    pub refresh: KindRates,
    /// Pages for browsers that were not here before.
    pub form: KindRates,
    /// Reports of browsers about the content security policy.
    pub report: KindRates,
    /// Other software: failed proofs of a network, requests for tokens of one client.
    pub client: KindRates,
    /// Most networks and accounts remembered per bucket; beyond that they share.
    pub max_keys: usize,
}

const fn rate(burst: u32, every_seconds: u32) -> Rate {
    Rate { burst, every_seconds }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            sign_in: KindRates {
                address: rate(30, 5),
                account_at_address: rate(8, 30),
                account: rate(60, 30),
            },
            code: KindRates {
                address: rate(30, 5),
                account_at_address: rate(6, 30),
                account: rate(20, 60),
            },
            refresh: KindRates {
                address: rate(300, 1),
                account_at_address: rate(60, 1),
                account: rate(120, 1),
            },
            form: KindRates {
                address: rate(120, 1),
                account_at_address: rate(60, 1),
                account: rate(120, 1),
            },
            report: KindRates {
                address: rate(20, 10),
                account_at_address: rate(20, 10),
                account: rate(20, 10),
            },
            client: KindRates {
                address: rate(60, 5),
                account_at_address: rate(300, 1),
                account: rate(600, 1),
            },
            max_keys: 100_000,
        }
    }
}

/// Log lines, on standard output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// One JSON object per line, or text for people.
    pub format: LogFormat,
    /// Levels by module, in the language of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        // The session library warns about every expired cookie; that is no news.
        Self {
            format: LogFormat::default(),
            filter: "info,tower_sessions=error,tower_sessions_core=error".to_owned(),
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text.
    Text,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

/// What does not fit, without the values: a line of the file or a mistyped value may be a secret (L5).
fn shape(error: &figment::Error) -> String {
    let one = |error: figment::Error| {
        let path = error.path.join(".");
        if path.starts_with("secrets") || path == "database.url" || path == "mail.password" {
            return format!("{path}: a text is expected here");
        }
        // A syntax error draws the line it is in, between bars.
        let text = error.to_string();
        let lines = text.lines().filter(|line| {
            !line
                .trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
                .starts_with('|')
        });
        lines.collect::<Vec<_>>().join(" ")
    };
    error.clone().into_iter().map(one).collect::<Vec<_>>().join("\n")
}

#[cfg(unix)]
fn refuse_exposed(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| ConfigError::File {
        path: path.to_path_buf(),
        source,
    };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}

fn algorithm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Algorithm, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "ES256" => Ok(Algorithm::Es256),
        "EdDSA" => Ok(Algorithm::EdDsa),
        _ => Err(serde::de::Error::custom("allowed are \"ES256\" and \"EdDSA\"")),
    }
}

impl Settings {
    /// Reads file and environment and checks everything.
    ///
    /// `file`: what `--config` says. Without it `MAYFLY_CONFIG` names the file, and without that `./mayfly.toml`
    /// is read if it exists. A file that was named must exist.
    ///
    /// # Errors
    /// See [`ConfigError`]; every value outside its range is named at once.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let named = file
            .map(Path::to_path_buf)
            .or_else(|| std::env::var_os("MAYFLY_CONFIG").map(PathBuf::from));
        let path = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        Self::from_sources(path.as_deref(), std::env::vars_os().filter_map(environment::text))
    }

    /// The same from a given file and given variables.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_sources(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // One number of a limit can be set without repeating the others.
        let mut figment = Figment::from(Serialized::default("limits", LimitSettings::default()));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
                path: path.to_path_buf(),
                source,
            })?;
            let file = Figment::from(Toml::string(&text));
            if file.contains("secrets.key_encryption_key") {
                refuse_exposed(path)?;
            }
            figment = figment.merge(file);
        }
        figment = figment.merge(environment::Environment::read(variables)?);
        let settings: Self = figment.extract().map_err(|error| ConfigError::Shape(shape(&error)))?;
        let problems = settings.validate();
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::Values(problems))
        }
    }

    /// URL of the database.
    #[must_use]
    pub fn database_url(&self) -> SecretString {
        self.database
            .url
            .clone()
            .unwrap_or_else(|| SecretString::from(format!("sqlite:{}", self.data_dir.join("mayfly.db").display())))
    }

    /// File of the key-encryption key, for when the key itself is not given.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        let given = self.secrets.key_encryption_key_file.clone();
        given.unwrap_or_else(|| self.data_dir.join("secrets").join("key-encryption-key"))
    }

    /// `aud` of our own tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        self.tokens
            .audience
            .as_deref()
            .unwrap_or_else(|| self.public_url.as_str())
    }
}

#[cfg(test)]
mod tests;
