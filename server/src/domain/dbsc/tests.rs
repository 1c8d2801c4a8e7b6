//! What a browser is given and what it signs: to the byte, and to the millisecond.

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::id::UserId;
use crate::domain::policy::Rule;
use crate::domain::session::Client;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const OURS: SessionId = SessionId(Uuid::from_u128(1));
const OTHER: SessionId = SessionId(Uuid::from_u128(2));

fn seals() -> Seals {
    Seals::new(&[1; 32])
}

fn at(millis: u64) -> Timestamp {
    NOW.plus(Duration::from_millis(millis))
}

fn cookie(session: SessionId, now: Timestamp) -> String {
    seals().next_cookie(session, now).value
}

/// A session of a browser with this key.
fn session(browser_key: Option<BrowserKey>) -> Session {
    let rule = Rule {
        role: "member".to_owned(),
        version: 1,
    };
    Session {
        id: OURS,
        user_id: UserId(Uuid::from_u128(3)),
        device_id: None,
        client: Client::Browser,
        secret_sealed: Vec::new(),
        generation: 0,
        rotated_at: NOW,
        handed_out_at: NOW,
        superseded_at: NOW,
        child_confirmed: false,
        reissues: 0,
        access_expires_at: NOW,
        min_generation: 0,
        auth_epoch: 0,
        grant_epoch: 0,
        started_at: NOW,
        authenticated_at: NOW,
        last_active_at: NOW,
        access: Duration::from_mins(5),
        idle: Duration::from_hours(1),
        idle_rule: rule.clone(),
        absolute_expires_at: NOW,
        absolute_rule: rule,
        amr: "pwd".to_owned(),
        address: String::new(),
        user_agent: String::new(),
        jkt: None,
        browser_key,
        ending: None,
    }
}

