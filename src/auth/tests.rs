//! Tokens, compared with the results of the reference's npm packages: `tests/data/jwt/vectors.json`, made by
//! `generate.mjs` there.

use std::collections::HashMap;
use std::fmt::Write;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde::Deserialize;

use super::json::{self, Json};
use super::{Algorithm, Claims, KeyError, SignError, TokenError, Tokens, json_fault};

#[derive(Deserialize)]
struct Vectors {
    secret: String,
    keys: HashMap<String, KeyTexts>,
    encrypted: String,
    verify: Vec<Verification>,
    eddsa: Vec<String>,
    sign: Vec<Signing>,
    faults: Vec<JsonFault>,
}

/// A pair of keys, each in every form of PEM that Node can write.
#[derive(Deserialize)]
struct KeyTexts {
    private: Vec<String>,
    public: Vec<String>,
}

#[derive(Deserialize)]
struct Verification {
    name: String,
    key: Option<String>,
    algorithm: Option<String>,
    now_ms: u64,
    /// `null` is the reference's empty token.
    token: Option<String>,
    claims: Option<String>,
    truthy: Option<bool>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Signing {
    claims: String,
    key: Option<String>,
    algorithm: Option<String>,
    expires_in: Option<u64>,
    now_ms: u64,
    token: Option<String>,
}

#[derive(Deserialize)]
struct JsonFault {
    text: String,
    said: Option<String>,
}

impl Vectors {
    fn load() -> Vectors {
        serde_json::from_str(include_str!("../../tests/data/jwt/vectors.json")).unwrap()
    }

    fn tokens(&self, key: Option<&str>, algorithm: Option<&str>) -> Result<Tokens, KeyError> {
        let algorithm = algorithm.map(|name| name.parse().unwrap());
        match key {
            None => Tokens::from_secret(self.secret.as_bytes(), algorithm),
            Some(key) => self.pair(key, 0, 0, algorithm),
        }
    }

