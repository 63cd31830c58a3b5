//! How the client port answers plain HTTP: offers of other protocols, targets and hosts, bodies, probes, the root.
//!
//! The unit tests in `src/http` test the parts; here requests go over real sockets, and some are made by curl.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::net::SocketAddr;
use std::process::Command;

use nix::sys::signal::Signal;
use ringcast::app::{App, Upgrade, UpgradeRefused};
use ringcast::config::{Config, WelcomePage};
use ringcast::internals::decision::{CloseReason, Limit};
use support::folder::Folder;
use support::process::Process;
use support::{Client, Server, UPGRADE, ask, eventually, status};

/// A server with a password file that has the user `ann` with the password `pw`.
fn server_with_users(folder: &Folder, change: impl FnOnce(&mut Config)) -> Server {
    Server::with_user(folder, ("ann", "pw"), change)
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

const JSON: &str = r#"{"user":"ann","password":"pw"}"#;

fn login(target: &str, headers: &str) -> String {
    let length = JSON.len();
    format!("POST {target} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n{JSON}")
}

fn chunks(body: &str, cut: usize) -> String {
    let (first, second) = body.split_at(cut);
    let (x, y) = (first.len(), second.len());
    format!("{x:x};name=\"value\"\r\n{first}\r\n{y:X}\r\n{second}\r\n0\r\nX-Sum: 1\r\n\r\n")
}

fn chunked_login(headers: &str) -> String {
    let head = format!("POST /login HTTP/1.1\r\nHost: test\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    format!("{head}{}", chunks(JSON, 7))
}

/// Offers of protocols other than WebSocket, as clients send them.
const OFFERS: [&str; 8] = [
    // curl --http2
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    // Java's HttpClient
    "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n",
    "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "Connection: upgrade\r\nUpgrade: HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11\r\n",
    "Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.2\r\nUpgrade: h2c\r\n",
    "Connection: Upgrade\r\nUpgrade: connect-udp\r\n",
    "Upgrade: h2c\r\n",
    "Connection: Upgrade\r\n",
];

#[test]
fn offers_of_other_protocols_are_ignored_except_on_the_websocket_path() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |config| config.listen.welcome_page = WelcomePage::Off);
    for offer in OFFERS {
        for (request, expected) in [
            (login("/login", offer), "200"),
            (
                chunked_login(offer).replacen("Transfer", "X: y\r\nTransfer", 1),
                "200",
            ),
            (get("/whoami", offer), "401"),
            (
                get("/whoami", &format!("{offer}Authorization: Bearer x\r\n")),
                "401",
            ),
            (
                format!("POST /logout HTTP/1.1\r\nHost: test\r\n{offer}\r\n"),
                "204",
            ),
            (get("/health-check", offer), "200"),
            (get("/healthz", offer).replacen("GET", "HEAD", 1), "200"),
            (get("/", offer), "200"),
            (get("/elsewhere", offer), "501"),
        ] {
            let answer = ask(server.address, &request);
            assert_eq!(status(&answer), expected, "{request}: {answer}");
        }
        let at_the_socket = ask(server.address, &get("/socketcluster/", offer));
        let is_upgrade = offer.contains("Connection") && offer.contains("Upgrade:");
        let expected = if is_upgrade { "400" } else { "501" };
        assert_eq!(status(&at_the_socket), expected, "{offer}");
    }
    // The answer to a faulty request for a WebSocket names the fault, on every path except the paths for users.
    for (target, expected) in [("/", "400"), ("/elsewhere", "400"), ("/socketcluster/", "101")] {
        let request = UPGRADE.replace("/socketcluster/", target);
        let mut client = server.connect();
        client.send_bytes(request.as_bytes());
        assert_eq!(status(&client.read_head()), expected, "{target}");
    }
    assert_eq!(
        status(&ask(
            server.address,
            &UPGRADE.replace("websocket", "h2c, websocket")
        )),
        "400"
    );
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            " %{http_code}",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_logs_in_by_all_its_ways_of_asking() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    let url = |path: &str| format!("http://{}{path}", server.address);
    let large = format!(
        "{{\"x\":\"{}\",\"user\":\"ann\",\"password\":\"pw\"}}",
        "x".repeat(3000)
    );
    for arguments in [
        &["--http2"][..],
        &["--http1.0"],
        &["-H", "Transfer-Encoding: chunked"],
        &["--http2", "-H", "Transfer-Encoding: chunked"],
        &["-H", "Expect: 100-continue"],
        &["-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"],
        &["--request-target", &url("/login")],
    ] {
        for body in [JSON, &large] {
            let answer = curl(&[arguments, &["-d", body, &url("/login")]].concat());
            assert!(
                answer.starts_with(r#"{"token":"#) && answer.ends_with(" 200"),
                "{arguments:?}: {answer}"
            );
        }
    }
    assert!(curl(&["--http2", &url("/whoami")]).ends_with(" 401"));
    assert_eq!(curl(&["--http2", &url("/health-check")]), "OK 200");
    assert!(curl(&["--head", &url("/healthz")]).ends_with(" 200"));
}

/// An application that answers with the host of the request.
struct AnswersWithHost;

impl App for AnswersWithHost {
    fn upgrade(&mut self, request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        let host = request.headers.iter().find(|(name, _)| *name == "Host");
        let host = host.map(|(_, host)| String::from_utf8(host.to_vec()).unwrap());
        let host = host.unwrap_or_default();
        Err(UpgradeRefused {
            message: format!("{host} {} {}", request.path, request.query),
        })
    }
}

#[test]
fn a_target_in_absolute_form_names_the_host_and_the_path() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    for target in [
        "http://test/socketcluster/",
        "http://other.example:81/socketcluster/?a=b",
        "HTTPS://[::1]:8000/socketcluster",
        "ws://test/socketcluster/",
    ] {
        let mut client = server.connect();
        client.send_bytes(UPGRADE.replacen("/socketcluster/", target, 1).as_bytes());
        assert!(client.read_head().starts_with("HTTP/1.1 101 "), "{target}");
        client.handshake();
    }
    for (request, expected) in [
        (login("http://test/login", ""), "200"),
        (login("http://other.example/login?x=y", ""), "200"),
        (get("http://test/health-check", ""), "200"),
        (get("http://test", ""), "200"),
        (get("http://test?x", ""), "200"),
        (get("http://test/whoami", ""), "401"),
        (get("http://test/elsewhere", ""), "501"),
        (get("http:///health-check", ""), "400"),
        (get("http://user@test/health-check", ""), "400"),
        (get("http://test:x/health-check", ""), "400"),
        (get("ftp://test/health-check", ""), "501"),
        // An origin of the requested host is the server's own, whatever the header `Host` contains.
        (
            login("http://other.example/login", "Origin: http://other.example\r\n"),
            "200",
        ),
        (
            login("http://other.example/login", "Origin: http://test\r\n"),
            "403",
        ),
    ] {
        let answer = ask(server.address, &request);
        assert_eq!(status(&answer), expected, "{request}: {answer}");
    }
    let server = Server::start_with(|_| {}, |_| AnswersWithHost);
    let request = UPGRADE.replacen("/socketcluster/", "http://other.example:81/socketcluster/?a=b", 1);
    assert!(ask(server.address, &request).ends_with("\r\n\r\nother.example:81 /socketcluster/ a=b"));
}

