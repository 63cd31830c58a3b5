//! The error messages of Node 20's `JSON.parse` for texts that are not JSON.
//!
//! A client gets this message if its token has such a payload. It is made only after
//! [`Json::parse`](super::json::Json::parse) has refused the text, so speed does not matter here; nesting is
//! bounded only by memory. Positions count UTF-16 units, and an excerpt may cut a surrogate pair, so the
//! message is UTF-16 too.

/// The message, or `None` if the text is JSON.
pub(super) fn message(text: &str) -> Option<Vec<u16>> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut scan = Scan { units: &units, at: 0 };
    let fault = scan.text().err()?;
    let message_text = match fault {
        Fault::Message(what) => format!("{what} at position {}", scan.at).encode_utf16().collect(),
        Fault::Unexpected => unexpected(&units, scan.at),
    };
    Some(message_text)
}

/// The fault at the position where the scan stopped.
enum Fault {
    /// A fault with a message of its own.
    Message(&'static str),
    /// An unexpected character, or the end of the text.
    Unexpected,
}

#[derive(Clone, Copy)]
enum Container {
    Array,
    Object,
}

struct Scan<'a> {
    units: &'a [u16],
    at: usize,
}

impl Scan<'_> {
    fn text(&mut self) -> Result<(), Fault> {
        let mut open = Vec::new();
        loop {
            if let Some(container) = self.begin_value()? {
                open.push(container);
                continue;
            }
            while let Some(&container) = open.last() {
                if self.skip(b',') {
                    break;
                }
                match container {
                    Container::Array => {
                        self.expect(b']', "Expected ',' or ']' after array element in JSON")?;
                    }
                    Container::Object => {
                        self.expect(b'}', "Expected ',' or '}' after property value in JSON")?;
                    }
                }
                open.pop();
            }
            match open.last() {
                Some(Container::Array) => {}
                Some(Container::Object) => {
                    self.key("Expected double-quoted property name in JSON")?;
                    // Node has a message only for the first missing colon of an object.
                    if !self.skip(b':') {
                        return Err(Fault::Unexpected);
                    }
                }
                None => break,
            }
        }
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Fault::Message("Unexpected non-whitespace character after JSON")),
        }
    }

    /// Reads a whole value, or the beginning of a container that is not empty.
    fn begin_value(&mut self) -> Result<Option<Container>, Fault> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true")?,
            Some(b'f') => self.word("false")?,
            Some(b'n') => self.word("null")?,
            Some(b'[') => {
                self.at += 1;
                if !self.skip(b']') {
                    return Ok(Some(Container::Array));
                }
            }
            Some(b'{') => {
                self.at += 1;
                if !self.skip(b'}') {
                    self.key("Expected property name or '}' in JSON")?;
                    self.expect(b':', "Expected ':' after property name in JSON")?;
                    return Ok(Some(Container::Object));
                }
            }
            Some(_) | None => return Err(Fault::Unexpected),
        }
        Ok(None)
    }

    fn key(&mut self, otherwise: &'static str) -> Result<(), Fault> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return Err(Fault::Message(otherwise));
        }
        self.string()
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(Fault::Message("Unterminated string in JSON")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..0x20) => {
                    return Err(Fault::Message("Bad control character in string literal in JSON"));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.peek() {
            // Node does not name an escaped character outside of Latin-1.
            None => return Err(Fault::Unexpected),
            Some(u8::MAX) if self.units[self.at] > 0xFF => return Err(Fault::Unexpected),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
            Some(b'u') => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek().is_some_and(|unit| unit.is_ascii_hexdigit()) {
                        return Err(Fault::Message("Bad Unicode escape in JSON"));
                    }
                }
            }
            Some(_) => return Err(Fault::Message("Bad escaped character in JSON")),
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
            self.digit("No number after minus sign in JSON")?;
        }
        let leading_zero = self.peek() == Some(b'0');
        self.at += 1;
        if leading_zero && self.peek().is_some_and(|unit| unit.is_ascii_digit()) {
            return Err(Fault::Unexpected);
        }
        self.digits();
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("Unterminated fractional number in JSON")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("Exponent part is missing a number in JSON")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&self, otherwise: &'static str) -> Result<(), Fault> {
        match self.peek() {
            Some(b'0'..=b'9') => Ok(()),
            Some(_) | None => Err(Fault::Message(otherwise)),
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        for byte in word.bytes() {
            if self.peek() != Some(byte) {
                return Err(Fault::Unexpected);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn expect(&mut self, byte: u8, otherwise: &'static str) -> Result<(), Fault> {
        if self.skip(byte) {
            Ok(())
        } else {
            Err(Fault::Message(otherwise))
        }
    }

    fn skip(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The current unit as a byte; 255 if it is not ASCII, since such units have no meaning outside of
    /// strings.
    fn peek(&self) -> Option<u8> {
        let unit = *self.units.get(self.at)?;
        Some(u8::try_from(unit).ok().filter(u8::is_ascii).unwrap_or(u8::MAX))
    }
}

/// The message when only the unit at `at` is the reason.
fn unexpected(units: &[u16], at: usize) -> Vec<u16> {
    let utf16 = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    // Texts that JavaScript makes of values without a JSON form have messages of their own.
    for special in ["[object Object]", "undefined", "NaN", "Infinity"] {
        if special.encode_utf16().eq(units.iter().copied()) {
            return utf16(&format!("\"{special}\" is not valid JSON"));
        }
    }
    let Some(&unit) = units.get(at) else {
        return utf16("Unexpected end of JSON input");
    };
    match u8::try_from(unit) {
        Ok(b'-' | b'0'..=b'9') => return utf16(&format!("Unexpected number in JSON at position {at}")),
        Ok(b'"') => return utf16(&format!("Unexpected string in JSON at position {at}")),
        Ok(_) | Err(_) => {}
    }
    let is_short = units.len() <= 2 * EXCERPT_UNITS;
    let (start, end) = if is_short {
        (0, units.len())
    } else {
        (
            at.saturating_sub(EXCERPT_UNITS),
            (at + EXCERPT_UNITS).min(units.len()),
        )
    };
    // Exactly at the limit nothing is left out before the excerpt, but Node writes the ellipsis all the same.
    let before = if !is_short && at >= EXCERPT_UNITS {
        "', ...\""
    } else {
        "', \""
    };
    let after = if end < units.len() { "\"..." } else { "\"" };
    [
        utf16("Unexpected token '").as_slice(),
        &[unit],
        &utf16(before),
        &units[start..end],
        &utf16(after),
        &utf16(" is not valid JSON"),
    ]
    .concat()
}

/// How many units of the text a message shows on either side of the fault.
const EXCERPT_UNITS: usize = 10;
