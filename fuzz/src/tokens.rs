//! Tokens and sets of keys.
//!
//! A fuzzer cannot guess a signature, so the target signs the header and payload of the input.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringcast::internals::auth::{Algorithm, Claims, KeySet, Revoked, SetOrigin, Tokens};

use super::json_model::{self, NoValue, Value};

/// The key of all tokens here.
pub const SECRET: &[u8] = b"a key that fuzzers know";

/// The time at which all tokens are checked, in milliseconds since 1970.
pub const UNIX_MS: u64 = 1_700_000_000_000;

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let tokens = Tokens::from_secret(SECRET, None);
    tokens.expect("a secret is a key")
});

/// The claims of a token with this payload, if there can be one.
pub fn claims_of(payload: &str) -> Option<Claims> {
    let token = signed(
        br#"{"alg":"HS256","typ":"JWT"}"#,
        payload.as_bytes(),
        hmac::HMAC_SHA256,
    );
    TOKENS.verify(&token, UNIX_MS).ok()
}

/// A token of that header and payload.
pub fn signed(header: &[u8], payload: &[u8], hash: hmac::Algorithm) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let tag = hmac::sign(&hmac::Key::new(hash, SECRET), token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(tag, &mut token);
    token
}

/// A token with a wrong signature or an unmet condition is refused, a good one is accepted, and the claims are those
/// that were signed.
pub fn jwt(data: &[u8]) {
    if let Ok(token) = std::str::from_utf8(data)
        && TOKENS.verify(token, UNIX_MS).is_ok()
    {
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let hashes = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
        let mut tags = hashes
            .map(|hash| hmac::sign(&hmac::Key::new(hash, SECRET), signed.as_bytes()))
            .into_iter();
        assert!(tags.any(|tag| URL_SAFE_NO_PAD.encode(tag) == signature));
    }
    // The first line is a header, the rest is a payload.
    let split = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (header, payload) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    check_signed(header, payload);
    check_signed(br#"{"alg":"HS256","typ":"JWT"}"#, payload);
    if let Ok(claims) = std::str::from_utf8(payload) {
        check_signing(claims);
        let _ = Revoked::parse(claims).map(|revoked| json_model::parse(revoked.value_json()).expect("JSON"));
    }
}

fn check_signed(header: &[u8], payload: &[u8]) {
    let said = std::str::from_utf8(payload).ok().map(json_model::parse);
    if said == Some(Err(NoValue::TooDeep)) {
        return;
    }
    let said = said.and_then(Result::ok);
    let number = |name: &str| said.as_ref().and_then(|said| said.member(name)).cloned();
    let seconds = (UNIX_MS / 1000) as f64;
    for (name, hash) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        let token = signed(header, payload, hash);
        match TOKENS.verify(&token, UNIX_MS) {
            Ok(claims) => {
                let text: String = header.iter().map(|&byte| char::from(byte)).collect();
                let header = json_model::parse(&text).expect("a header is JSON");
                assert!(header.member("alg").is_some_and(|alg| alg.is_text(name)));
                assert!(!payload.is_empty());
                let Some(said) = &said else { continue };
                // A payload that is not declared as JSON is text, unless it has other values.
                let is_json = header.member("typ").is_some_and(|kind| kind.is_text("JWT"))
                    || matches!(said, Value::Array(_) | Value::Object(_));
                if !is_json {
                    continue;
                }
                assert_eq!(json_model::parse(claims.json()).as_ref().ok(), Some(said));
                match number("exp") {
                    Some(Value::Number(exp)) => assert!(exp > seconds && claims.expires_at() == Some(exp)),
                    other => assert_eq!((other, claims.expires_at()), (None, None)),
                }
                match number("nbf") {
                    Some(Value::Number(nbf)) => assert!(nbf <= seconds),
                    other => assert_eq!(other, None),
                }
            }
            Err(_) => {
                let is_plain = header == br#"{"alg":"HS256","typ":"JWT"}"# && name == "HS256";
                let is_good = matches!(said, Some(Value::Object(_)))
                    && number("exp").is_none()
                    && number("nbf").is_none();
                assert!(!is_plain || !is_good, "a good token is not believed");
            }
        }
    }
}

fn check_signing(claims: &str) {
    let Ok(issued) = TOKENS.issue(claims, Some(60), UNIX_MS) else {
        return;
    };
    let expected = match json_model::parse(claims) {
        Ok(Value::Object(members)) => members,
        Err(NoValue::TooDeep) => return,
        other => panic!("signed {claims:?}: {other:?}"),
    };
    let Ok(Value::Object(written)) = json_model::parse(issued.claims.json()) else {
        panic!("an object was signed");
    };
    let [iat, exp] = ["iat", "exp"].map(json_model::units);
    assert!(written.contains_key(&iat) && written.contains_key(&exp));
    for (name, value) in &written {
        match expected.get(name) {
            // An `iat` of 0 counts as none.
            Some(Value::Number(0.0)) if *name == iat => {}
            Some(expected) => assert_eq!(*value, as_printed(expected), "{claims:?}"),
            None => assert!(*name == iat || *name == exp),
        }
    }
    assert!(expected.keys().all(|name| written.contains_key(name)));
    // The end counts from `iat`, even if `iat` is in the future.
    if [iat, exp, json_model::units("nbf")]
        .iter()
        .all(|name| !expected.contains_key(name))
    {
        let again = TOKENS
            .verify(&issued.token, UNIX_MS)
            .expect("what is signed is believed");
        assert!(again == issued.claims);
    }
}

/// As `JSON.stringify` prints it.
fn as_printed(value: &Value) -> Value {
    match value {
        Value::Number(number) if !number.is_finite() => Value::Null,
        Value::Number(number) => Value::Number(number + 0.0),
        Value::Array(elements) => Value::Array(elements.iter().map(as_printed).collect()),
        Value::Object(members) => {
            let members = members.iter();
            Value::Object(
                members
                    .map(|(name, value)| (name.clone(), as_printed(value)))
                    .collect(),
            )
        }
        Value::Null | Value::Bool(_) | Value::Text(_) => value.clone(),
    }
}

/// A set of keys counts all of its members, and a fetched set signs nothing.
pub fn jwks(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for origin in [SetOrigin::Own, SetOrigin::Fetched] {
        match KeySet::parse(text, origin) {
            Ok(set) => {
                assert!(set.key_count() > 0);
                for unused_key in set.unused_keys() {
                    assert!(!unused_key.to_string().contains('\n'));
                }
                if let Ok(value) = json_model::parse(text) {
                    let Some(Value::Array(keys)) = value.member("keys") else {
                        panic!("a set has keys");
                    };
                    // A key that verifies and cannot sign counts twice.
                    assert!(set.key_count() + set.unused_key_count() >= keys.len());
                    assert!(set.key_count() <= keys.len() && set.unused_key_count() <= keys.len());
                }
                let tokens = Tokens::default();
                let tokens = match origin {
                    SetOrigin::Own => tokens.with_set(set, None).expect("no id was asked for"),
                    SetOrigin::Fetched => tokens.with_fetched(Arc::new(set)),
                };
                if tokens.can_sign() {
                    assert_eq!(origin, SetOrigin::Own);
                    let token = tokens.sign("{}", Some(60), UNIX_MS).expect("it can sign");
                    assert!(tokens.verify(&token, UNIX_MS).is_ok());
                }
            }
            Err(fault) => assert!(!fault.to_string().contains('\n')),
        }
    }
    // Any text can be parsed as the name of an algorithm without a panic.
    let _ = text.parse::<Algorithm>();
}