#[test]
fn a_request_names_exactly_one_host() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    let requests = [UPGRADE.to_owned(), get("/health-check", ""), login("/login", "")];
    for hosts in [
        "",
        "Host:\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: user@a\r\n",
        "Host: http://a\r\n",
        "Host: a/b\r\n",
        "Host: a:b\r\n",
        "Host: a:65536\r\n",
        "Host: [::1\r\n",
        "Host: \u{e9}\r\n",
    ] {
        for request in &requests {
            let request = request.replace("Host: test\r\n", hosts);
            assert_eq!(
                status(&ask(server.address, &request)),
                "400",
                "{hosts:?}: {request}"
            );
        }
    }
    // HTTP/1.0 needs no host.
    for request in [get("/health-check", ""), login("/login", "")] {
        let request = request
            .replace("Host: test\r\n", "")
            .replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(status(&ask(server.address, &request)), "200", "{request}");
    }
}

#[test]
fn a_login_in_chunks_may_be_cut_anywhere() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    let request = chunked_login("");
    let head = request.find("\r\n\r\n").unwrap() + 4;
    for cut in head - 2..=request.len() {
        let mut client = server.connect();
        let (first, second) = request.as_bytes().split_at(cut);
        client.send_bytes(first);
        client.send_bytes(second);
        let answer = client.rest();
        assert_eq!(status(&answer), "200", "cut at {cut}: {answer}");
    }
    let mut client = server.connect();
    for byte in request.as_bytes() {
        client.send_bytes(&[*byte]);
    }
    assert_eq!(status(&client.rest()), "200");
    let one_by_one: String = JSON
        .chars()
        .map(|letter| format!("1\r\n{letter}\r\n"))
        .chain(["0\r\n\r\n".to_owned()])
        .collect();
    let request = format!("{}{one_by_one}", &request[..head]);
    assert_eq!(status(&ask(server.address, &request)), "200");
}

