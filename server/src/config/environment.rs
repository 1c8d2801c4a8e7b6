//! The environment as a source of settings: `MAYFLY__SECTION__KEY`, and the same with `_FILE`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

use super::ConfigError;

const PREFIX: &str = "MAYFLY__";

/// Settings whose own name ends in `_file`: a path, not an order to read one (the key file's mode is checked
/// where it is opened).
const PATHS: [&str; 1] = ["secrets.key_encryption_key_file"];

/// Settings that are text whatever they look like ("1234" as an audience stays text).
const TEXTS: [&str; 12] = [
    "data_dir",
    "public_url",
    "server.tls.cert",
    "server.tls.key",
    "database.url",
    "tokens.audience",
    "secrets.key_encryption_key",
    "mail.server",
    "mail.username",
    "mail.password",
    "mail.from",
    "log.filter",
];

/// Settings that are lists, written with commas.
const LISTS: [&str; 3] = ["server.trusted_proxies", "mail.security_desk", "metrics.readers"];

/// A variable whose name and value are both text; others cannot be ours.
pub(super) fn text((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

/// What the environment says.
pub(super) struct Environment(Dict);

impl Environment {
    pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let ours: BTreeMap<String, String> = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let mut dict = Dict::new();
        for (name, value) in &ours {
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            let (key, value) = match key.strip_suffix("_file") {
                Some(target) if !PATHS.contains(&key.as_str()) => {
                    let twin = &name[..name.len() - "_FILE".len()];
                    if ours.contains_key(twin) {
                        return Err(ConfigError::Twice(twin.to_owned()));
                    }
                    let path = PathBuf::from(value);
                    let content = std::fs::read_to_string(&path).map_err(|source| ConfigError::ValueFile {
                        variable: name.clone(),
                        path,
                        source,
                    })?;
                    (target.to_owned(), content.trim_end_matches(['\r', '\n']).to_owned())
                }
                _ => (key, value.clone()),
            };
            let typed = typed(&key, value);
            insert(&mut dict, &key, typed);
        }
        Ok(Self(dict))
    }
}

fn typed(key: &str, value: String) -> Value {
    if TEXTS.contains(&key) || PATHS.contains(&key) {
        Value::from(value)
    } else if LISTS.contains(&key) {
        let items = value.split(',').map(str::trim).filter(|item| !item.is_empty());
        Value::from(items.map(str::to_owned).collect::<Vec<_>>())
    } else if let Ok(number) = value.parse::<i64>() {
        Value::from(number)
    } else if let Ok(switch) = value.parse::<bool>() {
        Value::from(switch)
    } else {
        Value::from(value)
    }
}

fn insert(dict: &mut Dict, key: &str, value: Value) {
    let Some((section, rest)) = key.split_once('.') else {
        dict.insert(key.to_owned(), value);
        return;
    };
    let entry = dict
        .entry(section.to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    // `MAYFLY__SERVER=x` beside `MAYFLY__SERVER__ADDRESS`: the plain value stays and is refused by its type.
    if let Value::Dict(_, inner) = entry {
        insert(inner, rest, value);
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment").interpolater(|_, keys| format!("{PREFIX}{}", keys.join("__").to_uppercase()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}
