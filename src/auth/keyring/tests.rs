//! Several keys, sets of keys, and demands: with keys and tokens made by jose, recorded results of
//! jsonwebtoken for claims (`tests/data/jwt/jwks.json`), and forged tokens.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::auth::{Demands, KeySetError, SetOrigin, SignError, TokenError, Tokens, Unused};

#[derive(Deserialize)]
struct Vectors {
    secret: String,
    pairs: Vec<Pair>,
    demands: Vec<Demand>,
}

#[derive(Clone, Deserialize)]
struct Pair {
    alg: String,
    private_jwk: Value,
    /// `None` for secrets.
    public_jwk: Option<Value>,
    token: String,
    token_without_kid: String,
}

#[derive(Deserialize)]
struct Demand {
    token: String,
    issuers: Vec<String>,
    audiences: Vec<String>,
    leeway: u16,
    error: Option<String>,
}

const NOW_MS: u64 = 1_795_359_453_000;

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/data/jwt/jwks.json")).unwrap()
}

fn pair(alg: &str) -> Pair {
    vectors().pairs.into_iter().find(|pair| pair.alg == alg).unwrap()
}

fn parse(keys: &[Value], origin: SetOrigin) -> Result<KeySet, KeySetError> {
    KeySet::parse(&json!({ "keys": keys }).to_string(), origin)
}

fn of_file(keys: &[Value]) -> Tokens {
    Tokens::default()
        .with_set(parse(keys, SetOrigin::Own).unwrap(), None)
        .unwrap()
}

fn fetched(keys: &[Value]) -> Tokens {
    Tokens::default()
        .with_fetch_request(Arc::default())
        .with_fetched(Arc::new(parse(keys, SetOrigin::Fetched).unwrap()))
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk[member] = value;
    jwk
}

fn without(jwk: &Value, member: &str) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove(member);
    jwk
}