#[test]
fn a_body_that_could_be_read_in_two_ways_is_refused() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |config| config.limits.login_body_bytes_max = 64);
    let post = |version: &str, headers: &str, body: &str| {
        format!("POST /login HTTP/{version}\r\nHost: test\r\n{headers}\r\n{body}")
    };
    let body = chunks(JSON, 3);
    let length = body.len();
    for (headers, body, expected) in [
        ("Transfer-Encoding: chunked\r\n", &*body, "200"),
        ("Transfer-Encoding: CHUNKED\r\n", &body, "200"),
        (
            &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &body,
            "400",
        ),
        (
            &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            &body,
            "400",
        ),
        ("Transfer-Encoding: gzip\r\n", &body, "501"),
        ("Transfer-Encoding: gzip, chunked\r\n", &body, "501"),
        ("Transfer-Encoding: identity\r\n", &body, "501"),
        ("Transfer-Encoding: xchunked\r\n", &body, "501"),
        ("Transfer-Encoding: chunked, chunked\r\n", &body, "400"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            &body,
            "400",
        ),
        ("Transfer-Encoding : chunked\r\n", &body, "400"),
        ("Transfer-Encoding:\r\n", &body, "400"),
        ("Transfer-Encoding: chunked\r\n", "x\r\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "1\nx\n0\n\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "1 \r\nx\r\n0\r\n\r\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "0x1\r\nx\r\n0\r\n\r\n", "400"),
        ("Transfer-Encoding: chunked\r\n", "2\r\nxyz\r\n0\r\n\r\n", "400"),
        (
            "Transfer-Encoding: chunked\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "400",
        ),
        ("Transfer-Encoding: chunked\r\n", "41\r\n", "413"),
        ("Transfer-Encoding: chunked\r\n", "fffffffffffffff\r\n", "413"),
        ("Content-Length: 65\r\n", "", "413"),
        ("", "", "411"),
    ] {
        let answer = ask(server.address, &post("1.1", headers, body));
        assert_eq!(status(&answer), expected, "{headers}{body}: {answer}");
    }
    let old = post("1.0", "Transfer-Encoding: chunked\r\n", &body);
    assert_eq!(status(&ask(server.address, &old)), "400");
    let framing = format!("1;{}", "x".repeat(20_000));
    let endless = post("1.1", "Transfer-Encoding: chunked\r\n", &framing);
    assert_eq!(status(&ask(server.address, &endless)), "413");
    assert_eq!(server.limit_hits(Limit::LoginBodyBytes), 4);
    // An upgrade has no body: the server would read its bytes as frames, a proxy as a body.
    for line in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let request = UPGRADE.replace("Host: test\r\n", &format!("Host: test\r\n{line}"));
        assert_eq!(status(&ask(server.address, &request)), "400", "{line}");
    }
}

