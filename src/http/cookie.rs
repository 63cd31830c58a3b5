//! The cookie that holds a token: read from requests, set by answers (RFC 6265).

use super::Request;
use crate::client::ambient::Ambient;

/// The value of the cookie with that name, compared case-sensitively. A browser adds the cookie to the
/// requests of any page, hence the type [`Ambient`].
///
/// A browser sends several cookies with one name if another host of the same site has set one for the whole
/// site, and their order does not show which host set which. If their values differ, one may have been
/// planted, so none of them counts.
pub fn find<'a>(request: &Request<'a>, name: &str) -> Option<Ambient<&'a str>> {
    let pairs = request
        .header_values("cookie")
        .flat_map(|line| line.split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii);
    let mut values = pairs.filter_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
        Some(unquoted(value.strip_prefix(b"=")?.trim_ascii_start()))
    });
    let first = values.next()?;
    if values.any(|value| value != first) {
        return None;
    }
    std::str::from_utf8(first).ok().map(Ambient::new)
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

/// A cookie that an answer sets.
#[derive(Clone, Copy, Debug)]
pub struct SetCookie<'a> {
    /// The name, a token of RFC 9110 section 5.6.2.
    pub name: &'a str,
    /// The value: characters of a token; empty to delete the cookie.
    pub value: &'a str,
    /// How long the browser keeps it.
    pub max_age_seconds: u64,
    /// True if the browser may send it only over HTTPS.
    pub secure: bool,
}

impl SetCookie<'_> {
    /// Appends the header line. Scripts cannot read the cookie. Requests from other sites do not carry it,
    /// except when the user follows a link to this server, which has no effect.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Set-Cookie: ");
        out.extend_from_slice(self.name.as_bytes());
        out.push(b'=');
        out.extend_from_slice(self.value.as_bytes());
        out.extend_from_slice(b"; Path=/; Max-Age=");
        out.extend_from_slice(itoa::Buffer::new().format(self.max_age_seconds).as_bytes());
        out.extend_from_slice(b"; HttpOnly; SameSite=Lax");
        if self.secure {
            out.extend_from_slice(b"; Secure");
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ambient::Trust;
    use crate::http::request;

    fn found(lines: &str) -> Option<String> {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let (request, _) = request::parse(head.as_bytes(), 64 * 1024).unwrap().unwrap();
        let found = find(&request, "token");
        found
            .and_then(|cookie| cookie.value_for(Trust::Own))
            .map(str::to_owned)
    }

    #[test]
    fn a_cookie_is_found_by_its_name() {
        for (lines, value) in [
            ("Cookie: token=a.b.c\r\n", Some("a.b.c")),
            ("cookie:a=1; token=x;b=2\r\n", Some("x")),
            ("Cookie: a; token = \"x\" ; ;=\r\n", Some("x")),
            ("Cookie: a=1\r\nCookie: token=x\r\n", Some("x")),
            ("Cookie: token=\r\n", Some("")),
            ("Cookie: token=a=b\r\n", Some("a=b")),
            ("Cookie: token=x; token=x\r\n", Some("x")),
            ("", None),
            ("Cookie: \r\n", None),
            ("Cookie: token\r\n", None),
            ("Cookie: Token=x; tokens=x; xtoken=x; a=token=x\r\n", None),
            ("Cookie: token=\u{e9}\r\n", Some("\u{e9}")),
        ] {
            assert_eq!(found(lines).as_deref(), value, "{lines}");
        }
        let huge = format!("Cookie: a={}; token=x\r\n", "y".repeat(30_000));
        assert_eq!(found(&huge).as_deref(), Some("x"));
    }

    #[test]
    fn of_cookies_with_different_values_none_counts() {
        for lines in [
            "Cookie: token=x; token=y\r\n",
            "Cookie: token=y\r\nCookie: token=x\r\n",
            "Cookie: token=x; a=1; token=\r\n",
        ] {
            assert_eq!(found(lines), None, "{lines}");
        }
    }

    #[test]
    fn a_cookie_is_set_with_all_protective_attributes() {
        let mut cookie = SetCookie {
            name: "n",
            value: "v",
            max_age_seconds: 60,
            secure: false,
        };
        let written = |cookie: SetCookie<'_>| {
            let mut out = Vec::new();
            cookie.write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(cookie),
            "Set-Cookie: n=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax\r\n"
        );
        cookie.secure = true;
        assert!(written(cookie).ends_with("; SameSite=Lax; Secure\r\n"));
    }
}
