//! Tests of revocations: which tokens they refuse, how they expire, and their limits.

use super::*;
use crate::auth::{TokenError, Tokens};

const NOW: u64 = 1_795_359_453;

fn what(json: &str) -> Revoked {
    Revoked::parse(json).unwrap()
}

fn revocations(list: &[(&str, u64)]) -> Revocations {
    let mut revocations = Revocations::default();
    for (json, at) in list {
        revocations
            .insert(&Revocation::new(what(json), *at, NOW + 1000))
            .unwrap();
    }
    revocations
}

fn is_refused(claims: &str, revocations: &Revocations) -> bool {
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    let token = tokens.sign(claims, None, NOW * 1000).unwrap();
    match tokens
        .with_revocations(revocations.clone())
        .verify(&token, NOW * 1000)
    {
        Ok(_) => false,
        Err(TokenError::Revoked) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn tokens_of_a_user_issued_up_to_the_revocation_are_refused() {
    let revoked = revocations(&[(r#"{"sub":"ann"}"#, NOW)]);
    for (claims, refused) in [
        (r#"{"sub":"ann"}"#, true),
        (r#"{"\u0073ub":"\u0061nn"}"#, true),
        (r#"{"sub":"bob","sub":"ann"}"#, true),
        (r#"{"sub":"ann","sub":"bob"}"#, false),
        (r#"{"sub":"ann","iat":1}"#, true),
        (r#"{"sub":"ann","iat":1795359453.9}"#, true),
        (r#"{"sub":"ann","iat":1795359454}"#, false),
        (r#"{"sub":"ann","iat":1795359454000}"#, true),
        (r#"{"sub":"ann","iat":1e300}"#, true),
        (r#"{"sub":"ann","iat":1e999}"#, true),
        (r#"{"sub":"Ann"}"#, false),
        (r#"{"sub":"ann "}"#, false),
        (r#"{"sub":["ann"]}"#, false),
        (r#"{"user":"ann"}"#, false),
        (r#"{"jti":"ann"}"#, false),
        ("{}", false),
    ] {
        assert_eq!(is_refused(claims, &revoked), refused, "{claims}");
    }
}

#[test]
fn a_revocation_applies_to_every_spelling_of_the_claim() {
    let escaped =
        |text: &str| -> String { text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect() };
    for value in [
        "ann",
        "\u{e9}",
        &"\u{e9}".repeat(512),
        &"\u{1F600}".repeat(256),
        &"a".repeat(1024),
    ] {
        let name = "u".repeat(64);
        let spelled = [
            format!(r#"{{"{name}":"{value}"}}"#),
            format!(r#"{{"{}":"{}"}}"#, escaped(&name), escaped(value)),
        ];
        for by in &spelled {
            let revoked = revocations(&[(by, NOW)]);
            for claims in &spelled {
                assert!(is_refused(claims, &revoked), "{by} {claims}");
            }
            let other = format!(r#"{{"{name}":"{}"}}"#, escaped(&value.replacen(|_| true, "b", 1)));
            assert!(!is_refused(&other, &revoked), "{other}");
        }
    }
    // One byte more is too long for an operator in any spelling, and is never revoked.
    for value in ["a".repeat(1025), "\u{e9}".repeat(512) + "a"] {
        for spelling in [value.clone(), escaped(&value)] {
            let by = format!(r#"{{"sub":"{spelling}"}}"#);
            assert_eq!(Revoked::parse(&by), Err(NotRevocable::TooLong));
        }
    }
    let name = escaped(&"u".repeat(65));
    assert_eq!(
        Revoked::parse(&format!(r#"{{"{name}":"a"}}"#)),
        Err(NotRevocable::TooLong)
    );
}

#[test]
fn a_token_is_refused_by_its_id_whenever_it_was_issued() {
    let revoked = revocations(&[(r#"{"jti":"a"}"#, NOW), (r#"{"userId":17}"#, NOW)]);
    for (claims, refused) in [
        (r#"{"jti":"a"}"#, true),
        (r#"{"jti":"a","iat":1895359453}"#, true),
        (r#"{"jti":"b"}"#, false),
        (r#"{"userId":17}"#, true),
        (r#"{"userId":17.0}"#, true),
        (r#"{"userId":"17"}"#, false),
        (r#"{"userId":1}"#, false),
    ] {
        assert_eq!(is_refused(claims, &revoked), refused, "{claims}");
    }
}

#[test]
fn the_error_of_a_revoked_token_makes_a_client_drop_it() {
    let mut out = Vec::new();
    TokenError::Revoked.write_json(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"message":"jwt revoked","name":"AuthTokenRevokedError","isBadToken":true}"#
    );
}

#[test]
fn other_faults_of_a_revoked_token_are_reported_first() {
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    let token = tokens.sign(r#"{"sub":"ann","exp":5}"#, None, 0).unwrap();
    let revoked = tokens.with_revocations(revocations(&[(r#"{"sub":"ann"}"#, NOW)]));
    assert_eq!(
        revoked.verify(&token, NOW * 1000),
        Err(TokenError::Expired { exp: 5.0 })
    );
}

#[test]
fn a_revocation_expires_and_is_dropped() {
    let mut revoked = revocations(&[(r#"{"sub":"ann"}"#, NOW), (r#"{"jti":"a"}"#, NOW)]);
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    let token = tokens.sign(r#"{"sub":"ann"}"#, None, NOW * 1000).unwrap();
    let at = |second: u64| {
        let tokens = tokens
            .clone()
            .with_revocations(revocations(&[(r#"{"sub":"ann"}"#, NOW)]));
        tokens.verify(&token, second * 1000).is_ok()
    };
    assert!(!at(NOW + 999));
    assert!(at(NOW + 1000));
    assert_eq!(revoked.drop_expired(NOW + 999), 0);
    assert_eq!(revoked.len(), 2);
    assert_eq!(revoked.drop_expired(NOW + 1000), 2);
    assert!(revoked.is_empty() && revoked.iter().next().is_none());
}

#[test]
fn shared_revocations_do_not_change_and_withdrawn_ones_are_gone() {
    let before = revocations(&[(r#"{"sub":"ann"}"#, NOW)]);
    let mut after = before.clone();
    after
        .insert(&Revocation::new(what(r#"{"sub":"bob"}"#), NOW, NOW + 1))
        .unwrap();
    assert!(after.remove(&what(r#"{"sub":"ann"}"#)));
    assert!(!after.remove(&what(r#"{"sub":"ann"}"#)));
    assert!(!after.remove(&what(r#"{"user":"ann"}"#)));
    assert!(is_refused(r#"{"sub":"ann"}"#, &before) && !is_refused(r#"{"sub":"bob"}"#, &before));
    assert!(!is_refused(r#"{"sub":"ann"}"#, &after) && is_refused(r#"{"sub":"bob"}"#, &after));
    // The same claim and value again is one revocation.
    after
        .insert(&Revocation::new(what(r#"{"sub":"bob"}"#), NOW + 5, NOW + 9))
        .unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(after.iter().next().unwrap().at(), NOW + 5);
}

#[test]
fn only_one_claim_with_a_text_or_a_number_can_be_revoked() {
    for good in [
        r#"{"sub":"ann"}"#,
        r#" { "jti" : "x" } "#,
        r#"{"id":0}"#,
        r#"{"":"x"}"#,
    ] {
        assert!(Revoked::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "null",
        "[]",
        "\"sub\"",
        "{}",
        r#"{"sub":"ann","jti":"x"}"#,
        r#"{"\ud800":"x"}"#,
    ] {
        assert_eq!(Revoked::parse(bad), Err(NotRevocable::Shape), "{bad}");
    }
    for bad in [
        r#"{"sub":""}"#,
        r#"{"sub":null}"#,
        r#"{"sub":["ann"]}"#,
        r#"{"sub":{}}"#,
        r#"{"sub":true}"#,
    ] {
        assert_eq!(Revoked::parse(bad), Err(NotRevocable::Value), "{bad}");
    }
    let long = |name: usize, value: usize| format!(r#"{{"{}":"{}"}}"#, "n".repeat(name), "v".repeat(value));
    assert!(Revoked::parse(&long(NAME_BYTES_MAX, VALUE_BYTES_MAX)).is_ok());
    assert_eq!(
        Revoked::parse(&long(NAME_BYTES_MAX + 1, 1)),
        Err(NotRevocable::TooLong)
    );
    assert_eq!(
        Revoked::parse(&long(1, VALUE_BYTES_MAX + 1)),
        Err(NotRevocable::TooLong)
    );
}

#[test]
fn a_token_is_looked_up_by_a_bounded_number_of_claims() {
    let mut revoked = Revocations::default();
    let by = |at: usize| Revocation::new(what(&format!(r#"{{"claim{at}":"x"}}"#)), NOW, NOW + 1);
    for at in 0..CLAIM_NAMES_MAX {
        revoked.insert(&by(at)).unwrap();
    }
    assert_eq!(revoked.insert(&by(CLAIM_NAMES_MAX)), Err(NotRevocable::Names));
    revoked
        .insert(&Revocation::new(what(r#"{"claim0":"y"}"#), NOW, NOW + 1))
        .unwrap();
    revoked.remove(by(1).revoked());
    revoked.insert(&by(CLAIM_NAMES_MAX)).unwrap();
}

#[test]
fn connections_and_new_tokens_are_judged_alike() {
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    for claims in [
        r#"{"sub":"ann"}"#,
        r#"{"sub":"bob"}"#,
        r#"{"jti":"a"}"#,
        r#"{"sub":"ann","iat":1795359454}"#,
        "{}",
    ] {
        for (json, at) in [(r#"{"sub":"ann"}"#, NOW), (r#"{"jti":"a"}"#, 0)] {
            let revocation = Revocation::new(what(json), at, NOW + 1);
            let issued = tokens.issue(claims, None, NOW * 1000).unwrap();
            assert_eq!(
                revocation.applies_to(&issued.claims),
                is_refused(claims, &revocations(&[(json, at)])),
                "{claims} {json}"
            );
        }
    }
}

#[test]
fn ids_of_tokens_are_all_different() {
    let ids: std::collections::HashSet<_> = (0..100).map(|_| crate::auth::new_token_id().unwrap()).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.iter().all(|id| id.len() == 22));
}
