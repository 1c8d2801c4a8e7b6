//! P1 to P5.

use super::*;
use crate::domain::random::SystemRandom;

const PEPPER: [u8; 32] = [3; 32];

fn password(text: &str) -> Password {
    Password::parse(text).unwrap()
}

fn hashed(text: &str) -> String {
    hash(&password(text), &HashParams::LEAST, &PEPPER, &SystemRandom::default()).unwrap()
}

fn verified(text: &str, stored: &str) -> Verification {
    verify(&password(text), stored, &HashParams::LEAST, &PEPPER).unwrap()
}

#[test]
fn p1_lengths_are_counted_in_code_points_and_the_bounds_are_exact() {
    let text = |length: usize| "äb🦋x7".chars().cycle().take(length).collect::<String>();
    for (min, length, accepted) in [
        (MIN_LENGTH_ALONE, 14, false),
        (MIN_LENGTH_ALONE, 15, true),
        (MIN_LENGTH_WITH_MFA, 7, false),
        (MIN_LENGTH_WITH_MFA, 8, true),
        (MIN_LENGTH_WITH_MFA, 64, true),
        (MIN_LENGTH_WITH_MFA, 256, true),
    ] {
        let answer = check_new(&password(&text(length)), min, &[]);
        assert_eq!(answer.is_ok(), accepted, "{length} code points");
        assert!(accepted || answer == Err(PasswordProblem::TooShort { min }));
    }
    // A family of seven code points and one cluster counts as seven.
    assert_eq!(
        check_new(&password("👨‍👩‍👧‍👦"), 8, &[]),
        Err(PasswordProblem::TooShort { min: 8 })
    );
}

#[test]
fn p3_too_long_a_password_is_refused_before_hashing_and_never_cut() {
    let too_long = Err(PasswordProblem::TooLong { max: 256 });
    assert_eq!(Password::parse(&"x".repeat(257)).map(|_| ()), too_long);
    assert_eq!(Password::parse(&"x".repeat(1 << 20)).map(|_| ()), too_long);
    assert_eq!(Password::parse(&"🦋".repeat(257)).map(|_| ()), too_long);
    assert!(Password::parse(&"🦋".repeat(256)).is_ok());
    // One code point as received that NFC takes apart counts as what it becomes.
    assert_eq!(Password::parse(&"\u{0958}".repeat(129)).map(|_| ()), too_long);
}

#[test]
fn p3_every_byte_of_a_password_counts() {
    let long = "a1".repeat(36);
    for (stored, given) in [
        (format!("{long}x"), format!("{long}y")),
        (long.clone(), format!("{long}x")),
        ("with\0one thing".to_owned(), "with\0other thing".to_owned()),
        ("trailing space ".to_owned(), "trailing space".to_owned()),
        (" leading space".to_owned(), "leading space".to_owned()),
        ("Case Matters".to_owned(), "case matters".to_owned()),
        ("\u{ff46}ull width".to_owned(), "full width".to_owned()),
    ] {
        let phc = hashed(&stored);
        assert_eq!(verified(&stored, &phc), Verification::Right, "{stored:?}");
        assert_eq!(verified(&given, &phc), Verification::Wrong, "{given:?}");
    }
}

#[test]
fn p3_the_two_spellings_of_an_accented_letter_are_one_password() {
    assert_eq!(
        verified("cafe\u{301} au lait", &hashed("caf\u{e9} au lait")),
        Verification::Right
    );
}

#[test]
fn p4_the_most_common_passwords_are_refused_in_any_case() {
    assert!(COMMON.lines().count() >= 3000);
    for common in COMMON.lines().step_by(80) {
        assert_eq!(
            check_new(&password(common), 8, &[]),
            Err(PasswordProblem::TooCommon),
            "{common}"
        );
        let shouted = common.to_uppercase();
        assert_eq!(
            check_new(&password(&shouted), 8, &[]),
            Err(PasswordProblem::TooCommon),
            "{shouted}"
        );
        // Whole passwords are compared: a common word inside a long one is no fault.
        assert_eq!(
            check_new(&password(&format!("{common} behind seven hills")), 8, &[]),
            Ok(())
        );
    }
}

