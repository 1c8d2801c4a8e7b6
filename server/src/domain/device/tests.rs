//! Names of devices and networks.

use super::*;

#[test]
fn browsers_of_today_are_named_with_their_system_and_kind() {
    use DeviceKind::{Computer, Phone, Tablet};
    const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)";
    const IPHONE: &str =
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";
    const ANDROID: &str = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko)";
    let table = [
        (format!("{WINDOWS} Chrome/131.0.0.0 Safari/537.36"), Computer, "Chrome on Windows"),
        (format!("{WINDOWS} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.2903.86"), Computer, "Edge on Windows"),
        (format!("{WINDOWS} Chrome/131.0.0.0 Safari/537.36 OPR/116.0.0.0"), Computer, "Opera on Windows"),
        (format!("{WINDOWS} Chrome/131.0.0.0 Safari/537.36 Vivaldi/7.0"), Computer, "Vivaldi on Windows"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0".to_owned(),
            Computer,
            "Firefox on Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"
                .to_owned(),
            Computer,
            "Safari on macOS",
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0".to_owned(),
            Computer,
            "Firefox on Linux",
        ),
        (
            "Mozilla/5.0 (X11; FreeBSD amd64; rv:133.0) Gecko/20100101 Firefox/133.0".to_owned(),
            Computer,
            "Firefox on FreeBSD",
        ),
        (
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
                .to_owned(),
            Computer,
            "Chrome on ChromeOS",
        ),
        (format!("{IPHONE} Version/18.1 Mobile/15E148 Safari/604.1"), Phone, "Safari on iPhone"),
        (format!("{IPHONE} CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1"), Phone, "Chrome on iPhone"),
        (format!("{IPHONE} FxiOS/133.0 Mobile/15E148 Safari/605.1.15"), Phone, "Firefox on iPhone"),
        (format!("{IPHONE} Version/18.0 EdgiOS/131.0 Mobile/15E148 Safari/604.1"), Phone, "Edge on iPhone"),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1"
                .to_owned(),
            Tablet,
            "Safari on iPad",
        ),
        (format!("{ANDROID} Chrome/131.0.0.0 Mobile Safari/537.36"), Phone, "Chrome on Android"),
        (format!("{ANDROID} Chrome/131.0.0.0 Safari/537.36"), Tablet, "Chrome on Android"),
        (
            format!("{ANDROID} SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36"),
            Phone,
            "Samsung Internet on Android",
        ),
        ("Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0".to_owned(), Phone, "Firefox on Android"),
        ("Mozilla/5.0 (Android 14; Tablet; rv:133.0) Gecko/133.0 Firefox/133.0".to_owned(), Tablet, "Firefox on Android"),
    ];
    for (user_agent, kind, name) in table {
        let device = describe(&user_agent);
        assert_eq!((device.to_string().as_str(), device.kind), (name, kind), "{user_agent}");
    }
}

#[test]
fn programs_are_called_by_their_own_name() {
    for (user_agent, name) in [
        ("curl/8.11.0", "curl"),
        ("Wget/1.24.5", "Wget"),
        ("python-requests/2.32.3", "python-requests"),
        ("PostmanRuntime/7.43.0", "PostmanRuntime"),
        ("Go-http-client/2.0", "Go-http-client"),
        ("okhttp/4.12.0", "okhttp"),
        ("node", "node"),
        ("mayfly-cli/1.0 (linux)", "mayfly-cli"),
        ("Java/17.0.1", "Java"),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Googlebot",
        ),
    ] {
        let device = describe(user_agent);
        assert_eq!(
            (device.to_string().as_str(), device.kind),
            (name, DeviceKind::Program),
            "{user_agent}"
        );
    }
}

#[test]
fn what_nobody_knows_is_called_unknown() {
    for user_agent in [
        "",
        "   ",
        "Mozilla/5.0",
        "<script>alert(1)</script>",
        "/",
        "123",
        "\u{202e}\u{0}\n",
    ] {
        assert_eq!(
            describe(user_agent).to_string(),
            "Unknown browser on unknown system",
            "{user_agent:?}"
        );
    }
}

#[test]
fn l6_hostile_user_agents_are_cut_and_cleaned() {
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0";
    let hostile = [
        "A".repeat(1 << 20),
        "🦋".repeat(1 << 18),
        format!("{firefox}{}", "\r\nSet-Cookie: a=b".repeat(1000)),
        "curl\u{1b}[31m/8\r\nX: y".to_owned(),
        "curl\u{2028}<img src=x onerror=alert(1)>".to_owned(),
        "\u{202e}lruc/8".to_owned(),
        "((((((((".repeat(10_000),
        "Mozilla/5.0 (".repeat(50_000),
    ];
    for user_agent in hostile {
        let name = describe(&user_agent).to_string();
        assert!(name.len() <= 64, "{name}");
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || " -_.".contains(c)),
            "{name:?}"
        );
    }
}

#[test]
fn networks_are_told_coarsely() {
    for (address, words) in [
        ("127.0.0.1", "this computer"),
        ("127.8.9.1", "this computer"),
        ("::1", "this computer"),
        ("::ffff:127.0.0.1", "this computer"),
        ("10.1.2.3", "private network"),
        ("172.16.0.1", "private network"),
        ("192.168.178.20", "private network"),
        ("169.254.1.1", "private network"),
        ("100.64.0.1", "private network"),
        ("100.128.0.1", "100.128.0.x"),
        ("fd12:3456:789a::1", "private network"),
        ("fe80::1", "private network"),
        ("0.0.0.0", "unknown network"),
        ("::", "unknown network"),
        ("203.0.113.77", "203.0.113.x"),
        ("::ffff:203.0.113.77", "203.0.113.x"),
        ("2001:db8:12:3456::1", "2001:db8:12::/48"),
    ] {
        assert_eq!(coarse_network(address.parse().unwrap()), words, "{address}");
    }
}
