//! Sections of a PEM text (RFC 7468).
//!
//! As lenient as OpenSSL: text outside of sections is ignored, and lines may end in CR LF and be of any
//! length. Headers inside a section (RFC 1421, `Proc-Type: 4,ENCRYPTED`) are not base64, so a section with
//! headers is not found.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One section: `-----BEGIN label-----`, base64, `-----END label-----`.
pub(super) struct Section<'a> {
    pub(super) label: &'a str,
    pub(super) der: Vec<u8>,
}

/// The first well-formed section whose label is accepted.
pub(super) fn find_section<'a>(text: &'a str, accepts: impl Fn(&str) -> bool) -> Option<Section<'a>> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, body) = after.split_once("-----")?;
        let end = format!("-----END {label}-----");
        if let Some((encoded, _)) = body.split_once(end.as_str())
            && accepts(label)
        {
            let encoded: String = encoded.split_ascii_whitespace().collect();
            if let Ok(der) = STANDARD.decode(encoded) {
                return Some(Section { label, der });
            }
        }
        rest = body;
    }
    None
}