#[test]
fn input_after_an_answered_request_is_ignored() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    for first in [
        login("/login", ""),
        chunked_login(""),
        get("/health-check", ""),
        get("/", ""),
    ] {
        let pipelined = format!("{first}{}{}", login("/login", ""), get("/whoami", ""));
        let answer = ask(server.address, &pipelined);
        assert_eq!(status(&answer), "200", "{first}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    server.settles_at(0, 0);
}

#[test]
fn an_expectation_of_100_continue_is_met_and_others_are_refused() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    for request in [
        login("/login", "Expect: 100-continue\r\n"),
        chunked_login("Expect: 100-Continue\r\n"),
    ] {
        let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
        let mut client = server.connect();
        client.send_bytes(head.as_bytes());
        assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send_bytes(body.as_bytes());
        assert_eq!(status(&client.rest()), "200");
        // If the body has arrived already, the server sends no 100.
        assert_eq!(status(&ask(server.address, &request)), "200");
    }
    for expectation in ["tea", "100-continue, tea", "100-continue\r\nExpect: tea"] {
        let line = format!("Expect: {expectation}\r\n");
        for request in [
            login("/login", &line),
            get("/whoami", &line),
            get("/health-check", &line),
            get("/", &line),
        ] {
            assert_eq!(status(&ask(server.address, &request)), "417", "{request}");
        }
    }
    // The server refuses a request before the client sends the body, if it would refuse it anyway. HTTP/1.0 has no
    // `Expect`.
    let mut client = server.connect();
    client.send_bytes(
        b"POST /login HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
    );
    assert_eq!(status(&client.rest()), "413");
    let old = login("/login", "Expect: 100-continue\r\n").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(status(&ask(server.address, &old)), "200");
    let mut client = server.connect();
    client.upgrade();
    let expecting = UPGRADE.replace("Host: test\r\n", "Host: test\r\nExpect: 100-continue\r\n");
    let mut client = server.connect();
    client.send_bytes(expecting.as_bytes());
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_client_that_has_ended_its_own_direction_gets_its_answer() {
    let folder = Folder::new();
    let server = server_with_users(&folder, |_| {});
    for (request, expected) in [
        (login("/login", ""), "200"),
        (chunked_login(""), "200"),
        (login("/login", "Expect: 100-continue\r\n"), "200"),
        (get("/whoami", ""), "401"),
        ("POST /logout HTTP/1.1\r\nHost: test\r\n\r\n".to_owned(), "204"),
        (get("/health-check", ""), "200"),
        (get("/healthz", "").replacen("GET", "HEAD", 1), "200"),
        (get("/", ""), "200"),
        (get("/elsewhere", ""), "501"),
        (UPGRADE.replace("13\r\n", "12\r\n"), "400"),
        (get("/health-check", "Host: two\r\n"), "400"),
        // Half a request is an error.
        (get("/health-check", "").trim_end().to_owned(), "400"),
        (chunked_login("").trim_end().to_owned(), "400"),
    ] {
        let mut client = server.connect();
        client.send_bytes(request.as_bytes());
        client.send_fin();
        let answer = client.rest();
        assert_eq!(status(&answer), expected, "{request}: {answer}");
        let length = answer
            .split("\r\nContent-Length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        if let Some(length) = length.filter(|_| !request.starts_with("HEAD")) {
            assert_eq!(body.len(), length, "{request}: {answer}");
        }
    }
    server.settles_at(0, 0);
}

#[test]
fn a_probe_is_answered_at_its_paths_and_counts_as_nothing_else() {
    let server = Server::start(|_| {});
    for request in [
        get("/health-check", ""),
        get("/healthz", "Connection: close\r\n"),
        get("/healthz?from=elb", "User-Agent: ELB-HealthChecker/2.0\r\n"),
        "GET /health-check HTTP/1.0\r\n\r\n".to_owned(),
        // As `option httpchk /health-check` of HAProxy sends it.
        "OPTIONS /health-check HTTP/1.0\r\n\r\n".to_owned(),
        get("/health-check/", ""),
    ] {
        let answer = ask(server.address, &request);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\nContent-Length: 2\r\n\r\nOK"), "{answer}");
    }
    let head = ask(
        server.address,
        &get("/health-check", "").replacen("GET", "HEAD", 1),
    );
    assert!(
        status(&head) == "200" && head.ends_with("Content-Length: 2\r\n\r\n"),
        "{head}"
    );
    assert_eq!(server.closes(CloseReason::Probed), 7);
    assert_eq!(server.total(|core| &core.http_answers), 0);
    assert_eq!(server.closes(CloseReason::HttpAnswered), 0);
    // Other methods are not probes.
    let post = "POST /health-check HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(status(&ask(server.address, post)), "501");

    let server = Server::start(|config| config.listen.probe_paths = vec!["/up".to_owned()]);
    assert_eq!(status(&ask(server.address, &get("/up", ""))), "200");
    assert_eq!(status(&ask(server.address, &get("/health-check", ""))), "501");
    let server = Server::start(|config| config.listen.probe_paths = Vec::new());
    assert_eq!(status(&ask(server.address, &get("/healthz", ""))), "501");
}

#[test]
fn a_probe_is_told_that_the_server_drains_and_is_not_among_the_last_ends() {
    let mut process = Process::start(&[("RINGCAST_DRAIN_SECONDS", "60")]);
    assert_eq!(status(&ask(process.address, &get("/health-check", ""))), "200");
    assert_eq!(process.admin().get("/closed").1.matches("reason").count(), 0);
    let mut early: Vec<Client> = (0..2).map(|_| process.connect()).collect();
    let mut client = process.client();
    process.signal(Signal::SIGTERM);
    eventually("no connection is accepted", || {
        std::net::TcpStream::connect(process.address).is_err()
    });
    for probe in &mut early {
        probe.send_bytes(get("/health-check", "").as_bytes());
        let answer = probe.rest();
        assert_eq!(status(&answer), "503", "{answer}");
    }
    client.close_frame();
    process.signal(Signal::SIGTERM);
    process.exit_code();
}

#[test]
fn the_path_is_found_with_and_without_its_slash() {
    for (path, paths) in [
        ("/socketcluster/", ["/socketcluster/", "/socketcluster"]),
        ("/messaging", ["/messaging", "/messaging/"]),
        ("/a/ws/", ["/a/ws/?t=1", "/a/ws?t=1"]),
    ] {
        let server = Server::start(|config| config.listen.path = path.to_owned());
        for asked in paths {
            let mut client = server.connect();
            client.send_bytes(UPGRADE.replace("/socketcluster/", asked).as_bytes());
            assert!(client.read_head().starts_with("HTTP/1.1 101 "), "{path} {asked}");
        }
        for other in ["/", "//", "/messaging//", "/a/", "/Messaging"] {
            let request = UPGRADE.replace("/socketcluster/", other);
            assert_eq!(status(&ask(server.address, &request)), "400", "{path} {other}");
        }
    }
}

#[test]
fn the_root_is_a_page_where_only_this_machine_can_see_it() {
    let root = |change: fn(&mut Config)| ask(Server::start(change).address, &get("/", ""));
    let page = root(|config| config.listen.path = "/ws".to_owned());
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for part in [
        "\r\nContent-Type: text/html; charset=utf-8\r\n",
        "\r\nContent-Security-Policy: default-src 'none'; script-src 'sha256-",
        "\r\nX-Frame-Options: DENY\r\n",
        "<meta name=\"ringcast-endpoint\" content=\"/ws\">",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for policy in ["unsafe-inline", "unsafe-eval", "src *", "https:"] {
        assert!(!page.contains(policy), "{policy}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    for change in [
        (|config: &mut Config| config.listen.welcome_page = WelcomePage::Off) as fn(&mut Config),
        |config| config.listen.address = "0.0.0.0:0".parse().unwrap(),
        |config| config.proxies.trusted = "127.0.0.1".parse().unwrap(),
    ] {
        let mut answer = String::new();
        let server = Server::start(|config| {
            change(config);
        });
        let address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
        eventually("an answer", || {
            answer = ask(address, &get("/", ""));
            !answer.is_empty()
        });
        assert!(answer.contains("\r\nContent-Type: text/plain"), "{answer}");
        assert!(
            answer.contains("\r\n\r\nThis is Ringcast") && answer.ends_with(" /socketcluster/\n"),
            "{answer}"
        );
    }
    let asked_for = root(|config| {
        config.listen.address = "0.0.0.0:0".parse().unwrap();
        config.listen.welcome_page = WelcomePage::On;
    });
    assert!(asked_for.contains("text/html"));
    let head = ask(
        Server::start(|_| {}).address,
        &get("/", "").replacen("GET", "HEAD", 1),
    );
    assert!(
        status(&head) == "200" && head.ends_with("\r\n\r\n") && !head.contains("<html"),
        "{head}"
    );
    // Unknown paths get text as well.
    let nothing = ask(Server::start(|_| {}).address, &get("/elsewhere", ""));
    assert!(status(&nothing) == "501" && nothing.contains("\r\nContent-Type: text/plain\r\n"));
}

#[test]
fn the_start_says_where_the_page_is() {
    let process = Process::start(&[]);
    let line = process.logged("in a browser");
    assert!(
        line.contains(&format!("open http://{}/", process.address)),
        "{line}"
    );
}
