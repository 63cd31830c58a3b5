//! A strict scanner for JSON text: exactly the grammar of RFC 8259, in one pass, without allocation or recursion.
//!
//! It finds where values begin and end, and does not interpret them. It only notes whether a value may be one of the
//! few that the reference changes when data passes through it (`rewrite`).
//!
//! Invariants
//! 1. The text is UTF-8, and the scanner stops only beside an ASCII byte; so its position is always between characters.
//! 2. It accepts what `JSON.parse` accepts, up to a nesting of [`DEPTH_MAX`].
//!
//! Limits: text that is nested deeper than [`DEPTH_MAX`] is [`Fault::TooDeep`]. Callers treat it as invalid, and count
//! it.

pub mod string;
mod unquote;

use self::string::StringSlice;
pub(crate) use self::unquote::{Unquoted, unquote};

/// Deepest nesting within one member of a packet.
pub const DEPTH_MAX: usize = 64 * DEEP_WORDS;

const DEEP_WORDS: usize = 64;

/// The reason why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON.
    Malformed,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// A position in a text, from which the scanner reads.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// True if the scanner has passed a value that `rewrite` may change.
    rare: bool,
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of `text`.
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner {
            text,
            at: 0,
            rare: false,
        }
    }

    /// The current position.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Continues at `position`, which must be between two characters.
    pub(crate) fn skip_to(&mut self, position: usize) {
        self.at = position;
    }

    /// The text from `start` to the current position.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// True if the scanner has passed a value that `rewrite` may change since the last call.
    pub fn take_rare(&mut self) -> bool {
        std::mem::take(&mut self.rare)
    }

    /// The next byte, not consumed.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    /// Skips `byte`, if it is the next byte.
    #[inline]
    pub fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Skips `byte`; fails if it is not the next byte.
    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.pass(byte) {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }

    /// Skips white space.
    #[inline]
    pub fn skip_space(&mut self) {
        // JSON that programs print has none, so there is usually only this comparison instead of four.
        if self.is_at_space() {
            self.skip_some_space();
        }
    }

    fn skip_some_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Fails unless only white space is left.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.is_at_end() {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }

    /// Skips `text`, if the input continues with exactly this text.
    #[inline]
    pub fn pass_all<const LENGTH: usize>(&mut self, text: &[u8; LENGTH]) -> bool {
        let is_next = self
            .bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(text));
        if is_next {
            self.at += LENGTH;
        }
        is_next
    }

    /// True if the next byte is white space.
    #[inline]
    pub fn is_at_space(&self) -> bool {
        self.peek().is_some_and(|byte| byte <= b' ')
    }

    /// True if no byte is left.
    #[inline]
    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// Scans a string with its quotes.
    #[inline]
    pub fn string(&mut self) -> Result<StringSlice<'a>, Fault> {
        self.expect(b'"')?;
        let start = self.at;
        let end = plain_end(self.bytes(), start);
        self.at = end;
        if self.pass(b'"') {
            return Ok(StringSlice::new(&self.text[start..end], false));
        }
        self.rest_of_string(start)
    }

    /// Continues within a string at a byte that is neither a plain character nor the closing quote.
    #[cold]
    fn rest_of_string(&mut self, start: usize) -> Result<StringSlice<'a>, Fault> {
        while self.peek() == Some(b'\\') {
            self.escape()?;
            self.at = plain_end(self.bytes(), self.at);
        }
        let string = StringSlice::new(self.since(start), true);
        self.expect(b'"')?;
        Ok(string)
    }

    /// Scans a string that is a value, and notes whether `rewrite` may change it.
    #[inline]
    pub fn noted_string(&mut self) -> Result<StringSlice<'a>, Fault> {
        let string = self.string()?;
        self.rare |= string.is("Buffer");
        Ok(string)
    }

    /// Scans any value and the white space before it, but not the white space after it.
    #[inline]
    pub fn value(&mut self) -> Result<(), Fault> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.noted_string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => self.other_value(),
        }
    }

    fn other_value(&mut self) -> Result<(), Fault> {
        let start = self.at;
        match self.value_within::<1>() {
            Err(Fault::TooDeep) => {
                self.at = start;
                self.deep_value()
            }
            result => result,
        }
    }

    #[cold]
    fn deep_value(&mut self) -> Result<(), Fault> {
        self.value_within::<DEEP_WORDS>()
    }

    /// Scans a value that is nested at most `64 * WORDS` levels deep. A stack of bits holds the kinds of the open
    /// containers.
    fn value_within<const WORDS: usize>(&mut self) -> Result<(), Fault> {
        let mut objects = [0u64; WORDS];
        let mut depth = 0;
        loop {
            // A value begins here.
            self.skip_space();
            match self.peek() {
                Some(b'"') => {
                    self.noted_string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    self.skip_space();
                    let is_object = open == b'{';
                    if !self.pass(if is_object { b'}' } else { b']' }) {
                        if depth == 64 * WORDS {
                            return Err(Fault::TooDeep);
                        }
                        let (word, bit) = (depth / 64, 1 << (depth % 64));
                        objects[word] = if is_object {
                            objects[word] | bit
                        } else {
                            objects[word] & !bit
                        };
                        depth += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(_) | None => return Err(Fault::Malformed),
            }
            // A value has ended here: close containers until another value must begin.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = objects[(depth - 1) / 64] >> ((depth - 1) % 64) & 1 == 1;
                self.skip_space();
                if self.pass(b',') {
                    if in_object {
                        self.skip_space();
                        self.key()?;
                    }
                    break;
                }
                self.expect(if in_object { b'}' } else { b']' })?;
                depth -= 1;
            }
        }
    }

    /// Scans a key and its colon.
    #[inline]
    pub fn key(&mut self) -> Result<StringSlice<'a>, Fault> {
        let key = self.string()?;
        self.skip_space();
        self.expect(b':')?;
        Ok(key)
    }

    #[inline]
    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let minus = self.pass(b'-');
        if self.pass(b'0') {
            self.rare |= minus;
        } else {
            self.digits()?;
        }
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            self.fraction()?;
        }
        // 10^308 is the last power of ten that a double holds.
        self.rare |= self.at - start > 300;
        Ok(())
    }

    /// Scans the fraction and the exponent of a number.
    fn fraction(&mut self) -> Result<(), Fault> {
        if self.pass(b'.') {
            self.digits()?;
        }
        if self.pass(b'e') || self.pass(b'E') {
            if !self.pass(b'+') {
                self.pass(b'-');
            }
            self.digits()?;
            self.rare = true;
        }
        Ok(())
    }

    /// Scans one or more digits.
    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start {
            Ok(())
        } else {
            Err(Fault::Malformed)
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Fault> {
        if !self.bytes()[self.at..].starts_with(literal) {
            return Err(Fault::Malformed);
        }
        self.at += literal.len();
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        let kind = self.peek().ok_or(Fault::Malformed)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let digits = self.bytes().get(self.at..self.at + 4).ok_or(Fault::Malformed)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Fault::Malformed);
                }
                self.at += 4;
                Ok(())
            }
            _ => Err(Fault::Malformed),
        }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }
}

