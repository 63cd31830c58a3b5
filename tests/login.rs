//! Logging in over HTTP and by a call; cookies on upgrades; and servers that serve only authenticated
//! clients.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::Command;

use nix::sys::signal::Signal;
use ringcast::config::{Anonymous, Config, Protocol};
use ringcast::internals::auth::passwords::{PasswordFile, PasswordHash};
use ringcast::internals::decision::{CloseReason, Limit};
use ringcast::server::Selection;
use support::folder::Folder;
use support::process::{Held, Process};
use support::{Client, Server, UPGRADE, ask, eventually, frame, status};

/// A server with one user and a high limit on failures.
fn start(folder: &Folder, change: impl FnOnce(&mut Config)) -> Server {
    Server::with_user(folder, ("aaa@bbb.com", "cccc"), change)
}

/// Sends a request in two pieces and reads the whole answer.
fn ask_in_two(address: SocketAddr, request: &str, cut: usize) -> String {
    let mut client = Client::connect(address);
    let (first, second) = request.as_bytes().split_at(cut);
    client.send_bytes(first);
    client.send_bytes(second);
    client.rest()
}

const JSON: &str = r#"{"email":"aaa@bbb.com","pw":"cccc"}"#;

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Logs in and returns the token.
fn token(address: SocketAddr) -> String {
    let answer = ask(address, &post("/login", "", JSON));
    assert_eq!(status(&answer), "200", "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

/// True if a socket that was opened with these header lines is authenticated.
fn is_authenticated(server: &Server, headers: &str) -> bool {
    let mut client = server.connect();
    open_socket(&mut client, headers);
    client.begin_call("#handshake", r#"{"authToken":null}"#);
    let answer = client.message();
    assert!(answer.starts_with(r#"{"rid":1,"data":{"id":""#), "{answer}");
    answer.contains(r#""isAuthenticated":true"#)
}

fn open_socket(client: &mut Client, headers: &str) {
    let request = UPGRADE.replace("Host: test\r\n", &format!("{headers}\r\n"));
    client.send_bytes(request.as_bytes());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_logs_in_asks_who_it_is_and_logs_out() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let at = |page: &str| format!("http://{}/{page}", server.address);
    let jar = folder.file("jar");
    let jar = jar.to_str().unwrap();

    let answer = curl(&["--cookie-jar", jar, "-d", JSON, &at("login")]);
    assert!(answer.starts_with(r#"{"token":"ey"#), "{answer}");
    let claims: serde_json::Value = serde_json::from_str(&curl(&["--cookie", jar, &at("whoami")])).unwrap();
    assert_eq!(claims["sub"], "aaa@bbb.com");
    assert!(claims["exp"].as_u64() > claims["iat"].as_u64());

    let jar_text = fs::read_to_string(jar).unwrap();
    let line = jar_text
        .lines()
        .find(|line| line.starts_with("#HttpOnly_"))
        .unwrap();
    let token = line.split('\t').next_back().unwrap();
    let cookie = format!("Cookie: ringcast={token}");
    assert!(is_authenticated(&server, &format!("Host: test\r\n{cookie}")));
    assert!(answer.contains(token));

    curl(&["--cookie", jar, "--cookie-jar", jar, "-X", "POST", &at("logout")]);
    assert!(!fs::read_to_string(jar).unwrap().contains(token));
    let answer = curl(&["--cookie", jar, "--write-out", "%{http_code}", &at("whoami")]);
    assert_eq!(answer, r#"{"error":"Unauthorized"}401"#);

    // As a form, as JSON, and with a header instead of the cookie.
    let form = curl(&["-d", "user=aaa%40bbb.com", "-d", "password=cccc", &at("login")]);
    assert!(form.starts_with(r#"{"token":"#), "{form}");
    let json = curl(&["-H", "Content-Type: application/json", "-d", JSON, &at("login")]);
    assert!(json.starts_with(r#"{"token":"#), "{json}");
    let bearer = format!("Authorization: Bearer {token}");
    assert!(curl(&["-H", &bearer, &at("whoami")]).contains(r#""sub":"aaa@bbb.com""#));
}

/// A token could be read by the scripts of the page, and used after the logout.
#[test]
fn no_token_is_made_of_a_cookie_and_tokens_of_clients_are_refreshed() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let token = token(server.address);
    let mut client = server.connect();
    open_socket(&mut client, &format!("Host: test\r\nCookie: ringcast={token}"));
    client.begin_call("#handshake", r#"{"authToken":null}"#);
    let answer = client.message();
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
    let refresh = || {
        server
            .running()
            .handle()
            .refresh_token(&Selection::All, None)
            .wait()
    };
    assert_eq!(refresh(), Ok(0));
    let answer = client.call("#authenticate", &format!("\"{token}\""));
    assert!(answer.contains(r#""isAuthenticated":true"#), "{answer}");
    assert_eq!(refresh(), Ok(1));
    let given = client.message();
    assert!(given.contains("#setAuthToken"), "{given}");
}

#[test]
fn a_good_login_sets_a_cookie_that_scripts_cannot_read() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.login.cookie = "__Host-token".to_owned();
        config.login.path = "/users/in".to_owned();
        config.auth.default_expiry = std::time::Duration::from_secs(77);
    });
    let answer = ask(server.address, &post("/users/in", "", JSON));
    let cookie = header(&answer, "Set-Cookie").unwrap();
    assert!(cookie.starts_with("__Host-token=ey"), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; Max-Age=77; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    assert_eq!(header(&answer, "Cache-Control"), Some("no-store"));
    assert_eq!(status(&ask(server.address, &post("/login", "", JSON))), "501");

    // A page loaded over HTTPS reaches this port through a proxy that ends TLS.
    let headers = "Host: test\r\nOrigin: https://test\r\n";
    let request = post("/users/in", "", JSON).replace("Host: test\r\n", headers);
    let answer = ask(server.address, &request);
    assert!(
        header(&answer, "Set-Cookie")
            .unwrap()
            .ends_with("; SameSite=Lax; Secure")
    );
    let answer = ask(server.address, &post("/users/logout", "", ""));
    assert_eq!(status(&answer), "204");
    let cookie = header(&answer, "Set-Cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-token=; Path=/; Max-Age=0;"),
        "{cookie}"
    );
}

#[test]
fn a_login_may_come_in_pieces_cut_anywhere() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let request = post("/login", "", JSON);
    for cut in 0..=request.len() {
        let answer = ask_in_two(server.address, &request, cut);
        assert_eq!(status(&answer), "200", "cut at {cut}: {answer}");
    }
    let mut client = server.connect();
    for byte in request.as_bytes() {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(status(&client.rest()), "200");
    // A client that closes its sending side still gets the answer, and then the connection ends.
    let mut client = server.connect();
    client.send_bytes(request.as_bytes());
    client.send_fin();
    assert_eq!(status(&client.rest()), "200");
    server.settles_at(0, 0);
    // Half a body is not a request.
    let mut client = server.connect();
    client.send_bytes(&request.as_bytes()[..request.len() - 1]);
    client.send_fin();
    assert_eq!(status(&client.rest()), "400");
}

#[test]
fn an_unknown_user_and_a_wrong_password_get_the_same_bytes() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let wrong = ask(server.address, &post("/login", "", &JSON.replace("cccc", "dddd")));
    let unknown = ask(server.address, &post("/login", "", &JSON.replace("aaa", "eee")));
    let empty = ask(server.address, &post("/login", "", r#"{"user":"","pw":""}"#));
    assert_eq!(status(&wrong), "401");
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, empty);
    assert_eq!(header(&wrong, "Set-Cookie"), None);
}

#[test]
fn a_faulty_login_gets_an_error_that_names_the_fault() {
    let folder = Folder::new();
    let server = start(&folder, |config| config.limits.login_body_bytes_max = 64);
    let padded = |length: usize| {
        let rest = length - JSON.len();
        format!("{JSON}{}", " ".repeat(rest))
    };
    let chunked = "POST /login HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (request, expected) in [
        (post("/login", "", &padded(64)), "200"),
        (post("/login", "", &padded(65)), "413"),
        (post("/login", "", "{}"), "400"),
        (post("/login", "", ""), "400"),
        (post("/login", "Content-Type: text/plain\r\n", JSON), "415"),
        (chunked.to_owned(), "400"),
        ("GET /login HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "405"),
        ("HEAD /login HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "405"),
        ("GET /whoami HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "401"),
        (
            "POST /login HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "400",
        ),
        (post("/login", "Content-Length: 3\r\n", JSON), "400"),
    ] {
        let answer = ask(server.address, &request);
        assert_eq!(status(&answer), expected, "{request}: {answer}");
        assert_eq!(header(&answer, "Set-Cookie").is_some(), expected == "200");
        assert_eq!(header(&answer, "Allow").is_some(), expected == "405");
    }
    assert_eq!(server.limit_hits(Limit::LoginBodyBytes), 1);
    assert!(server.closes(CloseReason::HttpAnswered) >= 11);
}

#[test]
fn a_client_that_expects_100_continue_gets_it_once() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let request = post("/login", "Expect: 100-continue\r\n", JSON);
    let (head, body) = request.split_at(request.len() - JSON.len());
    let mut client = server.connect();
    client.send_bytes(head.as_bytes());
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send_bytes(body.as_bytes());
    assert_eq!(status(&client.rest()), "200");
}

#[test]
fn without_a_password_file_and_on_other_paths_nothing_changes() {
    let folder = Folder::new();
    let (plain, with_users) = (Server::start(|_| {}), start(&folder, |_| {}));
    let before = "HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nNot Implemented";
    for request in [
        post("/login", "", JSON),
        post("/logout", "", ""),
        post("/x", "", ""),
    ] {
        assert_eq!(ask(plain.address, &request), before);
    }
    for path in [
        "/",
        "/login//",
        "/LOGIN",
        "//login",
        "/socketcluster/",
        "/x/whoami",
        "/%6cogin",
    ] {
        assert_eq!(ask(with_users.address, &post(path, "", JSON)), before, "{path}");
    }
    // The event then goes to the application, which does not know it.
    let mut client = plain.client();
    client.begin_call("login", JSON);
    client.ping();
}

#[test]
fn after_too_many_failures_the_answer_tells_how_long_to_wait() {
    let folder = Folder::new();
    let server = start(&folder, |config| config.limits.login_failures_max = 1);
    let wrong = post("/login", "", &JSON.replace("cccc", "dddd"));
    let mut answer = ask(server.address, &wrong);
    assert_eq!(status(&answer), "401");
    eventually("patience ends", || {
        answer = ask(server.address, &wrong);
        status(&answer) == "429"
    });
    assert!(header(&answer, "Retry-After").unwrap().parse::<u32>().unwrap() >= 1);
    let mut client = server.client();
    let refused = client.call("login", JSON);
    assert!(
        refused.contains("LoginTooSoonError") && refused.contains("retryAfter"),
        "{refused}"
    );
}

#[test]
fn when_the_queue_is_full_one_login_is_refused_and_a_disconnected_client_does_no_harm() {
    let folder = Folder::new();
    // Slow enough that all have come before the first is done.
    let file = folder.write_user("aaa@bbb.com", "cccc", 200_000);
    let server = Server::start(|config| {
        config.login.password_file = Some(file);
        config.limits.logins_waiting_max = 1;
    });
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send_bytes(post("/login", "", JSON).as_bytes());
    }
    let gone = clients.remove(0);
    drop(gone);
    let answers: Vec<String> = clients.iter_mut().map(Client::rest).collect();
    let busy = answers.iter().filter(|answer| status(answer) == "503").count();
    assert!(busy > 0, "{answers:?}");
    for answer in &answers {
        match status(answer) {
            "200" => {}
            "503" => assert_eq!(header(answer, "Retry-After"), Some("1")),
            other => panic!("{other}: {answer}"),
        }
    }
    drop(clients);
    server.settles_at(0, 0);
}

#[test]
fn a_page_of_another_site_can_neither_log_in_nor_out() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.listen.allowed_origins =
            "https://app.example null https://*.pages.example http://test https://test"
                .parse()
                .unwrap();
        config.listen.origins = "*:*".to_owned();
    });
    let token = token(server.address);
    for (origin, is_trusted) in ORIGINS {
        let headers = format!("Origin: {origin}\r\nCookie: ringcast={token}\r\n");
        let answer = ask(server.address, &post("/login", &headers, JSON));
        assert_eq!(
            status(&answer),
            if is_trusted { "200" } else { "403" },
            "{origin}"
        );
        assert_eq!(header(&answer, "Set-Cookie").is_some(), is_trusted, "{origin}");
        assert!(!answer.contains("Access-Control"));
        let answer = ask(server.address, &post("/logout", &headers, ""));
        assert_eq!(
            status(&answer),
            if is_trusted { "204" } else { "403" },
            "{origin}"
        );
        let request = format!("GET /whoami HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
        let answer = ask(server.address, &request);
        assert_eq!(
            status(&answer),
            if is_trusted { "200" } else { "401" },
            "{origin}"
        );
    }
}

#[test]
fn a_program_without_an_origin_may_log_in_although_origins_are_listed() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.listen.origins = "app.example:443".to_owned()
    });
    for (headers, wanted) in [
        ("", "200"),
        ("Origin: https://app.example\r\n", "200"),
        ("Origin: https://evil.example\r\n", "403"),
    ] {
        let answer = ask(server.address, &post("/login", headers, JSON));
        assert_eq!(status(&answer), wanted, "{headers}");
    }
}

/// Origins of requests to `Host: test`, with `https://app.example`, `null` and `https://*.pages.example`
/// listed, and whether their cookies count.
const ORIGINS: [(&str, bool); 18] = [
    ("http://test", true),
    ("https://test", true),
    ("http://test:80", true),
    ("https://app.example", true),
    ("https://a.pages.example", true),
    ("http://test:8000", false),
    ("http://test.", false),
    ("http://sub.test", false),
    ("http://test.evil.example", false),
    ("http://eviltest", false),
    ("http://evil.example", false),
    ("http://app.example", false),
    ("https://app.example:8443", false),
    ("https://app.example.evil.example", false),
    ("https://a.b.pages.example", false),
    ("null", false),
    ("http://test, http://evil.example", false),
    ("ws://test", false),
];

#[test]
fn a_cookie_counts_on_upgrade_only_for_trusted_pages() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let token = token(server.address);
    let cookie = format!("Host: test\r\nCookie: ringcast={token}");
    assert!(is_authenticated(&server, &cookie));
    for (origin, is_trusted) in ORIGINS {
        // Here no origin is listed, and all may connect.
        let is_trusted = is_trusted && origin.contains("test");
        let headers = format!("{cookie}\r\nOrigin: {origin}");
        assert_eq!(is_authenticated(&server, &headers), is_trusted, "{origin}");
    }
    // Two origins count as none.
    for lines in [
        "Origin: http://test\r\nOrigin: http://evil.example",
        "Origin: http://test\r\nOrigin: http://test",
    ] {
        assert!(
            !is_authenticated(&server, &format!("{cookie}\r\n{lines}")),
            "{lines}"
        );
    }
}

/// Version 8 names the origin in a header of its own, which a proxy in front may not know.
#[test]
fn every_header_with_an_origin_is_checked_in_every_version() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let cookie = format!("Host: test\r\nCookie: ringcast={}", token(server.address));
    let strict = start(&folder, |config| {
        config.listen.allowed_origins = "http://test".parse().unwrap();
    });
    let (own, evil) = ("http://test", "http://evil.example");
    for version in ["13", "8"] {
        for (origin, draft, is_own) in [
            (Some(own), None, true),
            (None, Some(own), true),
            (Some(own), Some(own), true),
            (Some(evil), None, false),
            (None, Some(evil), false),
            (Some(own), Some(evil), false),
            (Some(evil), Some(own), false),
            (Some("null"), Some(own), false),
        ] {
            let line = |name: &str, value: Option<&str>| {
                value.map_or_else(String::new, |value| format!("{name}: {value}\r\n"))
            };
            let lines = format!(
                "{}{}",
                line("Origin", origin),
                line("Sec-WebSocket-Origin", draft)
            );
            let mut client = server.connect();
            let upgrade = UPGRADE.replace("Version: 13", &format!("Version: {version}"));
            let request = upgrade.replace("Host: test\r\n", &format!("{cookie}\r\n{lines}"));
            client.send_bytes(request.as_bytes());
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            client.begin_call("#handshake", r#"{"authToken":null}"#);
            let authenticated = client.message().contains(r#""isAuthenticated":true"#);
            assert_eq!(authenticated, is_own, "version {version}, {lines}");

            let request = upgrade.replace("Host: test\r\n", &format!("Host: test\r\n{lines}"));
            let mut client = strict.connect();
            client.send_bytes(request.as_bytes());
            let head = client.read_head();
            assert_eq!(
                head.starts_with("HTTP/1.1 101 "),
                is_own,
                "version {version}, {lines}: {head}"
            );
        }
    }
}

#[test]
fn a_request_without_an_origin_is_foreign_if_its_browser_reports_another_site() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let token = token(server.address);
    for (site, is_own) in [
        ("", true),
        ("Sec-Fetch-Site: none\r\n", true),
        ("Sec-Fetch-Site: same-origin\r\n", true),
        ("Sec-Fetch-Site: same-site\r\n", false),
        ("Sec-Fetch-Site: cross-site\r\n", false),
        ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", false),
    ] {
        let headers = format!("{site}Cookie: ringcast={token}\r\n");
        let whoami = ask(
            server.address,
            &format!("GET /whoami HTTP/1.1\r\nHost: test\r\n{headers}\r\n"),
        );
        assert_eq!(status(&whoami), if is_own { "200" } else { "401" }, "{site}");
        for (path, body, good) in [("/login", JSON, "200"), ("/logout", "", "204")] {
            let answer = ask(server.address, &post(path, &headers, body));
            assert_eq!(
                status(&answer),
                if is_own { good } else { "403" },
                "{path} {site}"
            );
        }
        let lines = format!("Host: test\r\n{}", headers.trim_end());
        assert_eq!(is_authenticated(&server, &lines), is_own, "{site}");
    }
}

#[test]
fn cookies_of_listed_origins_count() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.listen.origins = "app.example:443 ample.org:* *:8080 null:80 test:80".to_owned();
    });
    let token = token(server.address);
    for (origin, counts) in [
        ("https://app.example", true),
        ("https://ample.org:99", true),
        // The reference's option allows these, since it searches for substrings.
        ("http://evil.example:8080", false),
        ("https://p.example", false),
    ] {
        let headers = format!("Host: test\r\nCookie: ringcast={token}\r\nOrigin: {origin}");
        assert_eq!(is_authenticated(&server, &headers), counts, "{origin}");
    }
}

#[test]
fn a_bad_cookie_counts_as_none() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let good = token(server.address);
    let expired = {
        let short = start(&folder, |config| {
            config.auth.default_expiry = std::time::Duration::from_secs(1);
        });
        token(short.address)
    };
    for cookie in [
        "ringcast=".to_owned(),
        "ringcast=x.y.z".to_owned(),
        format!("ringcast={good}x"),
        format!("Ringcast={good}"),
        // Signed with another server's key, or expired.
        format!("ringcast={expired}"),
        // A second cookie has been planted.
        format!("ringcast={good}; ringcast=x"),
        format!("ringcast=x; ringcast={good}"),
    ] {
        let headers = format!("Host: test\r\nCookie: {cookie}");
        assert!(!is_authenticated(&server, &headers), "{cookie}");
        let whoami = ask(
            server.address,
            &format!("GET /whoami HTTP/1.1\r\n{headers}\r\n\r\n"),
        );
        assert_eq!(status(&whoami), "401", "{cookie}");
    }
    let headers = format!("Host: test\r\nCookie: a=b; ringcast=\"{good}\"; c");
    assert!(is_authenticated(&server, &headers));
}

#[test]
fn a_call_logs_in_and_the_token_follows_the_answer() {
    let folder = Folder::new();
    let server = start(&folder, |_| {});
    let mut client = server.client();
    let answer = client.call("login", r#"{"user":"aaa@bbb.com","password":"dddd"}"#);
    assert!(answer.contains("InvalidCredentialsError"), "{answer}");
    let cid = client.begin_call("login", r#"{"user":"aaa@bbb.com","password":"cccc"}"#);
    assert_eq!(client.message(), format!(r#"{{"rid":{cid}}}"#));
    let token = client.message();
    let token = token
        .strip_prefix(r##"{"event":"#setAuthToken","data":{"token":""##)
        .unwrap()
        .strip_suffix(r#""}}"#)
        .unwrap();
    let headers = format!("Host: test\r\nAuthorization: Bearer {token}\r\n");
    let whoami = ask(server.address, &format!("GET /whoami HTTP/1.1\r\n{headers}\r\n"));
    assert!(whoami.contains(r#""sub":"aaa@bbb.com""#), "{whoami}");
    client.ping();
}

#[test]
fn of_many_logins_on_one_connection_only_one_is_checked() {
    let folder = Folder::new();
    let file = folder.write_user("aaa@bbb.com", "cccc", 100_000);
    let server = Server::start(|config| config.login.password_file = Some(file));
    let mut client = server.client();
    let mut flood = Vec::new();
    for cid in 10..30 {
        let call = format!(r#"{{"event":"login","data":{JSON},"cid":{cid}}}"#);
        flood.extend(frame(support::TEXT, call.as_bytes()));
    }
    client.send_bytes(&flood);
    let answers: Vec<String> = (0..21).map(|_| client.message()).collect();
    let refused = answers
        .iter()
        .filter(|answer| answer.contains("InvalidActionError"));
    assert_eq!(refused.count(), 19);
    assert_eq!(answers[19], r#"{"rid":10}"#);
    assert_eq!(server.limit_hits(Limit::LoginsPerConnection), 19);
    // A client that disconnects in the middle does no harm.
    client.begin_call("login", JSON);
    drop(client);
    server.settles_at(0, 0);
    server.client().ping();
}

#[test]
fn a_login_against_users_that_were_replaced_meanwhile_is_refused() {
    let folder = Folder::new();
    let file = folder.write_user("aaa@bbb.com", "cccc", 101);
    let process = Process::start(&[
        ("RINGCAST_PASSWORD_FILE", file.to_str().unwrap()),
        ("RINGCAST_LOGIN_THREADS", "1"),
    ]);
    let mut client = process.client();
    let password_checks = Held::thread(process.pid(), "login 0");
    let cid = client.begin_call("login", JSON);
    // The core has taken the call too.
    client.ping();
    process.signal(Signal::SIGHUP);
    process.logged("SIGHUP: reloaded");
    drop(password_checks);
    let answer = client.message();
    assert!(
        answer.starts_with(&format!(r#"{{"rid":{cid},"error""#)) && answer.contains("LoginTooSoonError"),
        "{answer}"
    );
    client.begin_call("login", JSON);
    client.message();
    assert!(client.message().contains("#setAuthToken"));
}

#[test]
fn if_only_authenticated_clients_are_served_others_can_only_log_in() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let folder = Folder::new();
        let server = start(&folder, |config| {
            config.permissions.allow_anonymous = Anonymous::Off;
            config.socketcluster.protocol = protocol;
        });
        let mut client = server.client();
        for (event, data) in [
            ("#subscribe", r#"{"channel":"c"}"#),
            ("#publish", r#"{"channel":"c","data":1}"#),
            ("#unsubscribe", r#""c""#),
            ("ping", "null"),
        ] {
            let answer = client.call(event, data);
            assert!(answer.contains(r#""name":"AuthError""#), "{event}: {answer}");
        }
        client.publish("c", "1");
        assert_eq!(server.total(|core| &core.publications), 0);
        assert!(server.limit_hits(Limit::Anonymous) >= 4);

        let cid = client.begin_call("login", JSON);
        assert_eq!(client.message(), format!(r#"{{"rid":{cid}}}"#));
        assert!(client.message().contains("#setAuthToken"));
        client.subscribe("c");
        client.publish("c", "2");
        assert_eq!(client.publication("c"), "2");

        // Authenticated by the cookie of an upgrade in the same way.
        let token = token(server.address);
        let mut other = server.connect();
        open_socket(&mut other, &format!("Host: test\r\nCookie: ringcast={token}"));
        other.handshake();
        other.ping();

        // A client that gives up its token loses its channels.
        client.send_text(r##"{"event":"#removeAuthToken"}"##);
        let kicked = client.message();
        assert!(
            kicked.starts_with(r##"{"event":"#kickOut","data":{"channel":"c""##),
            "{kicked}"
        );
        server.settles_at(2, 0);
    }
}

#[test]
fn a_client_that_never_authenticates_is_closed() {
    let server = Server::start(|config| {
        config.permissions.allow_anonymous = Anonymous::Off;
        config.limits.authentication_timeout = std::time::Duration::from_millis(200);
    });
    let mut client = server.client();
    assert_eq!(client.close_frame().0, Some(4031));
    assert_eq!(server.closes(CloseReason::AuthenticationTimeout), 1);
    assert_eq!(server.limit_hits(Limit::AuthenticationTime), 1);
}

#[test]
fn a_trusted_proxy_tells_whether_the_client_used_https() {
    let folder = Folder::new();
    for (trusted, header_lines, is_secure) in [
        ("127.0.0.1", "X-Forwarded-Proto: https\r\n", true),
        (
            "127.0.0.1",
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n",
            true,
        ),
        ("127.0.0.1", "X-Forwarded-Proto: http\r\n", false),
        ("127.0.0.1", "", false),
        ("192.0.2.1", "X-Forwarded-Proto: https\r\n", false),
    ] {
        let server = start(&folder, |config| {
            config.proxies.trusted = trusted.parse().unwrap();
            config.proxies.x_forwarded_for = true;
        });
        let answer = ask(server.address, &post("/login", header_lines, JSON));
        let cookie = header(&answer, "Set-Cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{header_lines}");
        // Then a page loaded without HTTPS is one of another site.
        let token = token(server.address);
        let headers = format!("Host: test\r\n{header_lines}Cookie: ringcast={token}");
        assert!(is_authenticated(&server, &headers));
        assert!(is_authenticated(
            &server,
            &format!("{headers}\r\nOrigin: https://test")
        ));
        let headers = format!("{headers}\r\nOrigin: http://test");
        assert_eq!(is_authenticated(&server, &headers), !is_secure, "{header_lines}");
    }
}

#[test]
fn back_off_applies_only_to_the_client_that_a_proxy_names() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.limits.login_failures_max = 1;
        config.proxies.trusted = "127.0.0.1".parse().unwrap();
        config.proxies.x_forwarded_for = true;
    });
    // Addresses that the client itself writes to the left of its own change nothing.
    let mut claimed = 0_u32;
    let mut attempt = |client: &str| {
        claimed += 1;
        let headers = format!("X-Forwarded-For: 203.0.113.{claimed}, {client}\r\n");
        ask(
            server.address,
            &post("/login", &headers, &JSON.replace("cccc", "dddd")),
        )
    };
    eventually("the client has to wait", || {
        status(&attempt("192.0.2.7")) == "429"
    });
    assert_eq!(status(&attempt("192.0.2.8")), "401");
}

#[test]
fn a_flood_of_logins_from_one_network_keeps_no_familiar_user_out() {
    let folder = Folder::new();
    let file = folder.write_user("aaa@bbb.com", "cccc", 101);
    let process = Process::start(&[
        ("RINGCAST_PASSWORD_FILE", file.to_str().unwrap()),
        ("RINGCAST_LOGINS_WAITING_MAX", "4"),
        ("RINGCAST_TRUSTED_PROXIES", "127.0.0.1"),
        ("RINGCAST_X_FORWARDED_FOR", "on"),
    ]);
    let begin = |from: &str, body: &str| {
        let mut client = process.connect();
        client.send_bytes(post("/login", &format!("X-Forwarded-For: {from}\r\n"), body).as_bytes());
        client
    };
    assert_eq!(status(&begin("192.0.2.7", JSON).rest()), "200");
    // No password is checked until all attempts have come.
    let password_checks = Held::thread(process.pid(), "login 0");
    let refused = || {
        let mut admin = process.admin();
        ["busy", "displaced"]
            .map(|outcome| admin.metric(&format!("ringcast_logins_total{{outcome=\"{outcome}\"}}")))
            .iter()
            .sum::<u64>()
    };
    let flood = |from: fn(u32) -> String, round: u32| -> Vec<Client> {
        let clients = (0..20).map(|index| {
            let body = format!(r#"{{"email":"{round}-{index}","pw":"guess"}}"#);
            begin(&from(index), &body)
        });
        clients.collect()
    };
    let mut clients = flood(|index| format!("2001:db8:1:{index:x}::1"), 0);
    clients.extend(flood(|index| format!("64:ff9b::203.0.113.{index}"), 1));
    eventually("the queue is full", || refused() >= 36);
    let mut familiar = begin("192.0.2.7", JSON);
    eventually("another attempt is displaced", || refused() >= 37);
    drop(password_checks);
    assert_eq!(status(&familiar.rest()), "200");
    let answers: Vec<String> = clients.iter_mut().map(Client::rest).collect();
    let busy = answers.iter().filter(|answer| status(answer) == "503").count();
    assert_eq!(busy, 37, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| matches!(status(answer), "401" | "503"))
    );
}

/// How often any of these texts occurs in writable memory of a process.
fn times_in_memory(process: &Process, needles: &[&str]) -> usize {
    const PAGE: u64 = 4096;
    let pid = process.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    // Allocators reserve gigabytes: only resident pages are read.
    let page_map = fs::File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let is_there = |page: u64| {
        let mut entry = [0; 8];
        page_map.read_exact_at(&mut entry, page * 8).is_ok() && u64::from_ne_bytes(entry) >> 62 != 0
    };
    let count_in = |from: u64, to: u64| {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Some pages belong to the system and cannot be read.
        let read = memory.read_exact_at(&mut bytes, from);
        let count = |needle: &&str| memchr::memmem::find_iter(&bytes, needle.as_bytes()).count();
        read.map_or(0, |()| needles.iter().map(count).sum())
    };
    let mut count = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap() / PAGE);
        let mut page = from;
        while page < to {
            let first = page;
            while page < to && is_there(page) {
                page += 1;
            }
            if page > first {
                count += count_in(first * PAGE, page * PAGE);
            }
            page += 1;
        }
    }
    count
}

#[test]
fn no_password_stays_in_the_memory_of_the_server() {
    let folder = Folder::new();
    const RIGHT: &str = "correct-horse-battery-staple-0123456789";
    let mut passwords = PasswordFile::default();
    for (name, hash) in [
        ("argon2id", PasswordHash::argon2id(RIGHT.as_bytes(), [7; 16])),
        (
            "pbkdf2",
            PasswordHash::pbkdf2(RIGHT.as_bytes(), [7; 12], 101).unwrap(),
        ),
    ] {
        passwords.set(name, &hash).unwrap();
    }
    let file = folder.file("passwords");
    fs::write(&file, passwords.text()).unwrap();
    let process = Process::start(&[
        ("RINGCAST_PASSWORD_FILE", file.to_str().unwrap()),
        ("RINGCAST_LOGIN_FAILURES_MAX", "1000"),
        ("RINGCAST_CORES", "1"),
    ]);
    // Neither whole nor in part, also not after a request in two pieces.
    let parts = [&RIGHT[..16], &RIGHT[RIGHT.len() - 16..]];
    let found = |what: &str| {
        let count = times_in_memory(&process, &parts);
        assert_eq!(count, 0, "{what}: the password lies in memory");
    };
    // The search works: the name of a channel, which is kept, is found.
    let mut subscriber = process.client();
    subscriber.call("#subscribe", r#"{"channel":"a-name-that-is-kept-in-memory"}"#);
    assert!(times_in_memory(&process, &["a-name-that-is-kept-in-memory"]) > 0);

    let bodies = |user: &str, password: &str| {
        let json = format!(r#"{{"user":"{user}","password":"{password}"}}"#);
        let escaped = format!(
            r#"{{"user":"{user}","x":"\n","password":"\u0063{}"}}"#,
            &password[1..]
        );
        let form = format!("user={user}&password={password}&other={password}");
        [("JSON", json), ("escaped", escaped), ("form", form)]
    };
    for user in ["pbkdf2", "argon2id", "nobody"] {
        for (kind, body) in bodies(user, RIGHT) {
            let request = post("/login", "", &body);
            let expected = if user == "nobody" { "401" } else { "200" };
            assert_eq!(status(&ask(process.address, &request)), expected);
            found(&format!("{user}, {kind} in one piece"));
            for cut in [
                request.len() - 3,
                request.len() - 20,
                request.len() - body.len() + 10,
            ] {
                let mut client = process.connect();
                let (first, second) = request.as_bytes().split_at(cut);
                client.send_bytes(first);
                // The server has read this much once a later client is answered.
                process.client().ping();
                client.send_bytes(second);
                assert_eq!(status(&client.rest()), expected);
            }
            found(&format!("{user}, {kind} in two pieces"));
        }
    }
    // Bodies that are refused, and one that is never complete.
    let (_, json) = &bodies("pbkdf2", RIGHT)[0];
    for (headers, body, code) in [
        ("Content-Type: text/plain\r\n", json.clone(), "415"),
        ("", format!("{json}x"), "400"),
        ("", format!("{json}{}", " ".repeat(5000)), "413"),
        ("Origin: https://elsewhere.example\r\n", json.clone(), "403"),
    ] {
        let answer = ask(process.address, &post("/login", headers, &body));
        assert_eq!(status(&answer), code, "{answer}");
        found(code);
    }
    let mut client = process.connect();
    client.send_bytes(&post("/login", "", json).as_bytes()[..post("/login", "", json).len() - 2]);
    process.client().ping();
    drop(client);
    eventually("the incomplete body is gone", || {
        times_in_memory(&process, &parts) == 0
    });

    // By calls: whole, in fragments, in pieces, refused. TLS is left out: rustls decrypts each record into
    // memory of its own, which it frees without wiping and which we cannot wipe.
    let data = json;
    let mut client = process.client();
    client.call("login", data);
    found("a call");
    let mut client = process.client();
    let call = format!(r#"{{"event":"login","data":{data},"cid":77}}"#);
    let (first, rest) = call.as_bytes().split_at(call.len() - 30);
    let mut fragments = frame(support::TEXT & 0x0f, first);
    fragments.extend(frame(0x80, rest));
    client.send_bytes(&fragments);
    assert_eq!(client.message(), r#"{"rid":77}"#);
    client.message();
    found("a call in fragments");
    let mut client = process.client();
    let whole = frame(support::TEXT, call.as_bytes());
    for part in whole.chunks(40) {
        client.send_bytes(part);
        process.client().ping();
    }
    assert_eq!(client.message(), r#"{"rid":77}"#);
    client.message();
    client.ping();
    found("a call in pieces");
    let refused = client.call("login", &data.replace("password", "pass"));
    assert!(refused.contains("InvalidArgumentsError"), "{refused}");
    found("a call that is refused");
}

#[test]
fn the_subscriptions_of_an_expired_token_end() {
    let folder = Folder::new();
    let server = start(&folder, |config| {
        config.permissions.allow_anonymous = Anonymous::Off;
        // Long enough for the subscription on a busy machine.
        config.auth.default_expiry = std::time::Duration::from_secs(5);
        // Only the expiry of the token itself can trigger the end.
        config.socketcluster.pings = false;
    });
    let mut client = server.client();
    client.call("login", JSON);
    assert!(client.message().contains("#setAuthToken"));
    client.subscribe("c");
    assert_eq!(client.message(), r##"{"event":"#removeAuthToken"}"##);
    assert!(client.message().starts_with(r##"{"event":"#kickOut""##));
    server.settles_at(1, 0);
}
