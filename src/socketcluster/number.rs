//! Numbers as JavaScript reads and prints them: all of them are doubles.

/// A JSON number as it stands in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(&'a str);

impl<'a> Number<'a> {
    /// The number in a scanned value; `None` if the value is not a number.
    pub(super) fn in_value(value: &'a str) -> Option<Number<'a>> {
        value
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
            .then_some(Number(value))
    }

    /// The text of the number.
    pub(super) fn as_str(self) -> &'a str {
        self.0
    }

    /// The value; infinite if it is too large for a double.
    pub fn as_f64(self) -> f64 {
        // Rust's grammar of numbers includes JSON's.
        self.as_digits()
            .unwrap_or_else(|| self.0.parse().unwrap_or(f64::INFINITY))
    }

    /// The value of up to fifteen digits without a sign, as in most ids of calls. It takes a tenth of the
    /// instructions of a parser of doubles.
    #[inline]
    fn as_digits(self) -> Option<f64> {
        let digits = self.0.as_bytes();
        if digits.len() > DIGITS_EXACT {
            return None;
        }
        let mut value = 0_u64;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = 10 * value + u64::from(digit - b'0');
        }
        Some(value as f64)
    }

    /// The number as `JSON.stringify` prints it, after it was read as a double: wire reference, section 3.
    pub fn text(self) -> NumberText {
        let mut text = NumberText::default();
        if self.is_short_integer() {
            text.push(self.0.as_bytes());
        } else {
            let number = self.as_f64();
            if number.is_finite() {
                text.push(ryu_js::Buffer::new().format_finite(number).as_bytes());
            } else {
                text.push(b"null");
            }
        }
        text
    }

    /// True if the number is an integer that a double holds exactly, so that it is printed as it stands here.
    fn is_short_integer(self) -> bool {
        let digits = self.0.strip_prefix('-').unwrap_or(self.0);
        digits.len() <= DIGITS_EXACT && self.0 != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// A double holds every integer with this many digits exactly.
const DIGITS_EXACT: usize = 15;

/// The text of a number as JavaScript prints it, stored inline: no such text is longer than 25 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumberText {
    bytes: [u8; NumberText::BYTES_MAX],
    length: u8,
}

impl NumberText {
    const BYTES_MAX: usize = 31;

    /// A number that was printed before. Text beyond the length of a number is cut off.
    pub fn copied(printed: &[u8]) -> NumberText {
        let mut text = NumberText::default();
        text.push(&printed[..printed.len().min(Self::BYTES_MAX)]);
        text
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.length = u8::try_from(bytes.len()).expect("at most BYTES_MAX, or the line above had panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let number = Number::in_value(text).expect("a number");
        String::from_utf8(number.text().as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn numbers_print_as_in_the_recordings() {
        for (text, expected) in [
            ("0", "0"),
            ("-1", "-1"),
            ("1.5", "1.5"),
            ("9007199254740993", "9007199254740992"),
            ("1e400", "null"),
            ("-1e400", "null"),
            ("1e21", "1e+21"),
            ("1e-7", "1e-7"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1.0", "1"),
            ("100000000000000000000", "100000000000000000000"),
            ("12345678901234567890", "12345678901234567000"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("5e-324", "5e-324"),
            ("1E400", "null"),
            ("999999999999999", "999999999999999"),
            ("-999999999999999", "-999999999999999"),
            ("1e2", "100"),
            ("1000000000000001", "1000000000000001"),
            ("9999999999999999", "10000000000000000"),
        ] {
            assert_eq!(printed(text), expected);
        }
    }

    #[test]
    fn digits_have_the_value_that_the_standard_library_reads() {
        for text in [
            "0",
            "7",
            "10",
            "999999999999999",
            "1000000000000000",
            "-1",
            "1.5",
            "1e2",
            "007",
        ] {
            let number = Number(text);
            assert_eq!(Some(number.as_f64()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn the_longest_numbers_fit() {
        for text in [
            "-1.2345678901234567e-300",
            "-0.0000012345678901234567",
            "-123456789012345678901",
        ] {
            assert!(printed(text).len() <= NumberText::BYTES_MAX);
        }
    }

    #[test]
    fn only_numbers_are_numbers() {
        for text in ["\"5\"", "true", "null", "[1]", "{}"] {
            assert_eq!(Number::in_value(text), None);
        }
    }
}
