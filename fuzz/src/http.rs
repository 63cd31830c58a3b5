//! The head of a request, the upgrade, and cookies.

use ringcast::internals::auth::CredentialFields;
use ringcast::internals::client::ambient::Trust;
use ringcast::internals::http::cookie::{self, SetCookie};
use ringcast::internals::http::login_pages::{LoginPages, Page, Step};
use ringcast::internals::http::request::{self, Request};
use ringcast::internals::http::site::is_endpoint;
use ringcast::internals::websocket::handshake;

const HEAD_BYTES_MAX: usize = 4096;

/// A head is read the same wherever it is cut, and no part of it can add a line to the answer.
pub fn head(data: &[u8]) {
    let length_of = |data| request::parse(data, HEAD_BYTES_MAX).map(|found| found.map(|(_, length)| length));
    let whole = length_of(data);
    // All cuts of short heads; of long ones, some.
    for cut in (0..data.len()).step_by(1 + data.len() / 256) {
        let part = length_of(&data[..cut]);
        assert!(
            part == Ok(None) || part == whole,
            "{part:?} of {whole:?} at {cut}"
        );
    }
    let Ok(Some((request, length))) = request::parse(data, HEAD_BYTES_MAX) else {
        if let Err(refusal) = request::parse(data, HEAD_BYTES_MAX) {
            check_answer(|out| refusal.write(out));
        }
        return;
    };
    assert!(length <= data.len().min(HEAD_BYTES_MAX));
    assert!(data[..length].ends_with(b"\r\n\r\n"));
    check_host(&request);
    check_headers(&request);
    match handshake::upgrade(&request, "/socketcluster/") {
        Ok(upgrade) => {
            assert!(request.offers_websocket() && request.method() == "GET" && !request.has_body());
            assert!(is_endpoint("/socketcluster/", request.path()));
            check_answer(|out| upgrade.write(out));
        }
        Err(refusal) => check_answer(|out| refusal.write(out)),
    }
    let account = LoginPages::new("/login", CredentialFields::default(), 1000);
    for page in [Page::Login, Page::Logout, Page::Whoami] {
        match account.step(page, &request, &data[length..], Trust::Own, "token") {
            Step::Answer(answer) => check_answer(|out| answer.write(out)),
            Step::LogIn(credentials) => {
                assert!(credentials.user.len() + credentials.password.expose().len() <= 1000)
            }
            Step::Incomplete { .. } => assert_eq!((page, request.method()), (Page::Login, "POST")),
            Step::Show(_) | Step::LogOut => {}
        }
    }
}

/// A head has exactly one host, which is unambiguous, and none only where HTTP has none.
fn check_host(request: &Request<'_>) {
    let named = request.header_values("host").count();
    assert!(named <= 1);
    match request.host() {
        Some(host) => assert!(!host.is_empty() && !host.iter().any(|byte| b" \t,/\\@?#".contains(byte))),
        None => assert_eq!(named, 0),
    }
}

/// A look-up of a header by its name finds its value.
fn check_headers(request: &Request<'_>) {
    for (name, value) in request.headers().take(50) {
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!value.contains(&b'\n') && !value.contains(&b'\r') && !value.contains(&0));
        let named = |other: &str| other.eq_ignore_ascii_case(name);
        let all: Vec<&[u8]> = request
            .headers()
            .filter(|(name, _)| named(name))
            .map(|(_, value)| value)
            .collect();
        assert_eq!(request.header_values(name).collect::<Vec<_>>(), all);
        assert_eq!(request.single_header(name).is_some(), all.len() == 1);
        assert!(request.joined_header(name).is_some());
    }
}

/// One head, whose lines all end as lines do.
fn check_answer(write: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    write(&mut out);
    assert!(out.starts_with(b"HTTP/1.1 "));
    let end = out
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("a head ends")
        + 4;
    let mut headers = [httparse::EMPTY_HEADER; 20];
    let mut response = httparse::Response::new(&mut headers);
    assert_eq!(response.parse(&out), Ok(httparse::Status::Complete(end)));
    for byte in [b'\r', b'\n'] {
        let lines = out[..end].iter().filter(|other| **other == byte).count();
        assert_eq!(lines, 2 + response.headers.len(), "{out:?}");
    }
}

/// A cookie that is found is the only one of its name, and a cookie that is set is found again.
pub fn cookie(data: &[u8]) {
    let is_line = |byte: u8| (b' '..=b'~').contains(&byte) || byte >= 0x80 || byte == b'\t';
    let lines: Vec<Vec<u8>> = data
        .split(|&byte| byte == b'\n')
        .take(10)
        .map(|line| line.iter().copied().filter(|byte| is_line(*byte)).collect())
        .collect();
    let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for line in &lines {
        head.extend_from_slice(b"Cookie: ");
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let Ok(Some((request, _))) = request::parse(&head, 1 << 20) else {
        return;
    };
    // By hand: each pair, the spaces and quotes around its value left out.
    let mut values: Vec<Vec<u8>> = Vec::new();
    for pair in lines.iter().flat_map(|line| line.split(|&byte| byte == b';')) {
        let mut sides = pair.splitn(2, |&byte| byte == b'=');
        let (Some(name), Some(value)) = (sides.next(), sides.next()) else {
            continue;
        };
        let value = value.trim_ascii();
        if name.trim_ascii() == b"token" {
            values.push(match value {
                [b'"', inner @ .., b'"'] => inner.to_vec(),
                value => value.to_vec(),
            });
        }
    }
    let found = cookie::find(&request, "token").and_then(|cookie| cookie.value_for(Trust::Own));
    match values.first() {
        Some(first) if values.iter().all(|value| value == first) => {
            assert_eq!(found, std::str::from_utf8(first).ok());
        }
        _ => assert_eq!(found, None),
    }
    let Some(value) = found.filter(|value| value.bytes().all(|byte| byte.is_ascii_alphanumeric())) else {
        return;
    };
    let mut set = Vec::new();
    SetCookie {
        name: "token",
        value,
        max_age_seconds: 60,
        secure: true,
    }
    .write(&mut set);
    let set = String::from_utf8(set).expect("what is set is text");
    let pair = set
        .strip_prefix("Set-Cookie: ")
        .and_then(|rest| rest.split_once(';'));
    let (pair, _) = pair.expect("a pair and its attributes");
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: {pair}\r\n\r\n");
    let (request, _) = request::parse(head.as_bytes(), 1 << 20)
        .expect("a request")
        .expect("a whole one");
    let found = cookie::find(&request, "token").and_then(|cookie| cookie.value_for(Trust::Own));
    assert_eq!(found, Some(value));
}
