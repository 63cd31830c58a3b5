//! Names and data of clients, as applications get them.

use serde::Serialize;
use serde_json::value::RawValue;

/// The name of a channel or an event: UTF-8, except that it may have halves of surrogate pairs, as JavaScript
/// strings may (WTF-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The name whose WTF-8 is `bytes`.
    pub fn new(bytes: &'a [u8]) -> Name<'a> {
        Name(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Its text; `None` if it holds half a pair.
    pub fn as_str(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}

impl PartialEq<str> for Name<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

/// Data of a client: valid JSON, not yet parsed. It is the client's own text, with the changes that the
/// reference makes when data passes through it (numbers beyond doubles are `null`, `-0` is `0`, Node buffers
/// are base64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawJson<'a>(&'a str);

impl<'a> RawJson<'a> {
    pub(crate) fn new(json: &'a str) -> RawJson<'a> {
        RawJson(json)
    }

    /// The payload of an MQTT publication, if it is JSON.
    pub(crate) fn in_payload(payload: &'a [u8]) -> Option<RawJson<'a>> {
        let value: &RawValue = serde_json::from_slice(payload).ok()?;
        Some(RawJson(value.get()))
    }

    /// The JSON.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl Serialize for RawJson<'_> {
    /// Written as it is; cheap with `serde_json` alone.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.0)
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_passed_on_as_it_came() {
        assert_eq!(
            serde_json::to_string(&[RawJson::new("{ \"a\" : 1.0 }")]).unwrap(),
            "[{ \"a\" : 1.0 }]"
        );
    }
}
