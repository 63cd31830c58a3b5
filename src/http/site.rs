//! The answers to plain requests on the client port, apart from the pages for users: a probe for load
//! balancers, and the root page.
//!
//! In: the method and the path. Out: which of the two is requested, and the bytes of its answer. These
//! answers need no session, cookie or origin, and each ends its connection.
//!
//! Invariants
//! 1. As in `response.rs`, no text from a peer occurs in an answer: the pages are made once, from settings.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The endpoint and the plain pages of a server.
#[derive(Clone, Debug)]
pub struct Site {
    /// The path of the WebSocket endpoint.
    pub endpoint: String,
    /// The paths at which load balancers ask whether clients are served.
    pub probe_paths: Vec<String>,
    /// The answer for the root.
    home: StoredAnswer,
}

/// One of the plain pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Tells whether clients are served.
    Probe,
    /// The root.
    Home,
}

/// The state that a probe reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Clients are served: 200.
    Serving,
    /// The server is closing its connections, and clients should go elsewhere: 503.
    Draining,
}

/// An answer that was made in advance.
#[derive(Clone, Debug)]
struct StoredAnswer {
    head: String,
    body: String,
}

impl Site {
    /// A site whose root shows the page for trying out the server, or else a line of text that says what this
    /// server is.
    pub fn new(endpoint: &str, probe_paths: Vec<String>, shows_page: bool) -> Site {
        Site {
            endpoint: endpoint.to_owned(),
            probe_paths,
            home: if shows_page {
                StoredAnswer::page(endpoint)
            } else {
                StoredAnswer::text(endpoint)
            },
        }
    }

    /// The plain page that a request asks for.
    pub fn page(&self, method: &str, path: &str) -> Option<Plain> {
        let is_probe = self.probe_paths.iter().any(|probe| is_endpoint(probe, path));
        match method {
            // HAProxy probes with OPTIONS if its `option httpchk` names no method.
            "GET" | "HEAD" | "OPTIONS" if is_probe => Some(Plain::Probe),
            "GET" | "HEAD" if path == "/" => Some(Plain::Home),
            _ => None,
        }
    }

    /// True if the WebSocket endpoint is at this path.
    pub fn is_endpoint(&self, path: &str) -> bool {
        is_endpoint(&self.endpoint, path)
    }

    /// Appends the root page; without its body for HEAD.
    pub fn write_home(&self, head_only: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(self.home.head.as_bytes());
        if !head_only {
            out.extend_from_slice(self.home.body.as_bytes());
        }
    }
}

/// True if `path` is `endpoint`, with or without a slash at its end. Clients of all versions send the slash,
/// while configurations have it or not, and no two endpoints differ only in that.
pub fn is_endpoint(endpoint: &str, path: &str) -> bool {
    let without_slash = |path| str::strip_suffix(path, "/").unwrap_or(path);
    path == endpoint || without_slash(path) == without_slash(endpoint)
}