#[test]
fn p4_names_and_repetitions_are_refused() {
    let context = ["alice.liddell", "Alice.Liddell@Example.com", "Alice Liddell"];
    for text in [
        "alice.liddell",
        "ALICE.LIDDELL",
        "alice.liddell@example.com",
        "alice liddell",
        "aaaaaaaaaaaaaaa",
        "abababababababab",
        "passwordpassword",
        "1212121212121212",
    ] {
        assert_eq!(
            check_new(&password(text), 8, &context),
            Err(PasswordProblem::TooCommon),
            "{text}"
        );
    }
    for text in [
        "alice.liddell in wonderland",
        "correct horse battery staple",
        "blue whale blue whale",
    ] {
        assert_eq!(check_new(&password(text), 8, &context), Ok(()), "{text}");
    }
}

#[test]
fn p2_there_are_no_rules_of_composition() {
    for text in [
        "only lower letters",
        "ONLY UPPER LETTERS",
        "84716203958172640",
        "日本語のながいあいことばです、はい",
    ] {
        assert_eq!(check_new(&password(text), 15, &[]), Ok(()), "{text}");
    }
}

#[test]
fn p5_the_stored_text_names_argon2id_its_cost_and_a_fresh_salt() {
    let (one, two) = (hashed("the same password"), hashed("the same password"));
    assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
    let parsed = PasswordHash::new(&one).unwrap();
    assert_eq!(parsed.salt.unwrap().len(), 16);
    assert_eq!(parsed.hash.unwrap().len(), 32);
    assert_ne!(one, two);
}

#[test]
fn p5_a_hash_of_another_cost_is_right_but_outdated() {
    let dearer = HashParams::new(20_000, 3, 1).unwrap();
    let stored = hash(&password("correct horse"), &dearer, &PEPPER, &SystemRandom::default()).unwrap();
    assert_eq!(verified("correct horse", &stored), Verification::RightButOutdated);
    assert_eq!(verified("wrong horse", &stored), Verification::Wrong);
    let current = verify(&password("correct horse"), &stored, &dearer, &PEPPER).unwrap();
    assert_eq!(current, Verification::Right);
}

#[test]
fn p5_without_the_pepper_the_right_password_does_not_fit() {
    let stored = hashed("correct horse");
    let other = verify(&password("correct horse"), &stored, &HashParams::LEAST, &[4; 32]).unwrap();
    assert_eq!(other, Verification::Wrong);
}

#[test]
fn p5_cost_below_the_least_or_absurdly_high_is_refused() {
    for (memory, iterations, lanes) in [
        (19_455, 2, 1),
        (19_456, 1, 1),
        (19_456, 2, 0),
        (u32::MAX, 2, 1),
        (19_456, 33, 1),
        (19_456, 2, 17),
    ] {
        assert_eq!(HashParams::new(memory, iterations, lanes), Err(HashParamsOutOfRange));
    }
    assert_eq!(HashParams::new(19_456, 2, 1), Ok(HashParams::default()));
}

#[test]
fn p9_the_hash_of_nobody_costs_the_same_and_fits_no_password() {
    let dummy = dummy_hash(&HashParams::LEAST, &PEPPER);
    let real = hashed("some password");
    let cost = |phc: &str| phc.split('$').take(4).collect::<Vec<_>>().join("$");
    assert_eq!((cost(&dummy), dummy.len()), (cost(&real), real.len()));
    assert_eq!(verified("some password", &dummy), Verification::Wrong);
    assert_eq!(verified("", &dummy), Verification::Wrong);
}

#[test]
fn a_damaged_hash_is_told_apart_from_a_wrong_password() {
    let good = hashed("some password");
    for damaged in [
        String::new(),
        "plain".to_owned(),
        good.replace("argon2id", "argon2i"),
        good.replace("argon2id", "argon2d"),
        good.replace("v=19", "v=16"),
        good.replace("$v=19", ""),
        good.replace("m=19456", "m=4294967295"),
        good.replace("m=19456,", ""),
        good.replace("t=2", "t=4000000000"),
        good[..good.rfind('$').unwrap()].to_owned(),
        good[..good.len() - 20].to_owned(),
    ] {
        let answer = verify(&password("some password"), &damaged, &HashParams::LEAST, &PEPPER);
        assert_eq!(answer, Err(HashError::Damaged), "{damaged}");
    }
}

#[test]
fn l5_debug_shows_no_password() {
    assert!(!format!("{:?}", password("canary-7f3a")).contains("canary"));
}
