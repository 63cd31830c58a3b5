//! The signature of a request: proves to its receiver that this server has made the request, and at which time.
//!
//! ```text
//! Ringcast-Signature: t=1700000000,v1=5257a869e7ec…
//! ```
//! `t` is the time in seconds since 1970; each `v1` is the HMAC-SHA-256, in hexadecimal, of the digits of `t`, a dot,
//! and the body, with one of the secrets. While a secret is being replaced there are two: a receiver accepts a request
//! if *one* of them is right, and `t` is not older than the receiver allows, such as five minutes.

use std::fmt;

use aws_lc_rs::hmac;

/// The name of the header.
pub(super) const SIGNATURE_HEADER: &str = "ringcast-signature";

/// Signs bodies with one secret, or with several while one replaces another.
#[derive(Clone)]
pub(crate) struct Signer(Vec<hmac::Key>);

/// Why secrets cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignerError {
    /// There is no secret.
    None,
    /// There are more than [`SECRETS_MAX`].
    TooMany,
    /// A secret is shorter than [`SECRET_BYTES_MIN`].
    Short,
}

impl Signer {
    /// A signer with the secrets of a text, one on each line; empty lines are skipped.
    ///
    /// # Errors
    /// No request can be signed with them.
    pub(crate) fn of_lines(text: &str) -> Result<Signer, SignerError> {
        let secrets: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match secrets.len() {
            0 => Err(SignerError::None),
            1..=SECRETS_MAX if secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN) => {
                Err(SignerError::Short)
            }
            1..=SECRETS_MAX => Ok(Signer(
                secrets
                    .iter()
                    .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
                    .collect(),
            )),
            _ => Err(SignerError::TooMany),
        }
    }

    /// The value of the header for a body that is sent at this time.
    pub(crate) fn sign(&self, unix_seconds: u64, body: &[u8]) -> String {
        let mut value = format!("t={unix_seconds}");
        for key in &self.0 {
            let mut context = hmac::Context::with_key(key);
            context.update(unix_seconds.to_string().as_bytes());
            context.update(b".");
            context.update(body);
            value.push_str(",v1=");
            for byte in context.sign().as_ref() {
                value.push_str(&format!("{byte:02x}"));
            }
        }
        value
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signer({} secrets)", self.0.len())
    }
}

impl fmt::Display for SignerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignerError::None => formatter.write_str("it holds no secret"),
            SignerError::TooMany => write!(
                formatter,
                "it holds more than {SECRETS_MAX} secrets, one on each line"
            ),
            SignerError::Short => write!(
                formatter,
                "a secret in it is shorter than {SECRET_BYTES_MIN} bytes; `openssl rand -hex 32` makes a good one"
            ),
        }
    }
}

impl std::error::Error for SignerError {}

/// Most secrets at a time.
const SECRETS_MAX: usize = 4;
/// The shortest secret. A short one can be found by trying.
const SECRET_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const BODY: &[u8] = br#"{"action":"connect"}"#;

    /// The values are those of `printf '%s' "$t.$body" | openssl dgst -sha256 -hmac "$secret"`.
    #[test]
    fn a_signature_is_the_one_that_other_programs_compute() {
        let signer = Signer::of_lines(SECRET).unwrap();
        assert_eq!(
            signer.sign(1_700_000_000, BODY),
            "t=1700000000,v1=44cb5ca465616404303f2ae5f1191e93389f322d7862e0ebb7ad20f16b1cabfa"
        );
        assert_eq!(
            signer.sign(0, b""),
            "t=0,v1=b5b3fbed5b59d925316d6d39db497aba70820961dda53dfe23a87559dab1eb6b"
        );
    }

    #[test]
    fn a_secret_that_is_being_replaced_signs_as_well() {
        let both = Signer::of_lines(&format!("{SECRET}\n\n  another secret of mine\r\n")).unwrap();
        let first = Signer::of_lines(SECRET).unwrap().sign(7, BODY);
        let second = Signer::of_lines("another secret of mine").unwrap().sign(7, BODY);
        assert_eq!(both.sign(7, BODY), format!("{first},{}", &second["t=7,".len()..]));
        assert_ne!(first, Signer::of_lines(SECRET).unwrap().sign(8, BODY));
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused_and_none_is_shown() {
        let refused = |text: &str| Signer::of_lines(text).map(|_| ()).unwrap_err();
        assert_eq!(refused(" \n\n"), SignerError::None);
        assert_eq!(refused("short"), SignerError::Short);
        assert_eq!(
            refused(&format!("{SECRET}\n").repeat(SECRETS_MAX + 1)),
            SignerError::TooMany
        );
        let shown = format!("{:?}", Signer::of_lines(SECRET).unwrap());
        assert_eq!(shown, "Signer(1 secrets)");
    }
}