/// Appends the answer to a probe; without its body for HEAD.
pub fn write_probe(health: Health, head_only: bool, out: &mut Vec<u8>) {
    let (status, body) = match health {
        Health::Serving => ("200 OK", "OK"),
        Health::Draining => ("503 Service Unavailable", "draining"),
    };
    let head = head(status, "text/plain", body.len(), "");
    out.extend_from_slice(head.as_bytes());
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

impl StoredAnswer {
    fn page(endpoint: &str) -> StoredAnswer {
        let body = PAGE.replacen(ENDPOINT_UNKNOWN, &endpoint_is(endpoint), 1);
        let head = head(
            "200 OK",
            "text/html; charset=utf-8",
            body.len(),
            &format!("{}{PAGE_HEADERS}", security_policy(&body)),
        );
        StoredAnswer { head, body }
    }

    fn text(endpoint: &str) -> StoredAnswer {
        let body = format!(
            "This is Ringcast, a realtime server. Clients of SocketCluster connect to its WebSocket at {endpoint}\n"
        );
        let head = head("200 OK", "text/plain; charset=utf-8", body.len(), "");
        StoredAnswer { head, body }
    }
}

fn head(status: &str, content_type: &str, length: usize, more: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nCache-Control: no-store\r\nContent-Type: {content_type}\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

/// Allows only the page's own script and style, by their hashes, and connections to this server. Older
/// browsers do not count a WebSocket to the same host as `'self'`, so loopback is named as well.
fn security_policy(page: &str) -> String {
    format!(
        "Content-Security-Policy: default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; \
         connect-src 'self' ws://localhost:* ws://127.0.0.1:*; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'\r\n",
        hash(between(page, "<script>", "</script>")),
        hash(between(page, "<style>", "</style>")),
    )
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let after = text.split_once(begin).map_or("", |(_, after)| after);
    after.split_once(end).map_or("", |(inside, _)| inside)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// The line of the page that tells its script the path of the endpoint.
fn endpoint_is(path: &str) -> String {
    let path = path
        .replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;");
    format!("<meta name=\"ringcast-endpoint\" content=\"{path}\">")
}

/// The page. Opened as a file it asks for the server's URL; served by this server it already has it.
const PAGE: &str = include_str!("../../examples/browser.html");
const ENDPOINT_UNKNOWN: &str = "<meta name=\"ringcast-endpoint\" content=\"\">";
const PAGE_HEADERS: &str = "X-Frame-Options: DENY\r\nReferrer-Policy: same-origin\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn home(site: &Site, head_only: bool) -> (String, String) {
        let mut out = Vec::new();
        site.write_home(head_only, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_endpoint_is_found_with_and_without_its_last_slash() {
        for (endpoint, paths, others) in [
            (
                "/socketcluster/",
                &["/socketcluster/", "/socketcluster"][..],
                &[
                    "/socketcluster//",
                    "/socketcluster/x",
                    "/",
                    "",
                    "/SocketCluster/",
                    "//socketcluster/",
                ][..],
            ),
            ("/ws", &["/ws", "/ws/"], &["/w", "/ws//", "/wss", "/"]),
            ("/a/b", &["/a/b", "/a/b/"], &["/a/", "/a/b/c"]),
            ("/", &["/"], &["//", "/x"]),
        ] {
            for path in paths {
                assert!(is_endpoint(endpoint, path), "{endpoint} {path}");
            }
            for path in others.iter().filter(|path| !path.is_empty()) {
                assert!(!is_endpoint(endpoint, path), "{endpoint} {path}");
            }
        }
    }

    #[test]
    fn only_get_head_and_probes_with_options_find_a_page() {
        let site = Site::new(
            "/ws",
            vec!["/health-check".to_owned(), "/healthz".to_owned()],
            false,
        );
        for (method, path, page) in [
            ("GET", "/health-check", Some(Plain::Probe)),
            ("HEAD", "/healthz", Some(Plain::Probe)),
            ("GET", "/", Some(Plain::Home)),
            ("HEAD", "/", Some(Plain::Home)),
            ("OPTIONS", "/healthz", Some(Plain::Probe)),
            ("GET", "/healthz/", Some(Plain::Probe)),
            ("OPTIONS", "/", None),
            ("POST", "/healthz", None),
            ("GET", "/healthz//", None),
            ("POST", "/", None),
            ("GET", "/ws", None),
            ("GET", "/Healthz", None),
        ] {
            assert_eq!(site.page(method, path), page, "{method} {path}");
        }
        assert_eq!(
            Site::new("/ws", Vec::new(), false).page("GET", "/health-check"),
            None
        );
    }

    #[test]
    fn the_page_contains_the_endpoint_and_may_run_only_its_own_script() {
        let site = Site::new("/a\"<b>&/", Vec::new(), true);
        let (head, body) = home(&site, false);
        assert!(
            body.contains("<meta name=\"ringcast-endpoint\" content=\"/a&quot;&lt;b>&amp;/\">"),
            "{body}"
        );
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert!(head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"));
        for part in ["script", "style"] {
            assert_eq!(
                body.matches(&format!("<{part}")).count(),
                1,
                "one {part}, whose hash is in the policy"
            );
            let inside = between(&body, &format!("<{part}>"), &format!("</{part}>"));
            assert!(inside.len() > 100 && head.contains(&format!("{part}-src '{}'", hash(inside))));
        }
        // Things that a policy of hashes forbids, and requests to other servers.
        let lower = body.to_lowercase();
        for forbidden in [
            " style=",
            " onclick=",
            " onload=",
            "javascript:",
            "innerhtml",
            "eval(",
            " src=",
        ] {
            assert!(!lower.contains(forbidden), "{forbidden}");
        }
        assert_eq!(home(&site, true), (head, String::new()));
    }

    #[test]
    fn the_text_names_the_endpoint() {
        let (head, body) = home(&Site::new("/ws/", Vec::new(), false), false);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Type: text/plain"));
        assert!(body.ends_with("at /ws/\n") && !body.contains('<'));
    }

    #[test]
    fn the_status_of_a_probe_tells_whether_clients_are_served() {
        let answer = |health, head_only| {
            let mut out = Vec::new();
            write_probe(health, head_only, &mut out);
            String::from_utf8(out).unwrap()
        };
        let serving = answer(Health::Serving, false);
        assert!(serving.starts_with("HTTP/1.1 200 OK\r\n") && serving.ends_with("\r\n\r\nOK"));
        assert_eq!(serving.strip_suffix("OK"), Some(&*answer(Health::Serving, true)));
        let draining = answer(Health::Draining, false);
        assert!(draining.starts_with("HTTP/1.1 503 ") && draining.contains("\r\nContent-Length: 8\r\n"));
    }
}