fn bound(proved_at: Option<Timestamp>) -> Session {
    let point = vec![4; 65];
    session(Some(BrowserKey { point, proved_at }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "keys of browsers are not made by our own randomness"
)]
fn chance() -> SystemRandom {
    SystemRandom::new()
}

fn part(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

/// A browser's key.
struct Holder(EcdsaKeyPair);

impl Holder {
    fn new() -> Self {
        Self::on(&ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    fn on(curve: &'static EcdsaSigningAlgorithm) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &chance()).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref()).expect("our own key"))
    }

    fn point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(self.point().len() / 2);
        let crv = if x.len() == 32 { "P-256" } else { "P-384" };
        json!({ "kty": "EC", "crv": crv, "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y) })
    }

    /// RFC 7638, by hand.
    fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        BASE64URL_NOPAD.encode(digest::digest(&SHA256, text.as_bytes()).as_ref())
    }

    fn key(&self) -> BrowserKey {
        BrowserKey {
            point: self.point().to_vec(),
            proved_at: None,
        }
    }

    /// The header of a registration.
    fn registers(&self) -> Value {
        json!({ "typ": "dbsc+jwt", "alg": "ES256", "jwk": self.jwk() })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_texts(&header.to_string(), &claims.to_string())
    }

    /// Honestly, whatever it says.
    fn sign_texts(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&chance(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

/// The header of a renewal.
fn renews() -> Value {
    json!({ "typ": "dbsc+jwt", "alg": "ES256" })
}

/// One member changed; `null` takes it away.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    object
}

type Make = fn(&Seals, SessionId, Timestamp) -> String;

/// Every kind of sealed text, and what makes it.
const KINDS: [(Purpose, Make); 3] = [
    (Purpose::Registration, Seals::registration_challenge),
    (Purpose::Renewal, Seals::renewal_challenge),
    (Purpose::Cookie, |seals, session, now| {
        seals.next_cookie(session, now).value
    }),
];

#[test]
fn f67_a_sealed_text_is_good_for_its_purpose_and_its_session_alone() {
    let (ours, others) = (seals(), Seals::new(&[2; 32]));
    for (index, (_, make)) in KINDS.into_iter().enumerate() {
        let text = make(&ours, OURS, NOW);
        for (other, (purpose, _)) in KINDS.into_iter().enumerate() {
            let opened = ours.open(purpose, OURS, &text).is_some();
            assert_eq!(opened, index == other, "{index} as {other}");
            assert!(ours.open(purpose, OTHER, &text).is_none(), "another session's");
            assert!(others.open(purpose, OURS, &text).is_none(), "under another key");
        }
        assert_ne!(make(&ours, OTHER, NOW), text);
        assert!(!format!("{ours:?}").contains(&text));
    }
    assert_eq!(format!("{ours:?}"), "Seals([redacted])");
}

#[test]
fn f67_a_sealed_text_with_anything_changed_is_none_of_ours() {
    for (purpose, make) in KINDS {
        let text = make(&seals(), OURS, NOW);
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url");
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = BASE64URL_NOPAD.encode(&altered);
            assert!(seals().open(purpose, OURS, &altered).is_none(), "bit {bit}");
        }
        for foreign in [
            "",
            "A",
            &text[1..],
            &text[..28],
            &format!("{text}AAAA"),
            &format!("{text}="),
            &format!(" {text}"),
            &format!("\"{text}\""),
            &"A".repeat(text.len()),
            &"\u{e4}".repeat(16),
        ] {
            assert!(seals().open(purpose, OURS, foreign).is_none(), "{foreign}");
        }
    }
}

#[test]
fn f67_a_bound_cookie_is_good_for_its_time_and_a_minute_more_for_what_is_under_way() {
    let session = bound(Some(NOW.minus(Duration::from_hours(1))));
    for (cookie, lifetime) in [
        (seals().first_cookie(OURS, NOW), 60_000),
        (seals().next_cookie(OURS, NOW), 600_000),
    ] {
        assert_eq!(
            (cookie.session, cookie.lifetime),
            (OURS, Duration::from_millis(lifetime))
        );
        for (millis, expected) in [
            (0, Ok(())),
            (lifetime, Ok(())),
            (lifetime + 59_999, Ok(())),
            (lifetime + 60_000, Err(Refusal::CookieExpired)),
            (lifetime + 60_001, Err(Refusal::CookieExpired)),
            (1_000 * lifetime, Err(Refusal::CookieExpired)),
        ] {
            let checked = seals().check(&session, Some(&cookie.value), at(millis));
            assert_eq!(checked, expected, "{lifetime} ms, after {millis} ms");
        }
    }
}

#[test]
fn f67_nothing_is_asked_of_a_session_until_a_minute_after_its_browser_first_signed() {
    let over = cookie(OURS, NOW.minus(Duration::from_hours(1)));
    let foreign = cookie(OTHER, NOW);
    let challenge = seals().renewal_challenge(OURS, NOW);
    for (cookie, refusal) in [
        (None, Refusal::CookieMissing),
        (Some(""), Refusal::CookieForged),
        (Some("nonsense"), Refusal::CookieForged),
        (Some(&*foreign), Refusal::CookieForged),
        (Some(&*challenge), Refusal::CookieForged),
        (Some(&*over), Refusal::CookieExpired),
    ] {
        for (session, millis, expected) in [
            (session(None), 0, Ok(())),
            (bound(None), 0, Ok(())),
            (bound(None), 86_400_000, Ok(())),
            (bound(Some(NOW)), 0, Ok(())),
            (bound(Some(NOW)), 59_999, Ok(())),
            (bound(Some(NOW)), 60_000, Err(refusal)),
            (bound(Some(NOW)), 60_001, Err(refusal)),
        ] {
            let checked = seals().check(&session, cookie, at(millis));
            assert_eq!(checked, expected, "{cookie:?} {:?} {millis}", session.browser_key);
        }
        let ahead = bound(Some(at(3_600_000)));
        assert_eq!(seals().check(&ahead, cookie, NOW), Ok(()), "the clock went back");
    }
    let good = cookie(OURS, NOW);
    for session in [
        session(None),
        bound(None),
        bound(Some(NOW)),
        bound(Some(NOW.minus(Duration::from_hours(1)))),
    ] {
        assert_eq!(seals().check(&session, Some(&good), at(60_000)), Ok(()));
    }
}

#[test]
fn f67_a_challenge_is_signed_in_its_time_or_not_at_all() {
    let holder = Holder::new();
    let challenge = seals().registration_challenge(OURS, NOW);
    let proof = holder.sign(&holder.registers(), &json!({ "jti": challenge }));
    for (millis, expected) in [
        (0, None),
        (119_999, None),
        (120_000, Some(Refusal::Challenge)),
        (600_000, Some(Refusal::Challenge)),
    ] {
        let registered = seals().verify_registration(&proof, OURS, at(millis));
        assert_eq!(registered.err(), expected, "registered after {millis} ms");
    }
    let (first, next) = (seals().first_cookie(OURS, NOW), seals().next_cookie(OURS, NOW));
    for (challenge, lifetime) in [
        (seals().renewal_challenge(OURS, NOW), 120_000),
        (first.challenge, 900_000),
        (next.challenge, 900_000),
    ] {
        let proof = holder.sign(&renews(), &json!({ "jti": challenge }));
        let until = at(lifetime);
        let signed = Signed { challenge, until };
        for (millis, expected) in [
            (0, Ok(signed.clone())),
            (lifetime - 1, Ok(signed)),
            (lifetime, Err(Refusal::Challenge)),
            (86_400_000, Err(Refusal::Challenge)),
        ] {
            let verified = seals().verify_renewal(&proof, OURS, &holder.key(), at(millis));
            assert_eq!(verified, expected, "{lifetime} ms, after {millis} ms");
        }
    }
}

#[test]
fn f67_the_challenge_beside_a_cookie_is_another_one_than_was_asked_for_in_the_same_moment() {
    let asked = seals().renewal_challenge(OURS, NOW);
    assert_ne!(seals().next_cookie(OURS, NOW).challenge, asked);
    assert_ne!(seals().first_cookie(OURS, NOW).challenge, asked);
}

#[test]
fn r6_who_registers_a_key_is_taken_at_its_word_if_it_signs_with_it() {
    let holder = Holder::new();
    let claims = json!({ "jti": seals().registration_challenge(OURS, NOW) });
    let named = with(holder.registers(), "kid", json!("mine"));
    let described = with(holder.jwk(), "alg", json!("ES256"));
    let described = with(holder.registers(), "jwk", with(described, "use", json!("sig")));
    let more = with(with(claims.clone(), "aud", json!("x")), "iat", json!(7));
    for (header, claims) in [
        (holder.registers(), claims.clone()),
        (named, claims.clone()),
        (described, claims),
        (holder.registers(), more),
    ] {
        let registered = seals().verify_registration(&holder.sign(&header, &claims), OURS, NOW);
        let registered = registered.expect("holds");
        assert_eq!(registered.point, holder.point());
        assert_eq!(registered.thumbprint.to_string(), holder.thumbprint());
    }
}

/// What is wrong in a registration and in a renewal: honestly signed, or spoiled afterwards.
fn wrong_in_both(holder: &Holder, header: &Value, claims: &Value) -> Vec<(String, String, Refusal)> {
    let mut wrong = Vec::new();
    for typ in [
        json!("dpop+jwt"),
        json!("JWT"),
        json!("DBSC+JWT"),
        json!(""),
        json!(7),
        Value::Null,
    ] {
        wrong.push(("typ", typ, Refusal::Header));
    }
    for alg in ["none", "HS256", "EdDSA", "ES384", "RS256", "es256", ""] {
        wrong.push(("alg", json!(alg), Refusal::Algorithm));
    }
    wrong.push(("alg", json!(["ES256"]), Refusal::Algorithm));
    wrong.push(("alg", Value::Null, Refusal::Algorithm));
    for name in FORBIDDEN.into_iter().filter(|name| *name != "jwk") {
        wrong.push((name, json!("x"), Refusal::Header));
        wrong.push((name, json!([]), Refusal::Header));
    }
    let mut wrong: Vec<_> = wrong
        .into_iter()
        .map(|(name, value, refusal)| {
            let what = format!("{name} {value}");
            (what, holder.sign(&with(header.clone(), name, value), claims), refusal)
        })
        .collect();
    wrong.extend(spoiled(holder, header, claims));
    let doubled = |object: &Value| object.to_string().replacen('{', "{\"x\":{\"y\":1,\"y\":1},", 1);
    for (header, claims) in [
        (
            header.to_string().replacen('{', "{\"typ\":\"x\",", 1),
            claims.to_string(),
        ),
        (
            header.to_string(),
            claims.to_string().replacen('{', "{\"jti\":\"x\",", 1),
        ),
        (doubled(header), claims.to_string()),
        (header.to_string(), doubled(claims)),
        (format!("{header}{header}"), claims.to_string()),
        (header.to_string(), "\"jti\"".to_owned()),
        (header.to_string(), format!("[{claims}]")),
        (header.to_string(), String::new()),
        ("null".to_owned(), claims.to_string()),
    ] {
        let what = format!("{header} {claims}");
        wrong.push((what, holder.sign_texts(&header, &claims), Refusal::Form));
    }
    wrong
}

/// A good proof that was touched.
fn spoiled(holder: &Holder, header: &Value, claims: &Value) -> Vec<(String, String, Refusal)> {
    let good = holder.sign(header, claims);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (head, body) = message.split_once('.').expect("three parts");
    let other_head = part(&with(header.clone(), "kid", json!("other")).to_string());
    let other_body = part(&with(claims.clone(), "aud", json!("other")).to_string());
    let stranger = Holder::new().sign(header, claims);
    let der = [0x30_u8, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01];
    [
        ("another key", stranger, Refusal::Signature),
        ("header", format!("{other_head}.{body}.{signature}"), Refusal::Signature),
        (
            "payload",
            format!("{head}.{other_body}.{signature}"),
            Refusal::Signature,
        ),
        ("no signature", format!("{message}."), Refusal::Signature),
        (
            "half of it",
            format!("{message}.{}", &signature[..40]),
            Refusal::Signature,
        ),
        (
            "nothing but zeros",
            format!("{message}.{}", "A".repeat(86)),
            Refusal::Signature,
        ),
        (
            "DER",
            format!("{message}.{}", BASE64URL_NOPAD.encode(&der)),
            Refusal::Signature,
        ),
        ("nothing", String::new(), Refusal::Form),
        ("two parts", message.to_owned(), Refusal::Form),
        ("four parts", format!("{good}.{signature}"), Refusal::Form),
        ("padding", format!("{good}=="), Refusal::Form),
        ("quotes", format!("\"{good}\""), Refusal::Form),
        ("two at once", format!("{good}, {good}"), Refusal::Form),
        ("no header", format!(".{body}.{signature}"), Refusal::Form),
        ("no payload", format!("{head}..{signature}"), Refusal::Form),
        ("too long", format!("{good}{}", "A".repeat(8 * 1024)), Refusal::Form),
    ]
    .map(|(what, proof, refusal)| (what.to_owned(), proof, refusal))
    .to_vec()
}

/// Texts that are no challenge of this session for this purpose.
fn wrong_challenges(purpose: usize) -> Vec<Value> {
    let long_ago = NOW.minus(Duration::from_hours(1));
    let mut wrong = vec![Value::Null, json!(7), json!(""), json!("x"), json!(true)];
    for (index, (_, make)) in KINDS.into_iter().enumerate() {
        let text = make(&seals(), OURS, NOW);
        if index == purpose {
            wrong.push(json!([text]));
            wrong.push(json!(format!("{text} ")));
        } else {
            wrong.push(json!(text));
        }
        wrong.push(json!(make(&seals(), OURS, long_ago)));
        wrong.push(json!(make(&seals(), OTHER, NOW)));
        wrong.push(json!(make(&Seals::new(&[2; 32]), OURS, NOW)));
    }
    wrong
}

#[test]
fn f67_a_registration_with_anything_wrong_is_refused_for_its_own_reason() {
    let holder = Holder::new();
    let (header, claims) = (
        holder.registers(),
        json!({ "jti": seals().registration_challenge(OURS, NOW) }),
    );
    let mut wrong = wrong_in_both(&holder, &header, &claims);
    let ed25519 = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
    let ed25519 = BASE64URL_NOPAD.encode(ed25519.public_key().as_ref());
    let other = Holder::on(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let own = holder.jwk();
    for jwk in [
        Value::Null,
        json!(own.to_string()),
        json!([own]),
        json!({}),
        with(own.clone(), "d", own["x"].clone()),
        with(own.clone(), "k", json!("AAAA")),
        with(own.clone(), "y", own["x"].clone()),
        with(own.clone(), "x", json!("AAAA")),
        with(own.clone(), "x", Value::Null),
        with(own.clone(), "crv", json!("P-384")),
        with(own.clone(), "crv", json!("secp256k1")),
        with(own.clone(), "kty", json!("OKP")),
        with(own.clone(), "use", json!("enc")),
        with(own.clone(), "alg", json!("EdDSA")),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": ed25519 }),
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }),
        other.jwk(),
    ] {
        let what = format!("jwk {jwk}");
        wrong.push((
            what,
            holder.sign(&with(header.clone(), "jwk", jwk), &claims),
            Refusal::Key,
        ));
    }
    let on_p384 = other.sign(&with(header.clone(), "jwk", other.jwk()), &claims);
    wrong.push(("signed on P-384".to_owned(), on_p384, Refusal::Key));
    for jti in wrong_challenges(0) {
        let what = format!("jti {jti}");
        let proof = holder.sign(&header, &with(claims.clone(), "jti", jti));
        wrong.push((what, proof, Refusal::Challenge));
    }
    for (what, proof, refusal) in wrong {
        let refused = seals().verify_registration(&proof, OURS, NOW);
        assert_eq!(refused, Err(refusal), "{what}");
    }
    let good = holder.sign(&header, &claims);
    let elsewhere = seals().verify_registration(&good, OTHER, NOW);
    assert_eq!(elsewhere, Err(Refusal::Challenge));
    assert!(seals().verify_registration(&good, OURS, NOW).is_ok());
}

#[test]
fn f67_a_renewal_with_anything_wrong_is_refused_for_its_own_reason() {
    let (holder, stranger) = (Holder::new(), Holder::new());
    let claims = json!({ "jti": seals().renewal_challenge(OURS, NOW) });
    let mut wrong = wrong_in_both(&holder, &renews(), &claims);
    for jwk in [holder.jwk(), stranger.jwk(), json!({})] {
        let what = format!("jwk {jwk}");
        let proof = holder.sign(&with(renews(), "jwk", jwk), &claims);
        wrong.push((what, proof, Refusal::Header));
    }
    for jti in wrong_challenges(1) {
        let what = format!("jti {jti}");
        let proof = holder.sign(&renews(), &with(claims.clone(), "jti", jti));
        wrong.push((what, proof, Refusal::Challenge));
    }
    let key = holder.key();
    for (what, proof, refusal) in wrong {
        let refused = seals().verify_renewal(&proof, OURS, &key, NOW);
        assert_eq!(refused, Err(refusal), "{what}");
    }
    let good = holder.sign(&renews(), &claims);
    let elsewhere = seals().verify_renewal(&good, OTHER, &key, NOW);
    assert_eq!(elsewhere, Err(Refusal::Challenge));
    let of_another = seals().verify_renewal(&good, OURS, &stranger.key(), NOW);
    assert_eq!(of_another, Err(Refusal::Signature));
    let damaged = BrowserKey {
        point: vec![4; 65],
        proved_at: None,
    };
    let refused = seals().verify_renewal(&good, OURS, &damaged, NOW);
    assert_eq!(refused, Err(Refusal::Key), "no point of the curve");
    assert!(seals().verify_renewal(&good, OURS, &key, NOW).is_ok());
}

#[test]
fn f67_a_proof_with_any_bit_changed_is_refused() {
    let holder = Holder::new();
    let registration = holder.sign(
        &holder.registers(),
        &json!({ "jti": seals().registration_challenge(OURS, NOW) }),
    );
    let renewal = holder.sign(&renews(), &json!({ "jti": seals().renewal_challenge(OURS, NOW) }));
    for at in 0..registration.len().max(renewal.len()) {
        let altered = |proof: &str| {
            let mut altered = proof.as_bytes().to_vec();
            if let Some(byte) = altered.get_mut(at) {
                *byte ^= 1;
            }
            (altered != proof.as_bytes()).then(|| String::from_utf8(altered).expect("ASCII"))
        };
        if let Some(altered) = altered(&registration) {
            assert!(seals().verify_registration(&altered, OURS, NOW).is_err(), "byte {at}");
        }
        if let Some(altered) = altered(&renewal) {
            let refused = seals().verify_renewal(&altered, OURS, &holder.key(), NOW);
            assert!(refused.is_err(), "byte {at}");
        }
    }
}
