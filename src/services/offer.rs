//! The offer of a service: its weight and window, and its `meta`, which operators see.

use serde_json::Value;

/// The weight and the window of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its share of the calls, in proportion to the weights of other services.
    pub weight: u32,
    /// Most calls in flight.
    pub window: u32,
}

impl Offer {
    /// The offer of a service that asks for these numbers, within the limits of the server.
    ///
    /// # Errors
    /// A text for the developer of the service: a value is not a number, or is 0.
    pub fn asked(weight: Option<u64>, window: Option<u64>, window_max: u32) -> Result<Offer, &'static str> {
        let bounded = |number: Option<u64>, max: u32| {
            let number = number.filter(|number| (1..=u64::from(u32::MAX)).contains(number))?;
            Some(u32::try_from(number).unwrap_or(u32::MAX).min(max))
        };
        Ok(Offer {
            weight: bounded(weight, WEIGHT_MAX)
                .ok_or("The weight of a service must be a whole number from 1")?,
            window: bounded(window, window_max)
                .ok_or("The window of a service must be a whole number from 1")?,
        })
    }
}

/// The `meta` of a service, for operators: JSON.
///
/// # Errors
/// A text for the developer of the service: `meta` is no JSON, or too long.
pub fn meta(json: &str) -> Result<Box<str>, &'static str> {
    const TEXT: &str = "The meta of a service must be a JSON value of at most 1024 bytes";
    const { assert!(META_BYTES_MAX == 1024, "the text says so") };
    if json.len() > META_BYTES_MAX {
        return Err(TEXT);
    }
    // Parsed and written again, so that every program can read it: half of a surrogate pair is no text.
    let value: Value = serde_json::from_str(json).map_err(|_| TEXT)?;
    let written = value.to_string();
    match written.len() <= META_BYTES_MAX {
        true => Ok(written.into()),
        false => Err(TEXT),
    }
}

/// The longest [`meta`].
const META_BYTES_MAX: usize = 1024;
/// The weight of a service that names none.
pub const WEIGHT_DEFAULT: u64 = 1;
/// Calls in flight of a service that names no number.
pub const WINDOW_DEFAULT: u64 = 64;
/// A larger weight counts as this.
const WEIGHT_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_is_json_that_everybody_can_read_and_bounded() {
        for (json, expected) in [
            ("null", Some("null")),
            (r#" {"b" : [1, "x"]} "#, Some(r#"{"b":[1,"x"]}"#)),
            (r#""\ud800""#, None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(meta(json).ok().as_deref(), expected, "{json}");
        }
        let long = |bytes: usize| format!("\"{}\"", "m".repeat(bytes - 2));
        assert!(meta(&long(META_BYTES_MAX)).is_ok() && meta(&long(META_BYTES_MAX + 1)).is_err());
    }
}
