//! Which places a redirect may go to (C10): paths on this very origin, and only those every browser reads the same.

/// Where forms are sent; nobody is sent there by a redirect.
const FORM_TARGETS: &str = "/actions/";

/// Longest path to come back to, in bytes.
const LONGEST: usize = 512;
/// Longest redirect of a server function: it carries an encoded error in its query.
const LONGEST_LOCATION: usize = 4096;

/// The path, if it is safe to go back to: absolute, on this origin, visible ASCII, without anything that some
/// browser or proxy might read as another host or another path.
#[must_use]
pub fn safe_return_path(path: &str) -> Option<String> {
    is_safe(path, LONGEST).then(|| path.to_owned())
}

/// The path and query of a URL on this origin (what `Referer` and `Location` hold), or of a path.
#[must_use]
pub fn same_origin_path(origin: &str, url: &str) -> Option<String> {
    let path = match url.strip_prefix(origin) {
        Some("") => "/",
        Some(rest) => rest,
        None => url,
    };
    let path = path.split('#').next().unwrap_or(path);
    is_safe(path, LONGEST_LOCATION).then(|| path.to_owned())
}

fn is_safe(text: &str, longest: usize) -> bool {
    if text.len() > longest || !text.starts_with('/') || !text.bytes().all(is_plain) {
        return false;
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Some(decoded) = percent_decoded(path) else {
        return false;
    };
    // Decoded once: what is left may not be an escape again (`%252f`), a separator, a control character or
    // anything outside ASCII.
    let decoded_is_plain = decoded.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let odd = |byte: &u8| matches!(byte, b'%' | b'\\' | b'@' | b'?' | b'#' | b';' | b':');
    decoded_is_plain
        && !decoded.iter().any(odd)
        && decoded.split(|byte| *byte == b'/').count() == path.split('/').count()
        && !decoded.windows(2).any(|pair| pair == b"//")
        && !decoded.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..")
        && percent_decoded(query).is_some_and(|decoded| !decoded.iter().any(u8::is_ascii_control))
        // A form's target takes no GET.
        && !path.starts_with(FORM_TARGETS)
}

/// What may stand in a path or query (RFC 3986, section 3.3 and 3.4), and no fragment.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'/' | b'?'
                | b'-'
                | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
                | b'%'
        )
}

/// Percent-decoded once; `None` if an escape is broken.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            decoded.push(u8::try_from(value).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 86] = [
        "",
        " ",
        "/ ",
        " /",
        "evil",
        "evil.example",
        "//evil.example",
        "///evil.example",
        "////evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "\\\\evil.example",
        "/\\/evil.example",
        "\\evil.example",
        "/%5cevil.example",
        "/%5Cevil.example",
        "/%2fevil.example",
        "/%2Fevil.example",
        "/%2f%2fevil.example",
        "%2f%2fevil.example",
        "/%255cevil.example",
        "/%252fevil.example",
        "/a/%2e%2e//evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "/\r/evil.example",
        "\t//evil.example",
        "\n//evil.example",
        "/%09/evil.example",
        "/%0a/evil.example",
        "/%0d%0aSet-Cookie:a=b",
        "/a?b=%0d%0aSet-Cookie:a=b",
        "/%00",
        "/a?%00",
        "/\0",
        "/\u{b}/evil.example",
        "/\u{7f}",
        "/%7f",
        "//user@evil.example",
        "/@evil.example",
        "//@evil.example",
        "/%40evil.example",
        "@evil.example",
        "https://evil.example",
        "http://evil.example",
        "https:/evil.example",
        "https:evil.example",
        "//https://evil.example",
        "/https://evil.example",
        "HTTPS://EVIL.EXAMPLE",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "java\tscript:alert(1)",
        "/javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "blob:x",
        "about:blank",
        "mailto:a@b",
        "ws://evil.example",
        "/\u{2f}\u{ff0f}evil.example",
        "/\u{ff0f}evil.example",
        "\u{ff0f}/evil.example",
        "/\u{3002}evil",
        "//evil\u{3002}example",
        "/%E3%80%82",
        "/evil\u{2024}example",
        "/\u{202e}elpmaxe",
        "/\u{feff}/evil",
        "/\u{2028}/evil",
        "/..",
        "/../evil",
        "/./",
        "/a/../..//evil",
        "/%2e%2e/",
        "/%2e/",
        "/.%2e/",
        "/a//b",
        "/a/;/b",
        "/a#b",
        "/%zz",
        "/%",
        "/%1",
        "/\"><script>",
        "/actions/sign_out",
    ];

    #[test]
    fn c10_only_paths_on_this_origin_are_gone_back_to() {
        for hostile in HOSTILE {
            assert_eq!(safe_return_path(hostile), None, "{hostile:?}");
        }
        for evil in ["/a|b", "/a<b", "/a`b", "/a{b", "/a^b", "/a b", "/a?b=\"", "/a?b#c"] {
            assert_eq!(safe_return_path(evil), None, "{evil:?}");
        }
        let long = format!("/{}", "a".repeat(512));
        assert_eq!(safe_return_path(&long), None);
        assert!(safe_return_path(&long[..512]).is_some());
        for good in [
            "/",
            "/devices",
            "/admin/policies/finance",
            "/admin/audit?person=ann%40x.example&from=2026-01-01T00:00",
            "/a?b=c/d//e",
            "/a?return=https://x",
            "/admin/people/0192-aa~_.x?search=%C3%A4+b",
        ] {
            assert_eq!(safe_return_path(good).as_deref(), Some(good));
        }
    }

    #[test]
    fn f62_a_referer_counts_only_if_it_is_ours() {
        let ours = "https://id.example";
        for (url, path) in [
            ("https://id.example/sign-in?a=b#c", Some("/sign-in?a=b")),
            ("https://id.example", Some("/")),
            ("/sign-in", Some("/sign-in")),
            ("https://id.example.evil.example/x", None),
            ("https://id.example@evil.example/x", None),
            ("https://id.example:8443/x", None),
            ("https://id.example//evil.example", None),
            ("https://id.example\\evil.example", None),
            ("http://id.example/x", None),
            ("https://evil.example/https://id.example/x", None),
            ("", None),
        ] {
            assert_eq!(same_origin_path(ours, url).as_deref(), path, "{url}");
        }
        for hostile in HOSTILE.iter().filter(|text| !text.contains('#')) {
            assert_eq!(same_origin_path(ours, hostile), None, "{hostile:?}");
        }
    }
}
