//! What `JSON.parse` of Node 20 says about a text that is not JSON.
//!
//! A client whose token has such a payload reads this text as its error message. Comes after the text was refused by
//! [`Json::parse`](super::json::Json::parse), so speed does not matter here; nesting is bounded by memory alone.
//! Positions count UTF-16 units, and an excerpt may cut a surrogate pair, so the message is UTF-16 too.

/// The message, or `None` if the text is JSON.
pub(super) fn message(text: &str) -> Option<Vec<u16>> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut scan = Scan { units: &units, at: 0 };
    let fault = scan.text().err()?;
    let said = match fault {
        Fault::Said(what) => format!("{what} at position {}", scan.at).encode_utf16().collect(),
        Fault::Unexpected => unexpected(&units, scan.at),
    };
    Some(said)
}

/// What is wrong at the place where the scan stopped.
enum Fault {
    /// A rule has its own words.
    Said(&'static str),
    /// What stands there has no business there, or the text ends.
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
                if self.take(b',') {
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
                    // Node has words for the first colon of an object only.
                    if !self.take(b':') {
                        return Err(Fault::Unexpected);
                    }
                }
                None => break,
            }
        }
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Fault::Said("Unexpected non-whitespace character after JSON")),
        }
    }

    /// Reads a whole value, or the beginning of a container with something in it.
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
                if !self.take(b']') {
                    return Ok(Some(Container::Array));
                }
            }
            Some(b'{') => {
                self.at += 1;
                if !self.take(b'}') {
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
            return Err(Fault::Said(otherwise));
        }
        self.string()
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(Fault::Said("Unterminated string in JSON")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..0x20) => return Err(Fault::Said("Bad control character in string literal in JSON")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.peek() {
            // Node does not name an escape of what is not Latin-1.
            None => return Err(Fault::Unexpected),
            Some(u8::MAX) if self.units[self.at] > 0xFF => return Err(Fault::Unexpected),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
            Some(b'u') => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek().is_some_and(|unit| unit.is_ascii_hexdigit()) {
                        return Err(Fault::Said("Bad Unicode escape in JSON"));
                    }
                }
            }
            Some(_) => return Err(Fault::Said("Bad escaped character in JSON")),
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
            Some(_) | None => Err(Fault::Said(otherwise)),
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
        if self.take(byte) {
            Ok(())
        } else {
            Err(Fault::Said(otherwise))
        }
    }

    fn take(&mut self, byte: u8) -> bool {
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

    /// The unit here as a byte; what is not ASCII has no meaning outside of strings and is 255.
    fn peek(&self) -> Option<u8> {
        let unit = *self.units.get(self.at)?;
        Some(u8::try_from(unit).ok().filter(u8::is_ascii).unwrap_or(u8::MAX))
    }
}

/// What is said when the unit at `at` is the whole reason.
fn unexpected(units: &[u16], at: usize) -> Vec<u16> {
    let utf16 = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    // What JavaScript makes of values that are no JSON text at all has words of its own.
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
    // Exactly at the limit nothing is left out before, but Node says so.
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

/// How much of the text stands to either side of the fault in a message.
const EXCERPT_UNITS: usize = 10;
