//! Several servers as one: the nodes of a cluster, which are joined by NATS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::form::{Form, Kind, PEM_FILE, file, milliseconds, names_in, number, word};
use super::secret::Secret;
use super::settings::settings;

settings! {
    /// The nodes of a cluster, which are joined by NATS.
    cluster: Cluster {
        /// Servers of NATS, separated by commas, such as `nats://10.0.0.5:4222`; `tls://` asks for TLS, and a user with a
        /// password may stand before the host. This server is a node of the cluster that is joined by them: the subscribers of
        /// a channel get what is published on any node. Without it the server is alone.
        url: ClusterUrls = ClusterUrls::default(), "cluster_url", URLS;

        /// The name of the cluster: the nodes with the same name, at the same servers of NATS, belong together.
        name: String = "ringcast".to_owned(), "cluster_name", NAME;

        /// The name of this node in logs and on pages, unlike that of any other node. Without it a random one is made at the
        /// first start, and kept in `data_dir` if that is set.
        node_id: Option<String> = None, "node_id", NODE_ID;

        /// A credentials file (`.creds`) with which the node authenticates itself at NATS: a JWT and its key.
        credentials_file: Option<PathBuf> = None, "cluster_credentials_file", file("the name of a credentials file of NATS");

        /// A file with the seed of an nkey (`SU…`) with which the node authenticates itself at NATS.
        nkey_file: Option<PathBuf> = None, "cluster_nkey_file", file("the name of a file with the seed of an nkey");

        /// A PEM file of the authorities that the certificates of NATS must come from, beside those that the system trusts.
        ca_file: Option<PathBuf> = None, "cluster_ca_file", PEM_FILE;

        /// A PEM file of the certificate by which NATS knows this node, with its chain.
        certificate_file: Option<PathBuf> = None, "cluster_certificate_file", PEM_FILE;

        /// A PEM file of the private key of `cluster_certificate_file`.
        key_file: Option<PathBuf> = None, "cluster_key_file", PEM_FILE;

        /// Most bytes of publications that wait on their way to other nodes. When NATS takes less than that, further ones are
        /// not sent to other nodes: these learn how many they have missed (`ringcast_cluster_missed_total`). Subscribers of this
        /// node get them.
        queue_bytes_max: u64 = 16 * 1024 * 1024, "cluster_queue_bytes_max", number!(65536 to 1099511627776);

        /// Milliseconds for which a node goes on to get the publications of a channel after its last subscriber has left.
        interest_linger: Duration = Duration::from_millis(5000), "cluster_interest_linger_ms", milliseconds!(0 to 3600000);

        /// Milliseconds after which a node of which nothing is heard is taken for ended. Nodes tell that they are alive five
        /// times in this time.
        node_timeout: Duration = Duration::from_millis(5000), "cluster_node_timeout_ms", milliseconds!(500 to 600000);

        /// Whether `/readyz` answers 503 while this node has no connection to NATS: `on`, or `off` if a node without the others
        /// is better than none.
        ready: bool = false, "cluster_ready", word();
    }
}

/// The servers of NATS. They may hold a password: there is no `Display`, and `Debug` shows `…`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClusterUrls(Vec<String>);

impl ClusterUrls {
    /// Reads URLs that are separated by commas; `None` if one of them is none of NATS.
    pub fn parse(text: &str) -> Option<ClusterUrls> {
        let urls = names_in(text)?;
        urls.iter()
            .all(|url| is_of_nats(url))
            .then_some(ClusterUrls(urls))
    }

    /// Whether there are none: the server is no node of a cluster.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The URLs without users and passwords.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|url| {
            let (scheme, _, host) = parts(url);
            format!("{scheme}://{host}")
        })
    }

    /// The servers, for people.
    pub fn hosts(&self) -> String {
        let hosts = self.0.iter().map(|url| parts(url).2);
        hosts.collect::<Vec<_>>().join(", ")
    }

    /// The first user that a URL names, with its password; or the token, if there is no password.
    pub fn user(&self) -> Option<(String, Option<String>)> {
        let user = self.0.iter().find_map(|url| parts(url).1)?;
        Some(match user.split_once(':') {
            Some((name, password)) => (decoded(name), Some(decoded(password))),
            None => (decoded(user), None),
        })
    }
}

