//! J7: the compact form.

use super::*;

pub(in crate::domain::jwt::tests) fn j7(world: &World) -> Vec<Bad> {
    let good = world.good();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("a token has three parts")
    };
    let mut bad: Vec<Bad> = Vec::new();
    let mut refused = |what: &str, token: String, refusal| bad.push((what.to_owned(), token, refusal));

    refused("empty", String::new(), Refusal::Parts);
    refused("only dots", "..".to_owned(), Refusal::Parts);
    refused("one part", header.to_owned(), Refusal::Parts);
    refused("two parts", format!("{header}.{claims}"), Refusal::Parts);
    refused("four parts", format!("{good}.{signature}"), Refusal::Parts);
    refused(
        "five parts, as encrypted tokens have",
        format!("{good}.{claims}.{signature}"),
        Refusal::Parts,
    );
    refused("a dot before", format!(".{good}"), Refusal::Parts);
    refused("a dot behind", format!("{good}."), Refusal::Parts);
    refused("empty header", format!(".{claims}.{signature}"), Refusal::Parts);
    refused("empty claims", format!("{header}..{signature}"), Refusal::Parts);
    refused(
        "8,193 bytes",
        format!("{good}{}", "A".repeat(8193 - good.len())),
        Refusal::TooLong,
    );
    refused("a megabyte", "A".repeat(1 << 20), Refusal::TooLong);
    refused("dots without end", ".".repeat(8000), Refusal::Parts);

    for filler in [
        "=", "==", " ", "\n", "\t", "\r\n", "\0", "+", "/", "%3D", "é", "\u{feff}",
    ] {
        for (part, token) in [
            ("header", format!("{header}{filler}.{claims}.{signature}")),
            ("claims", format!("{header}.{claims}{filler}.{signature}")),
            ("signature", format!("{header}.{claims}.{signature}{filler}")),
            ("start", format!("{filler}{good}")),
            (
                "middle",
                format!("{header}.{}{filler}{}.{signature}", &claims[..8], &claims[8..]),
            ),
        ] {
            refused(&format!("{filler:?} in {part}"), token, Refusal::Base64);
        }
    }
    // 64 bytes leave four unused bits in the last character: only zeros are canonical.
    let last = signature.chars().last().unwrap();
    for other in "BCDEFGHIJKLMNOP".chars().filter(|_| "AQgw".contains(last)) {
        let shifted = char::from(match last {
            'A' => other as u8,
            'Q' => b"RSTUVWXYZabcdef"[usize::from(other as u8 - b'B')],
            'g' => b"hijklmnopqrstuv"[usize::from(other as u8 - b'B')],
            _ => b"xyz0123456789-_"[usize::from(other as u8 - b'B')],
        });
        let token = format!("{header}.{claims}.{}{shifted}", &signature[..signature.len() - 1]);
        refused(
            &format!("signature ends in {shifted} for {last}"),
            token,
            Refusal::Base64,
        );
    }
    refused(
        "a length no bytes have",
        format!("{header}.{claims}.{}", &signature[..85]),
        Refusal::Base64,
    );
    bad.extend(bad_json(world));
    bad
}

/// Honestly signed bytes that are no JSON object, or one with duplicate members.
fn bad_json(world: &World) -> Vec<Bad> {
    let mut bad: Vec<Bad> = Vec::new();
    let header_text = world.header().to_string();
    let claims_text = good_claims().to_string();
    let mut signed = |what: &str, header: &[u8], claims: &[u8], refusal| {
        bad.push((what.to_owned(), world.sign_bytes(header, claims), refusal));
    };
    let body = |text: &str| text[1..].to_owned();
    let kid = world.ring.active_signing().kid();
    let duplicates = [
        format!(r#"{{"alg":"none",{}"#, body(&header_text)),
        format!(r#"{{"typ":"at+jwt",{}"#, body(&header_text)),
        format!(r#"{{"kid":"{kid}",{}"#, body(&header_text)),
        // the same name, written with an escape
        format!(r#"{{"\u0061lg":"none",{}"#, body(&header_text)),
    ];
    for text in &duplicates {
        signed(
            "duplicate in header",
            text.as_bytes(),
            claims_text.as_bytes(),
            Refusal::DuplicateMember,
        );
    }
    for claim in Claim::ALL {
        let name = claim.as_str();
        let text = format!(r#"{{"{name}":{},{}"#, good_claims()[name], body(&claims_text));
        signed(
            &format!("{name} twice"),
            header_text.as_bytes(),
            text.as_bytes(),
            Refusal::DuplicateMember,
        );
    }
    let nested = format!(r#"{{"extra":{{"a":1,"a":2}},{}"#, body(&claims_text));
    signed(
        "duplicate inside",
        header_text.as_bytes(),
        nested.as_bytes(),
        Refusal::DuplicateMember,
    );
    let nested = format!(r#"{{"extra":[[{{"a":1,"b":0,"a":2}}]],{}"#, body(&claims_text));
    signed(
        "duplicate deep inside",
        header_text.as_bytes(),
        nested.as_bytes(),
        Refusal::DuplicateMember,
    );

    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let no_objects: [(&str, &[u8], Refusal); 18] = [
        ("an array", b"[]", Refusal::Json),
        ("a text", b"\"text\"", Refusal::Json),
        ("null", b"null", Refusal::Json),
        ("a number", b"1", Refusal::Json),
        ("true", b"true", Refusal::Json),
        ("two objects", b"{}{}", Refusal::Json),
        ("something behind", b"{} x", Refusal::Json),
        ("no end", b"{\"a\":1", Refusal::Json),
        ("a comma too many", b"{\"a\":1,}", Refusal::Json),
        ("a comment", b"{/**/}", Refusal::Json),
        ("single quotes", b"{'a':1}", Refusal::Json),
        ("NaN", b"{\"a\":NaN}", Refusal::Json),
        ("a raw line end in a text", b"{\"a\":\"\n\"}", Refusal::Json),
        ("half a surrogate pair", b"{\"a\":\"\\ud800\"}", Refusal::Json),
        ("a byte order mark", b"\xef\xbb\xbf{}", Refusal::Json),
        ("not UTF-8", b"{\"a\":\"\xff\"}", Refusal::Utf8),
        ("UTF-16", b"\xff\xfe{\0}\0", Refusal::Utf8),
        ("nested too deeply", deep.as_bytes(), Refusal::Json),
    ];
    for (what, bytes, refusal) in no_objects {
        if bytes.len() < 1000 {
            signed(&format!("header is {what}"), bytes, claims_text.as_bytes(), refusal);
        }
        signed(&format!("claims are {what}"), header_text.as_bytes(), bytes, refusal);
    }
    bad
}