fn encoded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token with any header, signed with HS256.
fn forged(secret: &[u8], header: &str) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(r#"{"sub":"mallory"}"#));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

const UNKNOWN: Result<(), TokenError> = Err(TokenError::UnknownKey { may_come: false });

fn check(tokens: &Tokens, token: &str) -> Result<(), TokenError> {
    tokens.verify(token, NOW_MS).map(|_| ())
}

#[test]
fn keys_and_tokens_of_jose_are_accepted_and_their_signatures_verified() {
    let pairs = vectors().pairs;
    let all: Vec<Value> = pairs.iter().map(|pair| pair.private_jwk.clone()).collect();
    let together = of_file(&all);
    for pair in &pairs {
        check(&together, &pair.token).unwrap();
        let alone = of_file(std::slice::from_ref(&pair.private_jwk));
        check(&alone, &pair.token).unwrap();
        check(&alone, &pair.token_without_kid).unwrap();
        let signed = alone.sign("{}", None, NOW_MS).unwrap();
        let header =
            String::from_utf8(URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(
            header,
            format!(r#"{{"alg":"{0}","typ":"JWT","kid":"key-{0}"}}"#, pair.alg)
        );
        check(&alone, &signed).unwrap();
        check(&together, &signed).unwrap();
        if let Some(public) = &pair.public_jwk {
            let public = fetched(std::slice::from_ref(public));
            check(&public, &pair.token).unwrap();
            check(&public, &signed).unwrap();
            assert_eq!(public.sign("{}", None, NOW_MS), Err(SignError::NoPrivateKey));
        }
    }
}

#[test]
fn a_fetched_private_key_does_not_sign_and_a_fetched_secret_is_not_used() {
    let vectors = vectors();
    for pair in &vectors.pairs {
        match (
            parse(std::slice::from_ref(&pair.private_jwk), SetOrigin::Fetched),
            &pair.public_jwk,
        ) {
            (Ok(set), Some(_)) => {
                let tokens = Tokens::default().with_fetched(Arc::new(set));
                assert!(!tokens.can_sign(), "{}", pair.alg);
            }
            (Err(KeySetError::NoKey(Some(first))), None) => assert_eq!(first.reason, Unused::SecretFetched),
            (found, _) => panic!("{}: {found:?}", pair.alg),
        }
    }
}

#[test]
fn a_token_is_checked_only_with_the_key_that_it_names() {
    let (rsa, curve) = (pair("RS256"), pair("ES256"));
    let tokens = of_file(&[rsa.public_jwk.clone().unwrap(), curve.public_jwk.clone().unwrap()]);
    check(&tokens, &rsa.token).unwrap();
    check(&tokens, &curve.token).unwrap();
    // The same key with another id.
    let renamed = of_file(&[with(&rsa.public_jwk.unwrap(), "kid", json!("other"))]);
    assert_eq!(check(&renamed, &rsa.token), UNKNOWN);
    check(&renamed, &rsa.token_without_kid).unwrap();
}

#[test]
fn an_invalid_kid_matches_no_key() {
    let secret = [7; 32];
    let jwk = json!({"kty": "oct", "kid": "a", "k": URL_SAFE_NO_PAD.encode(secret)});
    let tokens = of_file(&[jwk]);
    let kid = |kid: &str| forged(&secret, &format!(r#"{{"alg":"HS256","typ":"JWT","kid":{kid}}}"#));
    for good in [r#""a""#, r#""\u0061""#, r#""b","kid":"a""#] {
        check(&tokens, &kid(good)).unwrap();
    }
    // The longest id that a key may have, written in escapes of six times that length, and one byte more.
    let longest = json!({"kty": "oct", "kid": "a".repeat(256), "k": URL_SAFE_NO_PAD.encode(secret)});
    let by_longest = of_file(&[longest]);
    check(&by_longest, &kid(&format!("\"{}\"", "\\u0061".repeat(256)))).unwrap();
    assert!(check(&by_longest, &kid(&format!("\"{}\"", "\\u0061".repeat(257)))).is_err());
    let long = format!("\"{}\"", "a".repeat(500_000));
    let escaped = format!("\"{}\"", "\\u0061".repeat(80_000));
    for bad in [
        r#""b""#,
        r#""A""#,
        r#""a ""#,
        r#""a\u0000""#,
        r#""\u0000a""#,
        r#""""#,
        r#""\ud800""#,
        r#""../a""#,
        r#""a\r\nX: y""#,
        r#""a","kid":"b""#,
        r#""a","kid":null"#,
        "null",
        "0",
        "1e400",
        "true",
        r#"["a"]"#,
        r#"{"a":"a"}"#,
        &long,
        &escaped,
    ] {
        assert_eq!(
            check(&tokens, &kid(bad)),
            UNKNOWN,
            "{}",
            &bad[..bad.len().min(40)]
        );
    }
    // Of equal members the last counts, also for the algorithm.
    let twice = |first: &str, last: &str| {
        forged(
            &secret,
            &format!(r#"{{"kid":"a","alg":"{first}","alg":"{last}"}}"#),
        )
    };
    check(&tokens, &twice("none", "HS256")).unwrap();
    assert_eq!(
        check(&tokens, &twice("HS256", "none")),
        Err(TokenError::InvalidAlgorithm)
    );
}

#[test]
fn a_public_key_is_never_used_as_a_secret() {
    let pair = pair("RS256");
    let public = pair.public_jwk.unwrap();
    let tokens = of_file(&[
        public.clone(),
        json!({"kty": "oct", "kid": "mine", "k": encoded(&"k".repeat(32))}),
    ]);
    let n = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    for secret in [
        n.as_slice(),
        public["n"].as_str().unwrap().as_bytes(),
        public.to_string().as_bytes(),
        b"",
    ] {
        for (kid, error) in [
            (r#","kid":"key-RS256""#, TokenError::InvalidAlgorithm),
            (r#","kid":"mine""#, TokenError::InvalidSignature),
            ("", TokenError::InvalidSignature),
        ] {
            let token = forged(secret, &format!(r#"{{"alg":"HS256","typ":"JWT"{kid}}}"#));
            assert_eq!(check(&tokens, &token), Err(error), "{kid}");
        }
    }
    // The id of a secret with the algorithm of a public key, and the id of a key with the algorithm of
    // another kind.
    for (header, error) in [
        (r#"{"alg":"RS256","kid":"mine"}"#, TokenError::InvalidAlgorithm),
        (
            r#"{"alg":"RS512","kid":"key-RS256"}"#,
            TokenError::InvalidAlgorithm,
        ),
        (
            r#"{"alg":"PS256","kid":"key-RS256"}"#,
            TokenError::InvalidAlgorithm,
        ),
        (
            r#"{"alg":"none","kid":"key-RS256"}"#,
            TokenError::InvalidAlgorithm,
        ),
        (
            r#"{"alg":"RS256","kid":"key-RS256"}"#,
            TokenError::InvalidSignature,
        ),
    ] {
        assert_eq!(check(&tokens, &forged(&n, header)), Err(error), "{header}");
        let unsigned = format!("{}.{}.", encoded(header), encoded("{}"));
        assert_eq!(
            check(&tokens, &unsigned),
            Err(TokenError::SignatureRequired),
            "{header}"
        );
    }
}

#[test]
fn keys_in_a_header_are_ignored() {
    let ours = of_file(&[json!({"kty": "oct", "kid": "a", "k": encoded(&"k".repeat(32))})]);
    let theirs = [9; 32];
    let jwk = json!({"kty": "oct", "kid": "a", "k": URL_SAFE_NO_PAD.encode(theirs)});
    for header in [
        json!({"alg": "HS256", "kid": "a", "jwk": jwk}),
        json!({"alg": "HS256", "jwk": jwk}),
        json!({"alg": "HS256", "kid": "a", "jku": "http://127.0.0.1:1/keys"}),
        json!({"alg": "HS256", "kid": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/keys"}),
        json!({"alg": "HS256", "kid": "a", "x5c": [URL_SAFE_NO_PAD.encode(theirs)]}),
    ] {
        let error = check(&ours, &forged(&theirs, &header.to_string())).unwrap_err();
        assert_eq!(error.message(), "invalid signature", "{header}");
    }
}

#[test]
fn a_token_without_a_kid_is_checked_with_keys_without_an_id() {
    let own = Tokens::from_secret(b"the own key of this server, long", None).unwrap();
    let token = own.sign("{}", None, NOW_MS).unwrap();
    let pair = pair("HS256");
    let named = || parse(std::slice::from_ref(&pair.private_jwk), SetOrigin::Own).unwrap();
    let unnamed = || parse(&[without(&pair.private_jwk, "kid")], SetOrigin::Own).unwrap();

    let tokens = own.clone().with_set(named(), None).unwrap();
    check(&tokens, &token).unwrap();
    check(&tokens, &pair.token).unwrap();
    assert_eq!(
        check(&tokens, &pair.token_without_kid),
        Err(TokenError::InvalidSignature)
    );
    let tokens = own.clone().with_set(unnamed(), None).unwrap();
    check(&tokens, &token).unwrap();
    check(&tokens, &pair.token_without_kid).unwrap();
    assert_eq!(check(&tokens, &pair.token), UNKNOWN);
    // The own key still verifies tokens that name it.
    let renamed = own.with_key_id("mine");
    check(&renamed, &token).unwrap();
    let named = renamed.sign("{}", None, NOW_MS).unwrap();
    assert!(named.starts_with(&encoded(r#"{"alg":"HS256","typ":"JWT","kid":"mine"}"#)));
    check(&renamed, &named).unwrap();
    let other = Tokens::from_secret(b"the own key of this server, long", None).unwrap();
    assert_eq!(check(&other.clone().with_key_id("theirs"), &named), UNKNOWN);
    // If no key has an id, the kid is not read.
    check(&other, &named).unwrap();
}

#[test]
fn a_token_without_a_kid_is_tried_with_a_bounded_number_of_keys() {
    let key = |at: usize| json!({"kty": "oct", "kid": at.to_string(), "k": URL_SAFE_NO_PAD.encode([u8::try_from(at).unwrap(); 32])});
    let keys: Vec<Value> = (1..=KEYS_TRIED_MAX + 1).map(key).collect();
    let tokens = of_file(&keys);
    let token = |at: usize| forged(&[u8::try_from(at).unwrap(); 32], r#"{"alg":"HS256"}"#);
    check(&tokens, &token(1)).unwrap();
    check(&tokens, &token(KEYS_TRIED_MAX)).unwrap();
    assert_eq!(
        check(&tokens, &token(KEYS_TRIED_MAX + 1)),
        Err(TokenError::InvalidSignature)
    );
}

#[test]
fn a_fetched_key_does_not_replace_a_key_of_this_server() {
    let theirs = pair("ES256");
    let squatting = with(theirs.public_jwk.as_ref().unwrap(), "kid", json!("mine"));
    let own = Tokens::from_secret(b"the own key of this server, long", None)
        .unwrap()
        .with_key_id("mine")
        .with_fetch_request(Arc::default());
    let token = own.sign("{}", None, NOW_MS).unwrap();
    let tokens = own.with_fetched(Arc::new(parse(&[squatting], SetOrigin::Fetched).unwrap()));
    check(&tokens, &token).unwrap();
    assert!(check(&tokens, &theirs.token).is_err());
    assert!(check(&tokens, &theirs.token_without_kid).is_err());
}

#[test]
fn an_unknown_key_is_requested_once_and_the_client_keeps_its_token() {
    let fetch_request = Arc::new(FetchRequest::default());
    let (here, other) = (pair("ES256"), pair("ES384"));
    let tokens = fetched(std::slice::from_ref(here.public_jwk.as_ref().unwrap()))
        .with_fetch_request(Arc::clone(&fetch_request));
    check(&tokens, &here.token).unwrap();
    assert!(!fetch_request.is_requested());
    for _ in 0..3 {
        let error = check(&tokens, &other.token).unwrap_err();
        let mut json = Vec::new();
        error.write_json(&mut json);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"message":"invalid signature","name":"AuthTokenInvalidError","isBadToken":false}"#
        );
        assert!(fetch_request.is_requested());
    }
    fetch_request.clear();
    assert!(!fetch_request.is_requested());
    assert!(check(&tokens, &other.token).is_err());
    assert!(fetch_request.is_requested());
    // A kid that cannot be an id is not requested, and the token is refused for good.
    fetch_request.clear();
    let wrongly = check(&tokens, &forged(b"x", r#"{"alg":"HS256","kid":5}"#)).unwrap_err();
    assert!(wrongly.is_bad_token());
    assert!(!fetch_request.is_requested());
}

#[test]
fn an_unusable_key_of_a_set_is_left_out_with_its_reason() {
    let (rsa, curve, secret) = (
        pair("RS256").private_jwk,
        pair("ES256").private_jwk,
        pair("HS512").private_jwk,
    );
    let small = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"});
    for (jwk, expected) in [
        (with(&rsa, "use", json!("enc")), "OtherPurpose"),
        (with(&rsa, "key_ops", json!(["encrypt"])), "OtherPurpose"),
        (with(&rsa, "key_ops", json!([])), "OtherPurpose"),
        (json!({"kty": "AKP", "kid": "x"}), "Kind"),
        (with(&curve, "crv", json!("secp256k1")), "Kind"),
        (json!({"kty": "OKP", "crv": "X25519", "x": "AA"}), "Kind"),
        (with(&rsa, "alg", json!("RSA-OAEP")), "Algorithm"),
        (with(&rsa, "alg", json!("none")), "Algorithm"),
        (with(&rsa, "alg", json!("ES256")), "Broken"),
        (with(&rsa, "alg", json!("HS256")), "Broken"),
        (with(&secret, "alg", json!("RS256")), "Broken"),
        (with(&curve, "alg", json!("ES384")), "Broken"),
        (with(&curve, "crv", json!("P-384")), "Broken"),
        (without(&rsa, "n"), "Broken"),
        (without(&rsa, "kty"), "Broken"),
        (with(&rsa, "use", json!(["sig"])), "Broken"),
        (json!(null), "Broken"),
        (json!([]), "Broken"),
        (with(&rsa, "e", json!("AQ==")), "Broken"),
        (with(&rsa, "kid", json!("k".repeat(257))), "Broken"),
        (with(&rsa, "kid", json!(5)), "Broken"),
        (small, "Broken"),
        (with(&curve, "x", curve["y"].clone()), "Broken"),
        (with(&curve, "x", json!("AA")), "Broken"),
        (with(&secret, "k", json!("")), "Broken"),
        (
            with(&secret, "k", json!(URL_SAFE_NO_PAD.encode([1; 63]))),
            "Broken",
        ),
        (
            without(&with(&secret, "k", json!(URL_SAFE_NO_PAD.encode([1; 31]))), "alg"),
            "Broken",
        ),
        (json!("text"), "Broken"),
    ] {
        let set = parse(&[jwk.clone(), pair("EdDSA").public_jwk.unwrap()], SetOrigin::Own).unwrap();
        assert_eq!(set.key_count(), 1, "{jwk}");
        let reason = format!("{:?}", set.unused_keys()[0].reason);
        assert!(reason.starts_with(expected), "{jwk}: {reason}");
    }
    // A key with a fault only in its private part still verifies.
    for jwk in [
        without(&rsa, "qi"),
        with(&rsa, "d", json!("AQAB")),
        with(&rsa, "p", json!("not base64!")),
        with(&rsa, "oth", json!([])),
        with(&curve, "d", pair("ES384").private_jwk["d"].clone()),
        with(&curve, "d", json!("")),
    ] {
        let set = parse(std::slice::from_ref(&jwk), SetOrigin::Own).unwrap();
        assert!(
            matches!(set.unused_keys()[0].reason, Unused::SigningBroken(_)),
            "{jwk}"
        );
        assert!(set.unused_keys()[0].is_fault());
        let tokens = Tokens::default().with_set(set, None).unwrap();
        assert!(!tokens.can_sign(), "{jwk}");
        let signed = if jwk["kty"] == "RSA" {
            pair("RS256")
        } else {
            pair("ES256")
        };
        check(&tokens, &signed.token).unwrap();
    }
    let set = format!(
        r#"{{"keys":[{{"kty":"oct","kid":"a","kid":"b","k":"{}"}}]}}"#,
        encoded(&"k".repeat(32))
    );
    assert!(matches!(
        KeySet::parse(&set, SetOrigin::Own),
        Err(KeySetError::NoKey(Some(_)))
    ));
}

#[test]
fn a_key_is_used_only_for_its_declared_purpose() {
    let pair = pair("ES256");
    let own = |operations: Value| {
        let set = parse(&[with(&pair.private_jwk, "key_ops", operations)], SetOrigin::Own).unwrap();
        Tokens::default().with_set(set, None).unwrap()
    };
    assert!(!own(json!(["verify"])).can_sign());
    assert!(own(json!(["sign"])).can_sign());
    check(&own(json!(["sign"])), &pair.token).unwrap();
    // Without `alg`, a curve has one algorithm, and a secret has the algorithms whose hash is not longer than the
    // secret.
    let bare = of_file(&[without(&pair.private_jwk, "alg")]);
    check(&bare, &pair.token).unwrap();
    let secret = json!({"kty": "oct", "kid": "a", "k": URL_SAFE_NO_PAD.encode([1; 48])});
    assert_eq!(
        format!("{:?}", of_file(&[secret])),
        "Tokens { signs: Some(HS256), verifies: [HS256, HS384], .. }"
    );
}

#[test]
fn a_text_that_is_not_a_set_is_refused_as_a_whole() {
    for text in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"keys":{}}"#,
        r#"{"keys":1}"#,
        "<html>",
        "{\"keys\":[]",
    ] {
        assert!(
            matches!(KeySet::parse(text, SetOrigin::Own), Err(KeySetError::NotASet(_))),
            "{text}"
        );
    }
    assert_eq!(parse(&[], SetOrigin::Own).err(), Some(KeySetError::NoKey(None)));
    let key = pair("EdDSA").public_jwk.unwrap();
    let numbered = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|at| with(&key, "kid", json!(at.to_string())))
            .collect()
    };
    assert_eq!(parse(&numbered(100), SetOrigin::Own).unwrap().key_count(), 100);
    // Keys after the hundredth are left out and counted.
    let many = parse(&numbered(300), SetOrigin::Own).unwrap();
    assert_eq!(
        (
            many.key_count(),
            many.unused_key_count(),
            many.unused_keys().len()
        ),
        (100, 200, 100)
    );
    assert_eq!(many.unused_keys()[0].reason, Unused::TooMany);
    // Keys for another purpose and keys without an id do not interfere.
    let for_secrecy = with(&key, "use", json!("enc"));
    let nameless = without(&key, "kid");
    assert_eq!(
        parse(&[key, for_secrecy, nameless.clone(), nameless], SetOrigin::Own)
            .unwrap()
            .key_count(),
        3
    );
}

#[test]
fn of_keys_with_the_same_id_each_that_suits_is_tried() {
    let shared = |alg: &str| with(&pair(alg).private_jwk, "kid", json!("k"));
    let algorithms = ["RS256", "ES256", "ES384", "EdDSA", "HS256"];
    let set: Vec<Value> = algorithms.iter().map(|alg| shared(alg)).collect();
    let tokens = of_file(&set);
    for alg in algorithms {
        let token = of_file(&[shared(alg)]).sign("{}", None, NOW_MS).unwrap();
        check(&tokens, &token).unwrap();
    }
    // Two of a kind, as during an exchange of keys; and one that is listed twice.
    let secret =
        |byte: u8| json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode([byte; 32])});
    let token = |byte: u8| forged(&[byte; 32], r#"{"alg":"HS256","kid":"k"}"#);
    let tokens = of_file(&[secret(1), secret(1), shared("ES256"), secret(2)]);
    check(&tokens, &token(1)).unwrap();
    check(&tokens, &token(2)).unwrap();
    assert_eq!(check(&tokens, &token(3)), Err(TokenError::InvalidSignature));
    let other_algorithm = forged(&[1; 32], r#"{"alg":"HS512","kid":"k"}"#);
    assert_eq!(
        check(&tokens, &other_algorithm),
        Err(TokenError::InvalidAlgorithm)
    );
    // Of the suitable keys a bounded number is tried.
    let many: Vec<Value> = (1..=9).map(secret).collect();
    let tokens = of_file(&many);
    check(&tokens, &token(8)).unwrap();
    assert_eq!(check(&tokens, &token(9)), Err(TokenError::InvalidSignature));
    // The own key comes first, then a fetched one.
    let own = Tokens::from_secret(&[1; 32], None).unwrap().with_key_id("k");
    let public = with(pair("ES256").public_jwk.as_ref().unwrap(), "kid", json!("k"));
    let tokens = own
        .with_fetch_request(Arc::default())
        .with_fetched(Arc::new(parse(&[public], SetOrigin::Fetched).unwrap()));
    check(&tokens, &token(1)).unwrap();
    let theirs = of_file(&[shared("ES256")]).sign("{}", None, NOW_MS).unwrap();
    check(&tokens, &theirs).unwrap();
    assert_eq!(check(&tokens, &token(2)), Err(TokenError::InvalidSignature));
}

#[test]
fn of_a_set_of_a_real_provider_only_keys_not_for_signatures_are_left_out() {
    let (rsa, curve) = (pair("RS256"), pair("ES256"));
    let public = |pair: &Pair| pair.public_jwk.clone().unwrap();
    let with_chain = with(
        &with(&public(&rsa), "x5c", json!(["MIIB"])),
        "x5t#S256",
        json!("AAAA"),
    );
    let set = parse(
        &[
            json!({"kty": "OKP", "crv": "X25519", "kid": "x", "use": "enc", "x": "AA"}),
            with(&public(&rsa), "use", json!("enc")),
            json!({"kty": "RSA", "kid": "broken", "n": "%", "e": "AQAB"}),
            with(&public(&curve), "alg", json!("ES256K")),
            with_chain,
            public(&curve),
            json!({"kty": "LMS"}),
        ],
        SetOrigin::Fetched,
    )
    .unwrap();
    assert_eq!((set.key_count(), set.unused_key_count()), (2, 5));
    let texts: Vec<String> = set.unused_keys().iter().map(ToString::to_string).collect();
    assert_eq!(
        texts[0],
        "key 1 (kid \"x\") is not used: its use or key_ops say that it is not for signatures"
    );
    assert_eq!(
        texts[2],
        "key 3 (kid \"broken\") is not used: its n is not base64url"
    );
    let faults: Vec<usize> = set
        .unused_keys()
        .iter()
        .filter(|one| one.is_fault())
        .map(|one| one.position)
        .collect();
    assert_eq!(faults, [3]);
    let tokens = Tokens::default()
        .with_fetch_request(Arc::default())
        .with_fetched(Arc::new(set));
    check(&tokens, &rsa.token).unwrap();
    check(&tokens, &curve.token).unwrap();
    assert_eq!(tokens.unused_key_count(), Some(5));
}

#[test]
fn the_signing_key_is_the_configured_one_or_the_first() {
    let keys = [
        pair("ES256").public_jwk.unwrap(),
        pair("RS256").private_jwk,
        pair("ES384").private_jwk,
    ];
    let signs = |id| {
        let set = parse(&keys, SetOrigin::Own).unwrap();
        let tokens = Tokens::default().with_set(set, id)?;
        let token = tokens.sign("{}", None, NOW_MS).unwrap();
        check(&tokens, &token).unwrap();
        Some(format!("{tokens:?}").split(')').next().unwrap().to_owned())
    };
    assert_eq!(signs(None).as_deref(), Some("Tokens { signs: Some(RS256"));
    assert_eq!(
        signs(Some("key-ES384")).as_deref(),
        Some("Tokens { signs: Some(ES384")
    );
    assert_eq!(signs(Some("key-ES256")), None);
    assert_eq!(signs(Some("other")), None);
}

#[test]
fn issuer_audience_and_times_are_checked_as_by_jsonwebtoken() {
    let vectors = vectors();
    let mut differing = Vec::new();
    for demand in &vectors.demands {
        let tokens = Tokens::from_secret(vectors.secret.as_bytes(), None)
            .unwrap()
            .with_demands(Demands {
                issuers: demand.issuers.clone(),
                audiences: demand.audiences.clone(),
                leeway_seconds: demand.leeway,
            });
        let found = tokens.verify(&demand.token, NOW_MS).err().map(|error| {
            let mut out = Vec::new();
            error.write_json(&mut out);
            String::from_utf8(out).unwrap()
        });
        if found != demand.error {
            differing.push(format!(
                "{} {:?} {:?}: expected {:?}, found {found:?}",
                demand.token, demand.issuers, demand.audiences, demand.error
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn issued_tokens_meet_the_demands_unless_their_claims_contradict() {
    let tokens = Tokens::from_secret(b"x", None).unwrap().with_demands(Demands {
        issuers: vec!["us".to_owned(), "them".to_owned()],
        audiences: vec!["chat".to_owned()],
        leeway_seconds: 30,
    });
    let issued = tokens.issue(r#"{"a":1}"#, Some(1), NOW_MS).unwrap();
    assert_eq!(
        issued.claims.json(),
        r#"{"a":1,"iat":1795359453,"exp":1795359454,"aud":"chat","iss":"us"}"#
    );
    assert_eq!(tokens.verify(&issued.token, NOW_MS), Ok(issued.claims.clone()));
    let own = tokens
        .issue(r#"{"iss":"them","aud":["chat"]}"#, None, NOW_MS)
        .unwrap();
    assert_eq!(
        own.claims.json(),
        r#"{"iss":"them","aud":["chat"],"iat":1795359453}"#
    );
    check(&tokens, &own.token).unwrap();
    let other = tokens.sign(r#"{"iss":"x"}"#, None, NOW_MS).unwrap();
    assert_eq!(
        check(&tokens, &other).unwrap_err().message(),
        "jwt issuer invalid. expected: us,them"
    );
    // A connection keeps its token exactly as long as it would be accepted, to the second.
    let end_ms = NOW_MS + 31_000;
    assert!(tokens.verify(&issued.token, end_ms - 1).is_ok() && !issued.claims.has_expired(end_ms));
    assert!(tokens.verify(&issued.token, end_ms).is_err() && issued.claims.has_expired(end_ms + 1));
}

#[test]
fn nothing_of_a_key_is_printed() {
    let set = parse(
        &[pair("HS256").private_jwk, pair("RS256").private_jwk],
        SetOrigin::Own,
    )
    .unwrap();
    let shown = format!("{set:?} {:?}", of_file(&[pair("HS256").private_jwk]));
    assert_eq!(
        shown,
        "[Key { id: Some(\"key-HS256\"), verifies: [HS256], .. }, Key { id: Some(\"key-RS256\"), verifies: [RS256], .. }] \
         Tokens { signs: Some(HS256), verifies: [HS256], .. }"
    );
}