/// The position from `at` on of the first quote, backslash or control character in a string, or the end of the text. It
/// compares eight bytes at a time.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // The high bit of a byte is set if the byte is below 0x20, or zero after the exclusive or. A borrow can set
        // wrong bits only above a right one, and only the lowest bit is used.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        let stops = (control | quote | backslash) & HIGHS;
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = bytes.get(at)
        && byte >= 0x20
        && byte != b'"'
        && byte != b'\\'
    {
        at += 1;
    }
    at
}

/// Scans a whole text; accepts what `JSON.parse` accepts.
pub fn check(text: &str) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    scanner.value()?;
    scanner.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection, prop_assert, prop_assert_eq};
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn text_that_the_grammar_allows_is_accepted() {
        for text in [
            "0",
            "-0",
            "10",
            "1.5",
            "1e5",
            "1E+5",
            "1e-5",
            "-1.25e10",
            "1e400",
            r#""""#,
            r#""a\"\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud800""#,
            "true",
            "false",
            "null",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[1,2,[3]]",
            r#"{"a":{"b":[]}}"#,
            " \n\r\t[ 1 , 2 ] ",
            r#"{ "a" : 1 , "b" : 2 }"#,
            "\"\u{7f}\u{2028}é😀\"",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn text_that_the_grammar_forbids_is_refused() {
        for text in [
            "",
            " ",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1.e5",
            "1e",
            "1e+",
            "0x10",
            "NaN",
            "Infinity",
            "nul",
            "truee",
            "tru",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "\"\t\"",
            "\"\n\"",
            "\"\u{1f}\"",
            "'a'",
            "[",
            "]",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\" 1}",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "[]]",
            "\u{feff}[]",
            "\u{b}[]",
            "[1]\u{a0}",
            "// x",
            "{\"a\":1}x",
        ] {
            assert_eq!(check(text), Err(Fault::Malformed), "{text}");
        }
    }

    #[test]
    fn strings_end_at_the_same_byte_wherever_it_lies_in_a_word() {
        for before in 0..20 {
            for after in 0..20 {
                let (plain, rest) = ("é".repeat(before), "\u{80}".repeat(after));
                let string = format!("\"{plain}\"{rest}");
                let mut scanner = Scanner::new(&string);
                assert_eq!(
                    scanner.string().map(|string| string.plain()),
                    Ok(Some(plain.as_str()))
                );
                let escaped = format!("\"{plain}\\n{rest}\"");
                assert_eq!(check(&escaped), Ok(()));
                for control in 0..0x20u8 {
                    let broken = format!("\"{plain}{}{rest}\"", char::from(control));
                    assert_eq!(check(&broken), Err(Fault::Malformed));
                }
            }
        }
    }

    #[test]
    fn depth_is_limited_and_the_limit_is_exact() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for depth in [1, 63, 64, 65, 128, DEPTH_MAX - 1, DEPTH_MAX] {
                assert_eq!(check(&nested(depth)), Ok(()), "{depth}");
            }
            assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(Fault::TooDeep));
        }
        assert_eq!(check(&"[".repeat(1_000_000)), Err(Fault::TooDeep));
    }

    #[test]
    fn each_kind_of_container_closes_with_its_own_bracket_at_any_depth() {
        for depth in [1, 63, 64, 65, 200] {
            let open: String = (0..depth)
                .map(|at| if at % 3 == 0 { "{\"a\":" } else { "[" })
                .collect();
            let close: String = (0..depth)
                .rev()
                .map(|at| if at % 3 == 0 { "}" } else { "]" })
                .collect();
            assert_eq!(check(&format!("{open}1{close}")), Ok(()));
            let wrong: String = (0..depth)
                .rev()
                .map(|at| if at % 3 == 0 { "]" } else { "}" })
                .collect();
            assert_eq!(check(&format!("{open}1{wrong}")), Err(Fault::Malformed));
        }
    }

    #[test]
    fn values_that_may_be_rewritten_are_noted_and_others_are_not() {
        let rare = |text: &str| {
            let mut scanner = Scanner::new(text);
            scanner.value().expect("valid");
            scanner.take_rare()
        };
        let long = "1".repeat(301);
        for text in [
            "1e5",
            "[1,-0]",
            "-0.5",
            "{\"a\":{\"type\":\"Buffer\"}}",
            "\"\\u0042uffer\"",
            long.as_str(),
        ] {
            assert!(rare(text), "{text}");
        }
        for text in [
            "15",
            "-1",
            "[0,0.5]",
            "\"e5\"",
            "{\"Buffer\":1}",
            "\"Buffers\"",
            &long[..300],
        ] {
            assert!(!rare(text), "{text}");
        }
    }

    /// JSON, almost JSON, and text of JSON's characters.
    fn texts() -> impl Strategy<Value = String> {
        let tokens = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"data\""),
            Just("1"),
            Just("-0"),
            Just("1e9"),
            Just("0.5"),
            Just("true"),
            Just("null"),
            Just(" "),
            Just("\""),
            Just("\\"),
            Just("\\u0041"),
            Just("é"),
        ];
        let soup = collection::vec(tokens, 0..12).prop_map(|tokens| tokens.concat());
        prop_oneof![
            soup,
            documents().prop_map(|value| value.to_string()),
            any::<String>()
        ]
    }

    fn documents() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_scanner_accepts_exactly_what_serde_json_accepts(text in texts()) {
            let theirs = serde_json::from_str::<&RawValue>(&text).is_ok();
            prop_assert_eq!(check(&text).is_ok(), theirs, "{:?}", text);
        }

        #[test]
        fn the_scanner_accepts_what_simd_json_accepts(text in texts()) {
            let mut bytes = text.clone().into_bytes();
            if simd_json::to_tape(&mut bytes).is_ok() {
                prop_assert!(check(&text).is_ok(), "{:?}", text);
            }
        }

        #[test]
        fn a_value_ends_where_its_text_ends(value in documents()) {
            let text = format!("{value},1");
            let mut scanner = Scanner::new(&text);
            scanner.value().expect("a document");
            prop_assert_eq!(scanner.position(), text.len() - 2);
        }

        #[test]
        fn a_document_cut_anywhere_is_refused(value in documents(), cut in any::<proptest::sample::Index>()) {
            let text = serde_json::Value::from(vec![value]).to_string();
            let at = (0..text.len()).filter(|&at| text.is_char_boundary(at)).collect::<Vec<_>>();
            prop_assert!(check(&text[..*cut.get(&at)]).is_err());
        }
    }
}
