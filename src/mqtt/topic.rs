//! Strings, topic names and topic filters. Sections 1.5.4, 4.7 and 4.8.2.

use super::fault::Fault;
use crate::unicode;

/// A string of the wire: UTF-8, and therefore without surrogates (MQTT-1.5.4-1), and without U+0000
/// (MQTT-1.5.4-2). Control characters and U+FEFF are ordinary characters (MQTT-1.5.4-3).
///
/// # Errors
/// `Malformed` for anything else.
#[inline]
pub fn text(bytes: &[u8]) -> Result<&str, Fault> {
    unicode::text_without(bytes, [0]).ok_or(Fault::Malformed)
}

/// A topic name: a string without wildcards (MQTT-3.3.2-2, MQTT-4.7.0-1). It may be empty: in a PUBLISH
/// packet of MQTT 5 a topic alias can stand for it.
///
/// # Errors
/// `Malformed` for anything else. Code 0x90 would say that the name is well-formed.
#[inline]
pub fn name(bytes: &[u8]) -> Result<&str, Fault> {
    unicode::text_without(bytes, [0, b'+', b'#']).ok_or(Fault::Malformed)
}

/// The subject of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// A filter that is not shared.
    Plain(&'a str),
    /// `$share/GROUP/FILTER`: each publication goes to one member of the group (section 4.8.2).
    Shared {
        /// The name of the group.
        group: &'a str,
        /// The filter without `$share/GROUP/`.
        filter: &'a str,
    },
}

/// A filter that no client may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFilter;

impl<'a> Filter<'a> {
    /// Reads a filter.
    ///
    /// # Errors
    /// `NotAFilter` if it is empty, a wildcard stands where it may not (MQTT-4.7.1-1, MQTT-4.7.1-2), or a group has no
    /// name, a wildcard in its name, or no filter (MQTT-4.8.2-1, MQTT-4.8.2-2).
    pub fn parse(text: &'a str) -> Result<Filter<'a>, NotAFilter> {
        let Some(shared) = shared_part(text) else {
            return if is_filter(text) {
                Ok(Filter::Plain(text))
            } else {
                Err(NotAFilter)
            };
        };
        let (group, filter) = shared.split_once('/').ok_or(NotAFilter)?;
        let is_group = !group.is_empty() && !group.contains(['+', '#']);
        if is_group && is_filter(filter) {
            Ok(Filter::Shared { group, filter })
        } else {
            Err(NotAFilter)
        }
    }
}

/// The text behind `$share/`; `None` if the filter belongs to no group.
pub(super) fn shared_part(filter: &str) -> Option<&str> {
    filter.strip_prefix("$share/")
}

/// Whether the wildcards stand in allowed places: `#` as the last level, `+` as a whole level.
pub(super) fn is_filter(text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_legal = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !is_legal {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_utf_8_without_surrogates_and_without_u_0000() {
        for legal in [
            "",
            "a",
            "\u{1}\u{7f}",
            "\u{feff}a\u{feff}",
            "ä€😀",
            "\u{ffff}",
            "\u{10ffff}",
        ] {
            assert_eq!(text(legal.as_bytes()), Ok(legal));
        }
        let malformed: [&[u8]; 9] = [
            b"\0",
            b"a\0b",
            b"\xff",
            b"\xc0\x80",         // U+0000 in two bytes
            b"\xed\xa0\x80",     // U+D800
            b"\xed\xbf\xbf",     // U+DFFF
            b"\xf4\x90\x80\x80", // U+110000
            b"\xe2\x82",         // cut
            b"\xc1\xbf",         // overlong
        ];
        for bytes in malformed {
            assert_eq!(text(bytes), Err(Fault::Malformed), "{bytes:x?}");
            assert_eq!(name(bytes), Err(Fault::Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn a_topic_name_has_no_wildcards() {
        for legal in ["a", "/", "//", "a/ b", "$SYS/x", "/a/", "ä"] {
            assert_eq!(name(legal.as_bytes()), Ok(legal));
        }
        for wrong in ["+", "#", "a/+/b", "a#", "+a"] {
            assert_eq!(name(wrong.as_bytes()), Err(Fault::Malformed), "{wrong}");
        }
    }

    #[test]
    fn wildcards_stand_only_where_the_specification_allows() {
        let legal = [
            "#",
            "+",
            "/",
            "a/#",
            "/#",
            "+/#",
            "+/tennis/#",
            "sport/+/player1",
            "/+",
            "+/+",
            "a/",
            "$share",
            "$shared/a",
        ];
        for filter in legal {
            assert_eq!(Filter::parse(filter), Ok(Filter::Plain(filter)));
        }
        for filter in [
            "",
            "sport/tennis#",
            "sport/#/ranking",
            "sport+",
            "+a",
            "#/",
            "##",
            "++",
            "a/+b/c",
            "#a",
        ] {
            assert_eq!(Filter::parse(filter), Err(NotAFilter), "{filter}");
        }
    }

    #[test]
    fn a_shared_filter_names_a_group_and_a_filter() {
        for (text, group, filter) in [
            ("$share/g/a", "g", "a"),
            ("$share/g/a/#", "g", "a/#"), // nanomq#1883
            ("$share/g//", "g", "/"),
            ("$share/g/+", "g", "+"),
            ("$share/g/$SYS/a", "g", "$SYS/a"),
        ] {
            assert_eq!(Filter::parse(text), Ok(Filter::Shared { group, filter }));
        }
        for text in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/a#/a",
            "$share/g/a#",
        ] {
            assert_eq!(Filter::parse(text), Err(NotAFilter), "{text}");
        }
    }
}
