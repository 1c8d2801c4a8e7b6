//! Tests of reading, ranges and printing.

use std::io::Write as _;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn read(toml: &str, pairs: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    Settings::from_sources(Some(file.path()), env(pairs))
}

fn fields(result: Result<Settings, ConfigError>) -> Vec<&'static str> {
    match result {
        Err(ConfigError::Values(problems)) => problems.into_iter().map(|problem| problem.field).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_valid_and_safe() {
    let settings = Settings::from_sources(None, []).unwrap();
    assert_eq!(settings.public_url.as_str(), "http://localhost:3000");
    assert_eq!(settings.audience(), "http://localhost:3000");
    assert!(settings.server.address.ip().is_loopback());
    assert_eq!(settings.key_file(), PathBuf::from("data/secrets/key-encryption-key"));
    assert_eq!(settings.keys.rotate_days, 30);
}

#[test]
fn one_number_of_a_limit_can_be_set_alone() {
    let settings = Settings::from_sources(None, env(&[("MAYFLY__LIMITS__CODE__ADDRESS__BURST", "9")])).unwrap();
    let usual = LimitSettings::default();
    assert_eq!(settings.limits.code.address.burst, 9);
    assert_eq!(
        settings.limits.code.address.every_seconds,
        usual.code.address.every_seconds
    );
    assert_eq!(settings.limits.code.account, usual.code.account);
    assert_eq!(settings.limits.sign_in, usual.sign_in);
}

#[test]
fn environment_wins_over_the_file_and_reaches_nested_fields() {
    let settings = read(
        "public_url = \"https://id.example\"\n[server]\ndrain_seconds = 3\n[limits.sign_in]\naddress = { burst = 1, \
         every_seconds = 1 }\naccount_at_address = { burst = 2, every_seconds = 2 }\naccount = { burst = 3, \
         every_seconds = 3 }",
        &[
            ("MAYFLY__SERVER__DRAIN_SECONDS", "7"),
            ("MAYFLY__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 2001:db8::/32"),
            ("MAYFLY__SERVER__FORWARDED_HEADER", "forwarded"),
            ("MAYFLY__LIMITS__SIGN_IN__ADDRESS__BURST", "9"),
            ("MAYFLY__TOKENS__AUDIENCE", "1234"),
            ("MAYFLY__TOKENS__ALGORITHM", "EdDSA"),
            ("MAYFLY_CONFIG", "ignored"),
            ("OTHER", "ignored"),
        ],
    )
    .unwrap();
    assert_eq!(settings.server.drain_seconds, 7);
    assert_eq!(settings.server.trusted_proxies.len(), 2);
    assert_eq!(settings.server.forwarded_header, ForwardedHeader::Forwarded);
    assert_eq!(
        settings.limits.sign_in.address,
        Rate {
            burst: 9,
            every_seconds: 1
        }
    );
    assert_eq!(settings.audience(), "1234");
    assert_eq!(settings.tokens.algorithm, Algorithm::EdDsa);
}

#[test]
fn m10_values_come_from_mounted_files_and_the_key_file_stays_a_path() {
    let mut mounted = tempfile::NamedTempFile::new().unwrap();
    mounted.write_all(b"postgres://mayfly:s3cret@db/mayfly\n").unwrap();
    let path = mounted.path().to_str().unwrap();
    let settings = read(
        "",
        &[
            ("MAYFLY__DATABASE__URL_FILE", path),
            ("MAYFLY__SECRETS__KEY_ENCRYPTION_KEY_FILE", "/run/secrets/kek"),
        ],
    )
    .unwrap();
    assert_eq!(
        secrecy::ExposeSecret::expose_secret(&settings.database_url()),
        "postgres://mayfly:s3cret@db/mayfly",
        "the trailing newline goes"
    );
    assert_eq!(settings.key_file(), PathBuf::from("/run/secrets/kek"));

    let twice = read(
        "",
        &[("MAYFLY__DATABASE__URL_FILE", path), ("MAYFLY__DATABASE__URL", "x")],
    );
    assert!(matches!(twice, Err(ConfigError::Twice(name)) if name == "MAYFLY__DATABASE__URL"));
    let missing = read("", &[("MAYFLY__DATABASE__URL_FILE", "/nowhere/at/all")]);
    assert!(matches!(missing, Err(ConfigError::ValueFile { .. })));
}

#[test]
fn unknown_names_are_refused_and_named() {
    for (toml, pairs) in [
        ("[server]\nadress = \"127.0.0.1:1\"", &[][..]),
        ("", &[("MAYFLY__SERVER__ADRESS", "127.0.0.1:1")][..]),
        ("", &[("MAYFLY__SERVER__ADRESS_FILE", "/dev/null")][..]),
    ] {
        let error = read(toml, pairs).unwrap_err().to_string();
        assert!(error.contains("adress"), "{error}");
    }
    assert!(
        Settings::from_sources(Some(Path::new("/nowhere.toml")), []).is_err(),
        "a named file must exist"
    );
}

#[test]
fn f16_every_value_outside_its_range_is_named_at_once() {
    let result = read(
        "[server]\naddress = \"0.0.0.0:80\"\nrequest_timeout_seconds = 0\nmax_body_bytes = 10\n\
         [tokens]\nclock_tolerance_seconds = 121\n[keys]\nrotate_days = 1\n[password]\nmemory_kib = 19455\niterations = 1\nparallelism = 0\n\
         [secrets]\nkey_encryption_key = \"a\"\nkey_encryption_key_file = \"b\"\n\
         [limits]\nmax_keys = 1\n[log]\nfilter = \"a=b=c\"",
        &[("MAYFLY__LIMITS__MAX_KEYS", "1")],
    );
    assert_eq!(
        fields(result),
        [
            "server.address",
            "server.request_timeout_seconds",
            "server.max_body_bytes",
            "tokens.clock_tolerance_seconds",
            "keys.rotate_days",
            "password.memory_kib",
            "password.iterations",
            "password.parallelism",
            "secrets.key_encryption_key",
            "limits.max_keys",
            "log.filter",
        ]
    );
    for wrong in ["-1", "1000000000000", "many", "1.5"] {
        assert!(
            read("", &[("MAYFLY__TOKENS__CLOCK_TOLERANCE_SECONDS", wrong)]).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn m7_plain_http_off_loopback_needs_a_proxy_or_tls() {
    let exposed = "public_url = \"https://id.example\"\n[server]\naddress = \"0.0.0.0:80\"\n";
    assert_eq!(fields(read(exposed, &[])), ["server.address"]);
    read(exposed, &[("MAYFLY__SERVER__TRUSTED_PROXIES", "10.0.0.1/32")]).unwrap();
    read(
        exposed,
        &[
            ("MAYFLY__SERVER__TLS__CERT", "c.pem"),
            ("MAYFLY__SERVER__TLS__KEY", "k.pem"),
        ],
    )
    .unwrap();
    assert_eq!(
        fields(read(exposed, &[("MAYFLY__SERVER__TRUSTED_PROXIES", "0.0.0.0/0")])),
        ["server.trusted_proxies"]
    );
    assert!(read("[server]\naddress = \"[::ffff:127.0.0.1]:80\"", &[]).is_ok());
}

#[test]
fn l12_the_metrics_are_for_networks_and_never_for_everybody() {
    assert_eq!(
        fields(read("", &[("MAYFLY__METRICS__READERS", "10.0.0.0/8,::/0")])),
        ["metrics.readers"]
    );
}

#[test]
fn public_urls_are_origins_as_browsers_write_them() {
    for (given, origin) in [
        ("https://ID.example/", "https://id.example"),
        ("https://id.example:443", "https://id.example"),
        ("https://id.example:8443", "https://id.example:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ] {
        assert_eq!(given.parse::<PublicUrl>().unwrap().as_str(), origin);
    }
    for wrong in [
        "",
        "id.example",
        "/",
        "http://id.example",
        "ftp://id.example",
        "https://",
        "https://id.example/path",
        "https://id.example?x=1",
        "https://user@id.example",
        "https://id.example:x",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "https://id.example:",
        "https://id.example:99999",
        "null",
    ] {
        assert!(wrong.parse::<PublicUrl>().is_err(), "{wrong}");
    }
}

#[test]
fn l5_printing_shows_everything_but_secrets_and_reads_back() {
    let settings = read(
        "public_url = \"https://id.example\"\n[database]\nurl = \"postgres://m:CANARY1@db/m\"\n[secrets]\n\
         key_encryption_key = \"CANARY2\"\n[mail]\nserver = \"smtps://mail.example\"\nusername = \"m\"\n\
         password = \"CANARY3\"\nfrom = \"m@id.example\"\nsecurity_desk = [\"s@id.example\"]\n[server]\ntls = { cert = \"c\", key = \"k\" }",
        &[],
    )
    .unwrap();
    let shown = settings.to_string();
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(
        !format!("{settings:?}").contains("CANARY"),
        "Debug shows no secret either"
    );
    assert_eq!(
        read(&shown, &[]).unwrap().to_string(),
        shown,
        "what is printed can be used as a file"
    );
}

#[test]
fn l5_a_file_that_cannot_be_read_is_refused_without_quoting_it() {
    for (toml, says) in [
        ("[secrets]\nkey_encryption_key = \"CANARY\n", "line 2"),
        (
            "[secrets]\nkey_encryption_key = [\"CANARY\"]\n",
            "secrets.key_encryption_key",
        ),
        (
            "[secrets]\nkey_encryption_key = 7777777777777\n",
            "secrets.key_encryption_key",
        ),
        ("[database]\nurl = postgres://m:CANARY@db/m\n", "line 2"),
        ("[mail]\npassword = 7777777777777\n", "mail.password"),
        ("[database]\nurl = { CANARY = 7777777777777 }\n", "database.url"),
        ("CANARY", "line 1"),
    ] {
        let error = read(toml, &[]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("CANARY") && !error.contains("7777777777777"), "{error}");
    }
}

#[test]
fn j10_a_file_with_the_key_in_it_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[secrets]\nkey_encryption_key = \"CANARY\"\n").unwrap();
    for (mode, is_good) in [
        (0o600, true),
        (0o400, true),
        (0o640, false),
        (0o604, false),
        (0o644, false),
    ] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        match Settings::from_sources(Some(file.path()), []) {
            Err(ConfigError::Exposed { mode: found, .. }) => assert!(!is_good && found == mode, "{mode:o}"),
            Err(error) => panic!("{mode:o}: {error}"),
            Ok(_) => assert!(is_good, "{mode:o}"),
        }
    }
    // One without it may be read by anybody.
    let mut plain = tempfile::NamedTempFile::new().unwrap();
    plain.write_all(b"[server]\ndrain_seconds = 3\n").unwrap();
    std::fs::set_permissions(plain.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Settings::from_sources(Some(plain.path()), []).is_ok());
}