    fn pair(
        &self,
        key: &str,
        private: usize,
        public: usize,
        algorithm: Option<Algorithm>,
    ) -> Result<Tokens, KeyError> {
        let key = &self.keys[key];
        Tokens::from_pem(Some(&key.private[private]), &key.public[public], algorithm)
    }
}

const NOW_MS: u64 = 1_795_359_453_000;

fn error_json(error: &TokenError) -> String {
    let mut out = Vec::new();
    error.write_json(&mut out);
    String::from_utf8(out).unwrap()
}

/// As `JSON.stringify` prints it.
fn printed(text: &str) -> String {
    let mut out = Vec::new();
    Json::parse(text).unwrap().write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// A token with any header and payload, signed with HS256.
fn forged(secret: &str, header: &str, payload: &str) -> String {
    use aws_lc_rs::hmac;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        token.as_bytes(),
    );
    write!(token, ".{}", URL_SAFE_NO_PAD.encode(tag)).unwrap();
    token
}

#[test]
fn tokens_are_verified_as_the_reference_verifies_them() {
    let vectors = Vectors::load();
    let mut differing = Vec::new();
    let mut known: HashMap<(Option<&str>, Option<&str>), Tokens> = HashMap::new();
    for vector in &vectors.verify {
        let (key, algorithm) = (vector.key.as_deref(), vector.algorithm.as_deref());
        let tokens = known
            .entry((key, algorithm))
            .or_insert_with(|| vectors.tokens(key, algorithm).unwrap());
        let token = vector.token.as_deref().unwrap_or_default();
        let found = match tokens.verify(token, vector.now_ms) {
            Ok(claims) => (Some(printed(claims.json())), Some(claims.is_truthy()), None),
            Err(error) => (None, None, Some(error_json(&error))),
        };
        let expected = (vector.claims.clone(), vector.truthy, vector.error.clone());
        if is_critical(token) {
            assert_eq!(
                found.2,
                Some(error_json(&TokenError::Critical)),
                "{}",
                vector.name
            );
        } else if vector.now_ms % 1000 != 0 && has_fraction(&vector.name) {
            // The reference truncates the clock to seconds, and so decides differently within that second.
            assert_ne!(found.2.is_some(), expected.2.is_some(), "{}", vector.name);
        } else if found != expected {
            differing.push(format!(
                "{}\n  expected {expected:?}\n  found    {found:?}",
                vector.name
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// True for a token that demands extensions; the reference does not check that and accepts it.
fn is_critical(token: &str) -> bool {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let header = token
        .split('.')
        .next()
        .and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let header: Option<serde_json::Map<String, serde_json::Value>> =
        header.and_then(|header| serde_json::from_slice(&header).ok());
    header.is_some_and(|header| header.contains_key("crit") || header.contains_key("b64"))
}

/// True for a vector about a time with a fraction that is over, such as `exp 1795359452.5 at 1795359452999`.
fn has_fraction(name: &str) -> bool {
    let mut words = name.split(' ');
    let (Some("exp" | "nbf"), Some(claim), Some("at"), Some(at_ms)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let (claim, at_ms): (f64, f64) = (claim.parse().unwrap(), at_ms.parse().unwrap());
    claim.fract() != 0.0 && claim > (at_ms / 1000.0).floor() && claim <= at_ms / 1000.0
}

#[test]
fn a_token_that_demands_unknown_extensions_is_refused_with_every_kind_of_key() {
    use aws_lc_rs::{rand, signature};
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let secret = "a key for tests, thirty-two bytes";
    let tokens = Tokens::from_secret(secret.as_bytes(), None).unwrap();
    for more in [
        r#""crit":["x"],"x":1"#,
        r#""crit":["exp"]"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":false"#,
        r#""crit":"x""#,
        r#""b64":false"#,
        r#""b64":null"#,
        r#""b64":"true""#,
        r#""b64":true,"b64":false"#,
        r#""\u0063rit":["x"]"#,
    ] {
        let header = format!(r#"{{"alg":"HS256","typ":"JWT",{more}}}"#);
        let found = tokens.verify(&forged(secret, &header, "{}"), NOW_MS);
        assert_eq!(found, Err(TokenError::Critical), "{more}");
    }
    for more in [r#""b64":true"#, r#""Crit":["x"]"#, r#""x":{"crit":["x"]}"#] {
        let header = format!(r#"{{"alg":"HS256","typ":"JWT",{more}}}"#);
        assert!(
            tokens.verify(&forged(secret, &header, "{}"), NOW_MS).is_ok(),
            "{more}"
        );
    }
    let random = rand::SystemRandom::new();
    let curve = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let private = signature::EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    let pair = signature::EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).unwrap();
    let point = signature::KeyPair::public_key(&pair).as_ref();
    let jwk = serde_json::json!({"keys": [{
        "kty": "EC", "crv": "P-256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    }]});
    let set = super::KeySet::parse(&jwk.to_string(), super::SetOrigin::Own).unwrap();
    let tokens = Tokens::default().with_set(set, None).unwrap();
    for (header, expected) in [
        (r#"{"alg":"ES256","typ":"JWT"}"#, None),
        (
            r#"{"alg":"ES256","typ":"JWT","crit":["x"]}"#,
            Some(TokenError::Critical),
        ),
    ] {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode("{}")
        );
        let tag = pair.sign(&random, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(tokens.verify(&token, NOW_MS).err(), expected, "{header}");
    }
}

#[test]
fn times_are_compared_with_their_fractions() {
    let secret = "a key for tests, thirty-two bytes";
    let tokens = Tokens::from_secret(secret.as_bytes(), None).unwrap();
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let at = |claims: &str, ms: u64| tokens.verify(&forged(secret, header, claims), ms).map(|_| ());
    let not_yet = |nbf| Err(TokenError::NotActive { nbf });
    let expired = |exp| Err(TokenError::Expired { exp });
    for (claims, ms, expected) in [
        // A clock with fractions, within one second.
        (r#"{"nbf":1795359453.25}"#, NOW_MS + 250, Ok(())),
        (
            r#"{"nbf":1795359453.25}"#,
            NOW_MS + 249,
            not_yet(1_795_359_453.25),
        ),
        (r#"{"exp":1795359453.25}"#, NOW_MS + 249, Ok(())),
        (
            r#"{"exp":1795359453.25}"#,
            NOW_MS + 250,
            expired(1_795_359_453.25),
        ),
        (
            r#"{"iat":1795359453.9,"nbf":1795359453.001,"exp":1795359454.5}"#,
            NOW_MS + 1,
            Ok(()),
        ),
        // Whole seconds, as usual.
        (r#"{"nbf":1795359453}"#, NOW_MS, Ok(())),
        (r#"{"nbf":1795359454}"#, NOW_MS + 999, not_yet(1_795_359_454.0)),
        (r#"{"exp":1795359454}"#, NOW_MS + 999, Ok(())),
        (r#"{"exp":1795359454}"#, NOW_MS + 1000, expired(1_795_359_454.0)),
        // Other forms of the same number.
        (r#"{"nbf":1.795359453e9,"exp":1.8E+9}"#, NOW_MS, Ok(())),
        (r#"{"nbf":1e9,"iat":1.5}"#, NOW_MS, Ok(())),
        (r#"{"nbf":-1e9,"iat":-1.5}"#, NOW_MS, Ok(())),
        (r#"{"exp":-1}"#, NOW_MS, expired(-1.0)),
        (r#"{"exp":-0.0}"#, NOW_MS, expired(-0.0)),
        (r#"{"exp":1e300}"#, NOW_MS, Ok(())),
        (r#"{"exp":1e400}"#, NOW_MS, Ok(())),
        (r#"{"nbf":1e400}"#, NOW_MS, not_yet(f64::INFINITY)),
        (r#"{"nbf":-1e400,"iat":1e400}"#, NOW_MS, Ok(())),
    ] {
        assert_eq!(at(claims, ms), expected, "{claims} at {ms}");
    }
}

#[test]
fn tokens_are_signed_as_the_reference_signs_them() {
    let vectors = Vectors::load();
    for vector in &vectors.sign {
        let tokens = vectors
            .tokens(vector.key.as_deref(), vector.algorithm.as_deref())
            .unwrap();
        let found = tokens.sign(&vector.claims, vector.expires_in, vector.now_ms);
        assert_eq!(
            found.ok(),
            vector.token,
            "{} {:?}",
            vector.claims,
            vector.expires_in
        );
    }
}

#[test]
fn every_algorithm_verifies_its_own_signatures_with_every_form_of_its_key() {
    let vectors = Vectors::load();
    for algorithm in Algorithm::ALL {
        let key = match algorithm.name() {
            "HS256" | "HS384" | "HS512" => {
                let tokens = vectors.tokens(None, Some(algorithm.name())).unwrap();
                let token = tokens.sign("{}", None, NOW_MS).unwrap();
                assert_eq!(
                    tokens.verify(&token, NOW_MS).unwrap().json(),
                    r#"{"iat":1795359453}"#
                );
                continue;
            }
            "ES256" => "p256",
            "ES384" => "p384",
            "ES512" => "p521",
            "EdDSA" => "ed25519",
            _ => "rsa",
        };
        for private in 0..vectors.keys[key].private.len() {
            for public in 0..vectors.keys[key].public.len() {
                let tokens = vectors.pair(key, private, public, Some(algorithm)).unwrap();
                let token = tokens.sign(r#"{"a":1}"#, Some(1), NOW_MS).unwrap();
                let claims = tokens.verify(&token, NOW_MS + 999).unwrap();
                assert_eq!(claims.json(), r#"{"a":1,"iat":1795359453,"exp":1795359454}"#);
                assert_eq!(
                    tokens.verify(&token, NOW_MS + 1000),
                    Err(TokenError::Expired { exp: 1_795_359_454.0 })
                );
                let (signed, _) = token.rsplit_once('.').unwrap();
                let other = tokens.sign("{}", None, NOW_MS).unwrap();
                let (_, signature) = other.rsplit_once('.').unwrap();
                assert_eq!(
                    tokens.verify(&format!("{signed}.{signature}"), NOW_MS),
                    Err(TokenError::InvalidSignature)
                );
            }
        }
    }
}

#[test]
fn ed25519_tokens_of_node_are_verified() {
    let vectors = Vectors::load();
    let tokens = vectors.tokens(Some("ed25519"), None).unwrap();
    for token in &vectors.eddsa {
        assert!(tokens.verify(token, NOW_MS).is_ok());
        let cut = &token[..token.len() - 4];
        assert_eq!(tokens.verify(cut, NOW_MS), Err(TokenError::InvalidSignature));
    }
}

#[test]
fn claims_are_the_signed_text_unchanged() {
    let vectors = Vectors::load();
    let tokens = vectors.tokens(None, None).unwrap();
    let payload = " {\"b\" : 1.0, \"1\":\"\\u0041\", \"exp\" : 1795359999.5 }\n";
    let token = forged(&vectors.secret, r#"{"alg":"HS256","typ":"JWT"}"#, payload);
    let claims = tokens.verify(&token, NOW_MS).unwrap();
    assert_eq!(claims.json(), payload);
    assert_eq!(claims.expires_at(), Some(1_795_359_999.5));
    assert_eq!(
        claims.value::<HashMap<String, serde_json::Value>>().unwrap()["1"],
        "A"
    );
    assert!(claims.value::<Vec<u8>>().is_err());
    let without = tokens.sign("{}", None, NOW_MS).unwrap();
    assert_eq!(tokens.verify(&without, NOW_MS).unwrap().expires_at(), None);
}

#[test]
fn a_token_that_is_not_a_string_gets_the_error_of_the_reference() {
    assert_eq!(
        error_json(&TokenError::NotAString),
        r#"{"message":"Invalid token format - Token must be a string","name":"AuthTokenError","isBadToken":true}"#
    );
}

#[test]
fn invalid_json_gets_the_error_of_node() {
    let mut differing = Vec::new();
    for JsonFault { text, said } in Vectors::load().faults {
        let found = json_fault::message(&text).map(|message| {
            let mut out = Vec::new();
            json::write_string(message, &mut out);
            String::from_utf8(out).unwrap()
        });
        if found != said || Json::parse(&text).is_some() != said.is_none() {
            differing.push(format!("{text:?}\n  expected {said:?}\n  found    {found:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn keys_that_cannot_be_used_are_refused_at_once() {
    let vectors = Vectors::load();
    let public = |key: &str| vectors.keys[key].public[0].as_str();
    let private = |key: &str| vectors.keys[key].private[0].as_str();
    let pem = |private, public, algorithm| Tokens::from_pem(private, public, algorithm).err();

    assert_eq!(Tokens::from_secret(b"", None).err(), Some(KeyError::EmptySecret));
    assert_eq!(
        Tokens::from_secret(public("rsa").as_bytes(), None).err(),
        Some(KeyError::SecretIsPem)
    );
    assert_eq!(
        Tokens::from_secret(b"x", Some(Algorithm::RS256)).err(),
        Some(KeyError::Algorithm(Algorithm::RS256))
    );
    for (key, algorithm) in [
        ("rsa", Algorithm::HS256),
        ("rsa", Algorithm::ES256),
        ("p256", Algorithm::ES384),
        ("p521", Algorithm::EdDSA),
        ("ed25519", Algorithm::PS256),
    ] {
        assert_eq!(
            pem(None, public(key), Some(algorithm)),
            Some(KeyError::Algorithm(algorithm))
        );
    }
    for text in [
        "",
        "x",
        private("rsa"),
        public("small_rsa"),
        public("secp256k1"),
        &public("rsa")[..200],
    ] {
        assert_eq!(pem(None, text, None), Some(KeyError::PublicKey), "{text}");
    }
    for text in [
        "",
        "x",
        public("p256"),
        private("rsa"),
        private("p384"),
        private("secp256k1"),
    ] {
        assert_eq!(
            pem(Some(text), public("p256"), None),
            Some(KeyError::PrivateKey),
            "{text}"
        );
    }
    assert_eq!(
        pem(Some(&vectors.encrypted), public("p256"), None),
        Some(KeyError::EncryptedPrivateKey)
    );
    assert_eq!(
        pem(Some(private("other_rsa")), public("rsa"), None),
        Some(KeyError::NotAPair)
    );
}

#[test]
fn pem_is_found_between_other_text() {
    let vectors = Vectors::load();
    let key = &vectors.keys["p256"];
    let private = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        key.private[1]
    );
    let public = format!("of alice\n{}\n", key.public[0]).replace('\n', "\r\n");
    assert!(Tokens::from_pem(Some(&private), &public, None).is_ok());
}

#[test]
fn without_a_private_key_tokens_are_verified_and_not_signed() {
    let vectors = Vectors::load();
    let both = vectors.tokens(Some("p384"), None).unwrap();
    let public = Tokens::from_pem(None, &vectors.keys["p384"].public[0], None).unwrap();
    assert!(
        public
            .verify(&both.sign("{}", None, NOW_MS).unwrap(), NOW_MS)
            .is_ok()
    );
    assert_eq!(public.sign("{}", None, NOW_MS), Err(SignError::NoPrivateKey));
}

#[test]
fn verifying_returns_the_issued_claims() {
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    for (claims, expires_in) in [
        (r#"{"a":1}"#, None),
        (r#"{"a":1}"#, Some(60)),
        (r#"{"exp":1795359999.5}"#, Some(60)),
        (r#"{"iat":1795359999,"b":"\u0041"}"#, Some(60)),
    ] {
        let issued = tokens.issue(claims, expires_in, NOW_MS).unwrap();
        assert_eq!(tokens.verify(&issued.token, NOW_MS), Ok(issued.claims));
    }
}

#[test]
fn a_token_that_is_not_signed_has_a_reason() {
    let tokens = Tokens::from_secret(b"x", None).unwrap();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    for (claims, error) in [
        ("", SignError::NotJson),
        ("{", SignError::NotJson),
        ("[]", SignError::NotAnObject),
        ("{\"exp\":null}", SignError::NotANumber),
        (&deep, SignError::TooDeep),
    ] {
        assert_eq!(tokens.sign(claims, None, NOW_MS), Err(error), "{claims}");
    }
}

#[test]
fn debug_shows_neither_keys_nor_claims() {
    let tokens = Tokens::from_secret(b"hunter2", Some(Algorithm::HS384)).unwrap();
    let claims: Claims = tokens
        .verify(
            &tokens.sign(r#"{"username":"alice"}"#, None, NOW_MS).unwrap(),
            NOW_MS,
        )
        .unwrap();
    assert_eq!(
        format!("{tokens:?}"),
        "Tokens { signs: Some(HS384), verifies: [HS384], .. }"
    );
    assert_eq!(format!("{claims:?}"), "Claims { expires_at: None, .. }");
}

#[test]
fn tokens_are_shared_by_all_cores() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokens>();
}

#[test]
fn algorithms_are_known_by_their_exact_names() {
    for algorithm in Algorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
    for name in ["", "none", "hs256", "HS256 ", "EDDSA", "Ed25519"] {
        assert!(name.parse::<Algorithm>().is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_verifying_panic(token in any::<String>()) {
        let tokens = Tokens::from_secret(b"x", None).unwrap();
        assert!(tokens.verify(&token, NOW_MS).is_err());
    }

    #[test]
    fn no_header_or_payload_makes_verifying_panic(header in json_like(), payload in json_like()) {
        let tokens = Tokens::from_secret(b"x", None).unwrap();
        for header in [header.as_str(), r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"HS256"}"#] {
            match tokens.verify(&forged("x", header, &payload), NOW_MS) {
                Ok(claims) => assert!(Json::parse(claims.json()).is_some()),
                Err(error) => assert!(Json::parse(&error_json(&error)).is_some()),
            }
        }
    }

    #[test]
    fn the_two_readers_of_json_accept_the_same_texts(text in json_like()) {
        assert_eq!(Json::parse(&text).is_some(), json_fault::message(&text).is_none());
    }

    #[test]
    fn no_claims_make_signing_panic_and_signed_tokens_verify(claims in json_like()) {
        let tokens = Tokens::from_secret(b"x", None).unwrap();
        if let Ok(token) = tokens.sign(&claims, Some(60), NOW_MS) {
            assert!(!matches!(tokens.verify(&token, NOW_MS), Err(TokenError::InvalidSignature)));
        }
    }
}

/// Texts made of the parts of JSON, in any order.
fn json_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""), Just("\\"), Just("\\u"),
            Just("\\ud83d"), Just("\"exp\":"), Just("\"nbf\":"), Just("\"alg\":"), Just("\"a\":{"), Just("true"),
            Just("null"), Just("-"), Just("0"), Just("1"), Just("."), Just("e"), Just(" "), Just("\n"), Just("é"),
            Just("\u{1F600}"), Just("\u{0}"), Just("\"iat\":1"), Just("\"x\":[1,2]"),
        ].prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    let pieces = |most| proptest::collection::vec(piece.clone(), 0..most).prop_map(|pieces| pieces.concat());
    prop_oneof![
        pieces(12),
        pieces(6).prop_map(|inner| format!("{{{inner}}}")),
        pieces(6).prop_map(|inner| format!("\"{inner}\"")),
    ]
}
