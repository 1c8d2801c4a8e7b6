//! P14, P15, P17 and the drift table F38.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::*;
use crate::domain::id::UserId;
use crate::domain::random::SystemRandom;

/// The secret of RFC 6238, appendix B.
fn rfc_secret() -> TotpSecret {
    TotpSecret::from_bytes(b"12345678901234567890").unwrap()
}

/// What an authenticator app whose clock stands at `seconds` shows.
fn code_at(seconds: i64) -> String {
    rfc_secret()
        .totp()
        .generate(u64::try_from(seconds).unwrap())
        .to_string()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

#[test]
fn p15_codes_are_those_of_the_rfc() {
    // RFC 6238, appendix B, for SHA-1, in full. It shows eight digits; ours are the last six of them.
    for (seconds, shown) in [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ] {
        let code = &shown[2..];
        assert_eq!(rfc_secret().code_at(at(seconds)), code, "at {seconds}");
        let accepted = check(&rfc_secret(), code, at(seconds), i64::MIN);
        assert_eq!(accepted, Some(seconds / 30), "at {seconds}");
        assert_eq!(check(&rfc_secret(), shown, at(seconds), i64::MIN), None, "all eight");
    }
}

#[test]
fn p15_the_current_step_and_one_before_it_are_accepted_and_nothing_else() {
    let now = 1_800_000_015;
    for (steps, accepted) in [(-2, false), (-1, true), (0, true), (1, false), (2, false)] {
        let answer = check(&rfc_secret(), &code_at(now + 30 * steps), at(now), i64::MIN);
        assert_eq!(answer, accepted.then_some(now / 30 + steps), "step {steps}");
    }
}

#[test]
fn f38_drift_from_minus_to_plus_120_seconds_gives_exactly_the_documented_window() {
    for start in [1_800_000_000_i64, 1_800_000_014, 1_800_000_029] {
        for drift in -120..=120 {
            // The app's clock is off by `drift`.
            let app = start + drift;
            let steps_ahead = app.div_euclid(30) - start.div_euclid(30);
            let answer = check(&rfc_secret(), &code_at(app), at(start), i64::MIN);
            let expected = matches!(steps_ahead, -1 | 0).then_some(app / 30);
            assert_eq!(answer, expected, "server at {start}, app off by {drift} s");
        }
    }
}

#[test]
fn p14_a_step_that_was_used_or_passed_is_never_accepted_again() {
    let now = 1_800_000_015;
    let step = now / 30;
    let current = code_at(now);
    let before = code_at(now - 30);
    assert_eq!(check(&rfc_secret(), &current, at(now), step - 1), Some(step));
    assert_eq!(check(&rfc_secret(), &current, at(now), step), None);
    assert_eq!(check(&rfc_secret(), &before, at(now), step - 1), None);
    assert_eq!(check(&rfc_secret(), &before, at(now), step), None);
}

#[test]
fn f38_setting_the_servers_clock_back_reopens_no_used_step() {
    let now = 1_800_000_015;
    for back in 1..=240 {
        assert_eq!(check(&rfc_secret(), &code_at(now), at(now - back), now / 30), None);
    }
}

#[test]
fn only_six_digits_are_a_code_and_spaces_are_passed_over() {
    let now = 1_234_567_890;
    for good in ["005924", "005 924", " 0 0 5 9 2 4 ", "005\u{a0}924"] {
        assert!(check(&rfc_secret(), good, at(now), i64::MIN).is_some(), "{good:?}");
    }
    let long = "0".repeat(1 << 20);
    for bad in [
        "",
        "5924",
        "05924",
        "0005924",
        "+05924",
        "-05924",
        "00592a",
        "٠٠٥٩٢٤",
        "005924\0",
        "0x5924",
        "5924.0",
        &long,
    ] {
        assert!(check(&rfc_secret(), bad, at(now), i64::MIN).is_none(), "{bad:.20}");
    }
}

#[test]
fn no_clock_however_wrong_makes_the_check_panic() {
    for millis in [i64::MIN, -1, 0, 29_999, 30_000, i64::MAX] {
        let _ = check(&rfc_secret(), "000000", Timestamp::from_millis(millis), i64::MIN);
    }
}

#[test]
fn p16_secrets_are_160_random_bits_and_never_shown_by_debug() {
    let random = SystemRandom::default();
    let secret = TotpSecret::generate(&random);
    assert_eq!(secret.as_bytes().len(), 20);
    assert_ne!(secret.as_bytes(), TotpSecret::generate(&random).as_bytes());
    assert_eq!(format!("{secret:?}"), "TotpSecret([redacted])");
    assert!(format!("{:?}", otpauth_url(&secret, "a", ISSUER)).contains("redacted"));
    assert!(TotpSecret::from_bytes(&[0; 19]).is_none() && TotpSecret::from_bytes(&[0; 21]).is_none());
}

#[test]
fn the_secret_reads_back_from_base32_and_shows_in_groups_of_four() {
    assert_eq!(
        rfc_secret().to_base32_groups(),
        "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ"
    );
    let back = TotpSecret::from_base32(&rfc_secret().to_base32()).unwrap();
    assert_eq!(back.as_bytes(), rfc_secret().as_bytes());
    for bad in [
        "",
        "GEZD",
        "gezdgnbvgy3tqojqgezdgnbvgy3tqojq",
        "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ",
        "1",
    ] {
        assert!(TotpSecret::from_base32(bad).is_none(), "{bad}");
    }
}

#[test]
fn the_address_carries_names_safely_whatever_they_contain() {
    let url = otpauth_url(&rfc_secret(), "alice@example.com", ISSUER);
    assert!(
        url.as_str()
            .starts_with("otpauth://totp/Mayfly:alice%40example.com?secret=GEZDGNBVGY3TQOJQ")
    );
    assert!(url.as_str().contains("issuer=Mayfly"));
    for name in ["", ":", "a:b", "a&secret=AAAA#?", "é/..\\\"<svg>", &"🦋".repeat(10_000)] {
        let url = otpauth_url(&rfc_secret(), name, name);
        assert_eq!(url.as_str().matches("secret=").count(), 1, "{name:.20}");
        assert!(url.as_str().is_ascii() && url.as_str().len() <= 2000);
        assert!(qr_svg(&url).ends_with("</svg>"));
    }
}

#[test]
fn the_qr_code_is_a_named_image_without_inline_styles() {
    let svg = qr_svg(&otpauth_url(&rfc_secret(), "alice", ISSUER));
    assert!(svg.starts_with(r#"<svg class="qr-code" role="img" aria-label="QR code"#));
    assert!(!svg.contains("style") && !svg.contains("<?xml") && !svg.contains("<script"));
    assert_eq!(svg.matches("<svg").count(), 1);
    assert!(!svg.contains("GEZDGNBV"), "the secret stands in the picture only");
}

#[test]
fn p17_ten_different_recovery_codes_of_80_bits_in_groups_of_four() {
    let random = SystemRandom::default();
    let codes: BTreeSet<String> = (0..100)
        .flat_map(|_| generate_recovery_codes(&random))
        .map(|code| code.expose_secret().to_owned())
        .collect();
    assert_eq!(codes.len(), 100 * RECOVERY_CODES);
    for code in codes {
        assert_eq!(code.split('-').map(str::len).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert!(!code.contains(['I', 'L', 'O', 'U']));
        assert!(normalise_recovery_code(&code).is_some());
    }
}

#[test]
fn p17_every_bit_of_a_code_comes_from_the_random_bytes() {
    #[derive(Debug)]
    struct Fixed(u8);
    impl Random for Fixed {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    #[derive(Debug)]
    struct Pattern;
    impl Random for Pattern {
        fn fill(&self, bytes: &mut [u8]) {
            for (byte, value) in bytes.iter_mut().zip([0x84, 0x21, 0x08, 0x42, 0x10].into_iter().cycle()) {
                *byte = value;
            }
        }
    }
    let first = |byte| generate_recovery_codes(&Fixed(byte))[0].expose_secret().to_owned();
    assert_eq!(first(0), "0000-0000-0000-0000");
    assert_eq!(first(255), "ZZZZ-ZZZZ-ZZZZ-ZZZZ");
    // 10000100 00100001 00001000 01000010 00010000: five bits each, always 16.
    assert_eq!(
        generate_recovery_codes(&Pattern)[0].expose_secret(),
        "GGGG-GGGG-GGGG-GGGG"
    );
}

#[test]
fn p17_a_code_is_known_again_however_it_is_typed_and_nothing_else_is() {
    let (key, user) = ([5; 32], UserId::new(at(1), &SystemRandom::default()));
    let hash = |typed: &str| normalise_recovery_code(typed).map(|code| hash_recovery_code(&key, user, &code));
    let expected = hash("7K3M-9QXT-01ZZ-ABCD").unwrap();
    for typed in [
        "7k3m-9qxt-01zz-abcd",
        "7K3M9QXT01ZZABCD",
        " 7K3M 9QXT 01ZZ ABCD ",
        "7K3M\u{2013}9QXT\u{2013}01ZZ\u{2013}ABCD",
        "7K3M-9QXT-OIZZ-ABCD",
        "7k3m-9qxt-olzz-abcd",
    ] {
        assert_eq!(hash(typed), Some(expected), "{typed}");
    }
    assert_ne!(hash("7K3M-9QXT-01ZZ-ABCE"), Some(expected));
    let long = "7".repeat(1 << 20);
    for typed in [
        "",
        "123456",
        "7K3M-9QXT-01ZZ-ABC",
        "7K3M-9QXT-01ZZ-ABCDE",
        "7K3M-9QXT-01ZZ-ABCU",
        "äöü",
        &long,
    ] {
        assert_eq!(hash(typed), None, "{typed:.20}");
    }
}

#[test]
fn p17_the_stored_hash_depends_on_key_and_user() {
    let random = SystemRandom::default();
    let (one, two) = (UserId::new(at(1), &random), UserId::new(at(2), &random));
    let code = normalise_recovery_code("7K3M-9QXT-01ZZ-ABCD").unwrap();
    assert_ne!(
        hash_recovery_code(&[5; 32], one, &code),
        hash_recovery_code(&[6; 32], one, &code)
    );
    assert_ne!(
        hash_recovery_code(&[5; 32], one, &code),
        hash_recovery_code(&[5; 32], two, &code)
    );
    assert_eq!(format!("{code:?}"), "RecoveryCode([redacted])");
}
