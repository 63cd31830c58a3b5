//! Tests of the pages for users: the next step for each request, and the bytes of the answers.

use super::*;
use crate::client::ambient::Trust;
use crate::http::request;

fn pages(login_path: &str) -> LoginPages {
    LoginPages::new(login_path, CredentialFields::default(), 40)
}

/// A short form of the next step for a request.
fn step(text: &str, is_trusted: bool) -> String {
    let (request, consumed) = request::parse(text.as_bytes(), 1024).unwrap().unwrap();
    let pages = pages("/login");
    let page = pages.page(request.path()).unwrap();
    let body = &text.as_bytes()[consumed..];
    let trust = if is_trusted { Trust::Own } else { Trust::Foreign };
    match pages.step(page, &request, body, trust, "token") {
        Step::Incomplete { send_continue } => format!("incomplete {send_continue}"),
        Step::Answer(answer) => {
            let mut out = Vec::new();
            answer.write(&mut out);
            String::from_utf8(out).unwrap()[9..12].to_owned()
        }
        Step::LogIn(Credentials { user, password }) => {
            format!("log in {user} {}", str::from_utf8(password.expose()).unwrap())
        }
        Step::LogOut => "log out".to_owned(),
        Step::Show(token) => format!("show {token}"),
    }
}

fn post(headers: &str, body: &str) -> String {
    step(
        &format!("POST /login HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}"),
        true,
    )
}

const JSON: &str = r#"{"email":"aaa@bbb.com","pw":"cccc"}"#;

#[test]
fn logout_and_whoami_are_beside_the_login_path() {
    for (login_path, logout, whoami) in [
        ("/login", "/logout", "/whoami"),
        ("/a/b", "/a/logout", "/a/whoami"),
        ("/a/", "/a/logout", "/a/whoami"),
    ] {
        let pages = pages(login_path);
        let paths = [login_path, logout, whoami].map(|path| path.trim_end_matches('/'));
        for end in ["", "/"] {
            let pages = paths.map(|path| pages.page(&format!("{path}{end}")));
            assert_eq!(pages, [Some(Page::Login), Some(Page::Logout), Some(Page::Whoami)]);
        }
        for other in ["/", "/Login", "/login//", "/x/login", "", "/a/whoami//", "*"] {
            assert_eq!(pages.page(other), None, "{other}");
        }
    }
}

#[test]
fn a_body_is_json_or_a_form_or_json_declared_as_a_form() {
    let length = JSON.len();
    for kind in [
        "",
        "Content-Type: application/json\r\n",
        "content-type: Application/JSON; charset=utf-8\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
    ] {
        let headers = format!("{kind}Content-Length: {length}\r\n");
        assert_eq!(post(&headers, JSON), "log in aaa@bbb.com cccc", "{kind}");
        // Bytes after the body are not part of it.
        assert_eq!(post(&headers, &format!("{JSON}GET")), "log in aaa@bbb.com cccc");
    }
    let form = "user=a%40b&password=c+d";
    let headers = format!("Content-Length: {}\r\n", form.len());
    assert_eq!(post(&headers, form), "log in a@b c d");
    assert_eq!(
        post(&format!("{headers}Content-Type: application/json\r\n"), form),
        "400"
    );
    for kind in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "",
    ] {
        assert_eq!(
            post(&format!("{headers}Content-Type: {kind}\r\n"), form),
            "415",
            "{kind}"
        );
    }
    assert_eq!(post("Content-Length: 0\r\n", ""), "400");
}

#[test]
fn the_limit_of_a_body_is_exact_and_its_length_is_announced() {
    let body = |length: usize| format!("user=a&pw={}", "x".repeat(length - 10));
    let headers = |length: usize| format!("Content-Length: {length}\r\n");
    assert!(post(&headers(40), &body(40)).starts_with("log in a x"));
    assert_eq!(post(&headers(41), ""), "413");
    assert_eq!(post("Content-Length: 99999999999999999999999999\r\n", ""), "413");
    assert_eq!(post("", JSON), "411");
}