/// The scheme, the user, and the host with the port.
fn parts(url: &str) -> (&str, Option<&str>, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    match rest.rsplit_once('@') {
        Some((user, host)) => (scheme, Some(user), host),
        None => (scheme, None, rest),
    }
}

/// A text of a URL with its `%XX` read.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => {
                out.push(escaped);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Debug for ClusterUrls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Secret::HIDDEN)
    }
}

fn is_of_nats(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("nats", |(scheme, _)| scheme);
    let is_visible = url.bytes().all(|byte| byte.is_ascii_graphic());
    ["nats", "tls"].contains(&scheme) && is_visible && url.parse::<async_nats::ServerAddr>().is_ok()
}

/// URLs of NATS. The whole value is a secret, since it may hold a password.
const URLS: Form<ClusterUrls> = Form {
    kind: Kind::Secret,
    expects: "servers such as nats://10.0.0.5:4222 or tls://nats.example:4222, separated by commas",
    parse: ClusterUrls::parse,
    show: |urls| urls.0.join(","),
};

/// The name of a cluster: one token of a subject of NATS.
const NAME: Form<String> = Form {
    kind: Kind::Text,
    expects: "at most 64 letters, digits, hyphens and underscores",
    parse: |text| is_name(text, b"-_").then(|| text.to_owned()),
    show: String::clone,
};

const NODE_ID: Form<Option<String>> = Form {
    kind: Kind::Text,
    expects: "at most 64 letters, digits, dots, hyphens and underscores",
    parse: |text| is_node_id(text).then(|| Some(text.to_owned())),
    show: |id| id.clone().unwrap_or_default(),
};

/// Whether a text is the id of a node.
pub(crate) fn is_node_id(text: &str) -> bool {
    is_name(text, b"-_.")
}

fn is_name(text: &str, others: &[u8]) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_legal)
}

/// Most bytes of the name of a cluster or of a node.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_those_of_the_engine_and_show_no_password() {
        for (text, hosts) in [
            ("nats://10.0.0.5:4222", Some("10.0.0.5:4222")),
            ("nats://a, tls://user:pass@b:1", Some("a, b:1")),
            ("localhost", Some("localhost")),
            ("", None),
            ("nats://a,", None),
            ("http://a", None),
            ("nats://a b", None),
            ("wss://a", None),
        ] {
            let urls = ClusterUrls::parse(text);
            assert_eq!(urls.as_ref().map(ClusterUrls::hosts).as_deref(), hosts, "{text}");
            assert!(!format!("{urls:?}").contains("pass"));
        }
        let urls = ClusterUrls::parse("nats://a,tls://us%40er:pa:s%2Fs@b:1").unwrap();
        assert_eq!(urls.servers().collect::<Vec<_>>(), ["nats://a", "tls://b:1"]);
        assert_eq!(urls.user(), Some(("us@er".to_owned(), Some("pa:s/s".to_owned()))));
        let urls = ClusterUrls::parse("nats://t0ken%@a").unwrap();
        assert_eq!(urls.user(), Some(("t0ken%".to_owned(), None)));
        assert_eq!(ClusterUrls::parse("localhost").unwrap().user(), None);
    }

    #[test]
    fn names_are_tokens_of_subjects() {
        for (text, is_cluster, is_node) in [
            ("a-1_B", true, true),
            ("a.b", false, true),
            ("", false, false),
            ("a b", false, false),
            ("*", false, false),
            (">", false, false),
        ] {
            assert_eq!((NAME.parse)(text).is_some(), is_cluster, "{text}");
            assert_eq!((NODE_ID.parse)(text).is_some(), is_node, "{text}");
        }
        assert!((NAME.parse)(&"a".repeat(64)).is_some() && (NAME.parse)(&"a".repeat(65)).is_none());
    }
}
