//! A client's identity by its certificate: the claims that its session begins with.
//!
//! ```json
//! {"sub":"alice","exp":1767225600,"tls":{"subject":"CN=alice, O=Example","san":["alice@example.com"],"serial":"0a1b"}}
//! ```
//! `sub` is the subject's common name; it is missing if the subject has no common name or several. `exp` is
//! the end of the certificate. The client cannot choose any of these values: a certificate authority has
//! confirmed them all.

use crate::auth::Claims;
use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

#[derive(Serialize)]
struct Identity<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    exp: i64,
    tls: Details,
}

#[derive(Serialize)]
struct Details {
    subject: String,
    san: Vec<String>,
    serial: String,
}

/// The claims of a certificate that has been verified; `None` if it cannot be read.
pub(crate) fn claims_of(certificate: &[u8]) -> Option<Claims> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let mut common_names = subject.iter_common_name();
    let sub = match (common_names.next(), common_names.next()) {
        (Some(name), None) => name.as_str().ok().filter(|name| !name.is_empty()),
        (Some(_), Some(_)) | (None, _) => None,
    };
    let san = certificate
        .subject_alternative_name()
        .ok()?
        .map_or_else(Vec::new, |extension| {
            extension.value.general_names.iter().filter_map(text_of).collect()
        });
    let identity = Identity {
        sub,
        exp: certificate.validity().not_after.timestamp(),
        tls: Details {
            subject: subject.to_string(),
            san,
            serial: certificate
                .raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        },
    };
    let json = serde_json::to_string(&identity).ok()?;
    Some(Claims::trusted(json, Some(identity.exp as f64)))
}

fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        // Other kinds of names are of no use in rules.
        _ => None,
    }
}