#[test]
fn a_body_may_come_in_chunks() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let (first, second) = JSON.split_at(7);
    let chunks = format!(
        "7;a=b\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\nX: y\r\n\r\n",
        second.len()
    );
    assert_eq!(post(chunked, &chunks), "log in aaa@bbb.com cccc");
    assert_eq!(
        post(chunked, &format!("{chunks}GET /")),
        "log in aaa@bbb.com cccc"
    );
    for cut in 0..chunks.len() {
        assert_eq!(post(chunked, &chunks[..cut]), "incomplete false", "cut at {cut}");
    }
    let expecting = format!("{chunked}Expect: 100-continue\r\n");
    assert_eq!(post(&expecting, ""), "incomplete true");
    assert_eq!(post(&expecting, "7"), "incomplete false");
    assert_eq!(post(chunked, "0\r\n\r\n"), "400");
    assert_eq!(post(chunked, "29\r\n"), "413");
    assert_eq!(post(chunked, "7\r\nsecretly\r\n"), "400");
    assert_eq!(post(chunked, "x"), "incomplete false");
    assert_eq!(post(chunked, "x\r\n"), "400");
}

#[test]
fn a_body_may_be_cut_anywhere_and_100_continue_is_sent_once() {
    let headers = format!("Content-Length: {}\r\n", JSON.len());
    for cut in 0..JSON.len() {
        assert_eq!(post(&headers, &JSON[..cut]), "incomplete false", "cut at {cut}");
    }
    let headers = format!("{headers}Expect: 100-Continue\r\n");
    assert_eq!(post(&headers, ""), "incomplete true");
    assert_eq!(post(&headers, "{"), "incomplete false");
    assert_eq!(post("Content-Length: 41\r\nExpect: 100-continue\r\n", ""), "413");
}

#[test]
fn pages_accept_only_their_own_methods_and_no_posts_of_other_sites() {
    let ask = |method: &str, path: &str, trusted: bool| {
        step(
            &format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"),
            trusted,
        )
    };
    for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
        assert_eq!(ask(method, "/login", true), "405", "{method}");
        assert_eq!(ask(method, "/logout", true), "405", "{method}");
    }
    assert_eq!(ask("POST", "/whoami", true), "405");
    assert_eq!(ask("POST", "/logout?a=b", true), "log out");
    assert_eq!(ask("POST", "/login", false), "403");
    assert_eq!(ask("POST", "/logout", false), "403");
}

#[test]
fn a_token_is_shown_from_the_header_or_from_a_trusted_cookie() {
    let ask = |headers: &str, trusted: bool| {
        step(
            &format!("GET /whoami HTTP/1.1\r\nHost: h\r\n{headers}\r\n"),
            trusted,
        )
    };
    assert_eq!(ask("Cookie: token=x\r\n", true), "show x");
    assert_eq!(ask("Cookie: token=x\r\n", false), "401");
    assert_eq!(
        ask("Authorization: bearer  y\r\nCookie: token=x\r\n", false),
        "show y"
    );
    for headers in [
        "",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer x\r\nAuthorization: Bearer y\r\n",
    ] {
        assert_eq!(ask(headers, true), "401", "{headers}");
    }
}

#[test]
fn answers_are_not_cached_and_their_lengths_are_right() {
    let cookie = SetCookie {
        name: "token",
        value: "a.b.c",
        max_age_seconds: 5,
        secure: true,
    };
    let answers = [
        PageAnswer::LoggedIn(cookie),
        PageAnswer::LoggedOut(SetCookie {
            value: "",
            max_age_seconds: 0,
            ..cookie
        }),
        PageAnswer::Claims {
            json: "{}",
            head_only: false,
        },
        PageAnswer::Unauthorized { head_only: false },
        PageAnswer::TooSoon {
            retry_after_seconds: 7,
        },
        PageAnswer::Busy,
        PageAnswer::Unsigned,
        PageAnswer::NoCredentials,
        PageAnswer::OtherSite,
        PageAnswer::Method("POST"),
        PageAnswer::LengthRequired,
        PageAnswer::Chunks,
        PageAnswer::TooLarge,
        PageAnswer::MediaType,
    ];
    let mut statuses = String::new();
    for answer in answers {
        let mut out = Vec::new();
        answer.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(!head.contains("Access-Control"), "{head}");
        let announced = head.split_once("Content-Length: ").map(|(_, length)| length);
        let length = body.len().to_string();
        assert_eq!(announced, (&head[9..12] != "204").then_some(&*length), "{head}");
        if !body.is_empty() {
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
        }
        statuses.push_str(&head[9..13]);
    }
    assert_eq!(
        statuses,
        "200 204 200 401 429 503 500 400 403 405 411 400 413 415 "
    );
}
