//! Hooks in the configuration file: decisions about clients that another program makes.
//!
//! ```toml
//! [[hooks]]
//! name = "rooms"                             # stands in metrics and in the log
//! actions = ["subscribe", "publish"]
//! channels = ["room.**"]                     # for actions on channels
//! url = "https://backend.internal/ringcast"
//! secret_file = "/etc/ringcast/hook-secret"  # signs each request
//! when_away = "refuse"
//! ```
//!
//! `read` checks the keys and how they go together. `hooks` compiles the patterns, reads the files, and asks.
//!
//! Limits: [`HOOKS_MAX`] hooks.

pub(super) mod read;

use std::path::PathBuf;
use std::time::Duration;

use super::target_url::TargetUrl;
use crate::labels::labels;

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSpec {
    /// Its name in metrics and in the log; no two hooks have the same.
    pub name: String,
    /// The actions of clients that it decides.
    pub actions: Vec<HookAction>,
    /// Patterns of the channels that the actions on channels are about, as in rules, but without claims.
    pub channels: Vec<String>,
    /// The same for the names of procedures and one-way events.
    pub procedures: Vec<String>,
    /// Where to ask over HTTP; empty if a service is asked.
    pub url: TargetUrl,
    /// The procedure of a service that is asked in place of a URL.
    pub service: Option<String>,
    /// How long an answer may take, from the question on.
    pub timeout: Duration,
    /// The decision if there is no answer.
    pub when_away: WhenAway,
    /// Most requests at a time.
    pub concurrency: u32,
    /// Most questions that wait for one of these requests.
    pub waiting_max: u32,
    /// Most publications that one request asks about; with 1, each question has a request of its own, and is no array.
    pub batch_max: u32,
    /// How long a question about a publication waits for others that share its request.
    pub batch_wait: Duration,
    /// Most bytes of questions that are open.
    pub waiting_bytes_max: u32,
    /// After so many failures in a row, the target is not asked for a while; 0: never.
    pub failures_max: u32,
    /// How long an answer may be used again; zero: never.
    pub cache: Duration,
    /// What two questions must have in common to get the same answer, besides the action and the name.
    pub cache_by: Vec<CacheBy>,
    /// Most answers that are kept.
    pub cache_max: u32,
    /// Headers of the upgrade that are passed on, in lower case.
    pub headers: Vec<String>,
    /// Cookies of the upgrade that are passed on.
    pub cookies: Vec<String>,
    /// Whether the query of the upgrade is passed on.
    pub query: bool,
    /// Whether the data of the packet is passed on.
    pub data: bool,
    /// Whether the password of a CONNECT is passed on.
    pub mqtt_password: bool,
    /// The file with the secrets that sign requests.
    pub secret_file: Option<PathBuf>,
    /// The file with the certificate authorities that are trusted for the URL, in place of those of the machine.
    pub ca_file: Option<PathBuf>,
    /// Whether the host of the URL may have a link-local address.
    pub link_local: bool,
    /// The file that holds it, if one does.
    pub file: Option<PathBuf>,
    /// Its line in the file, from 1; 0 without a file.
    pub line: usize,
}

labels! {
    /// An action of a client.
    pub enum HookAction {
        /// It connects.
        Connect = "connect",
        /// It authenticates itself by a token.
        Authenticate = "authenticate",
        /// It subscribes to a channel.
        Subscribe = "subscribe",
        /// It publishes to a channel.
        Publish = "publish",
        /// It calls a procedure.
        Invoke = "invoke",
        /// It sends a one-way event.
        Transmit = "transmit",
        /// It has disconnected: the backend learns of it and decides nothing.
        Disconnect = "disconnect",
    }
}

impl HookAction {
    /// Whether it is about a channel.
    pub const fn is_on_channel(self) -> bool {
        match self {
            HookAction::Subscribe | HookAction::Publish => true,
            HookAction::Connect
            | HookAction::Authenticate
            | HookAction::Invoke
            | HookAction::Transmit
            | HookAction::Disconnect => false,
        }
    }

    /// Whether it is about a procedure.
    pub const fn is_on_procedure(self) -> bool {
        match self {
            HookAction::Invoke | HookAction::Transmit => true,
            HookAction::Connect
            | HookAction::Authenticate
            | HookAction::Subscribe
            | HookAction::Publish
            | HookAction::Disconnect => false,
        }
    }
}

impl HookSpec {
    /// A hook that decides nothing yet, with defaults for all but these.
    pub fn new(name: &str, url: &str) -> HookSpec {
        HookSpec {
            name: name.to_owned(),
            actions: Vec::new(),
            channels: Vec::new(),
            procedures: Vec::new(),
            url: TargetUrl::new(url),
            service: None,
            timeout: Duration::from_secs(3),
            when_away: WhenAway::Refuse,
            concurrency: 64,
            waiting_max: 1000,
            waiting_bytes_max: 16 << 20,
            batch_max: 1,
            batch_wait: Duration::from_millis(5),
            failures_max: 5,
            cache: Duration::ZERO,
            cache_by: Vec::new(),
            cache_max: 1000,
            headers: Vec::new(),
            cookies: Vec::new(),
            query: false,
            data: true,
            mqtt_password: false,
            secret_file: None,
            ca_file: None,
            link_local: false,
            file: None,
            line: 0,
        }
    }

    /// The target of questions, for people: the service, or the URL without its query, which may hold a token.
    pub fn asked(&self) -> &str {
        self.service
            .as_deref()
            .unwrap_or_else(|| self.url.without_query())
    }
}

/// The decision if a hook does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAway {
    /// The client is refused.
    #[default]
    Refuse,
    /// The action is allowed.
    Allow,
}

/// A part of questions that must be equal for two questions to get the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBy {
    /// Nothing more.
    Everybody,
    /// The connection.
    Connection,
    /// The claims of the client's token.
    Claims,
    /// The headers, cookies and query that are passed on.
    Request,
    /// The data of the packet.
    Data,
    /// The client id, the user name and the password of an MQTT client.
    Mqtt,
}

/// A key of a hook, as an operator writes it.
struct HookKey {
    name: &'static str,
    /// The value if the key is absent, as it is written.
    default: &'static str,
    doc: &'static str,
}

const KEYS: [HookKey; 25] = [
    HookKey {
        name: "name",
        default: "",
        doc: "Its name in metrics and in the log: 1 to 64 letters, digits, dots, hyphens or underscores. Required.",
    },
    HookKey {
        name: "actions",
        default: "",
        doc: "The actions that the hook decides, one or a list: `connect`, `authenticate`, `subscribe`, `publish`, `invoke`, `transmit`; and `disconnect`, of which the hook only learns. Required.",
    },
    HookKey {
        name: "channels",
        default: "",
        doc: "Patterns of the channels for the actions `subscribe` and `publish`: as in `[[rules]]`, without `{claim}`. Required for these actions.",
    },
    HookKey {
        name: "procedures",
        default: "",
        doc: "The same for the procedures and events of `invoke` and `transmit`.",
    },
    HookKey {
        name: "url",
        default: "",
        doc: "The URL of the backend, `https://` or `http://`, without user and fragment. Required, unless there is a `service`.",
    },
    HookKey {
        name: "service",
        default: "",
        doc: "The name of a procedure: the [service](services.md) that answers it is asked, in place of a URL.",
    },
    HookKey {
        name: "timeout_ms",
        default: "3000",
        doc: "Milliseconds for the answer, including the time that the question waits for its turn; from 10, less than `decision_timeout_ms`.",
    },
    HookKey {
        name: "when_away",
        default: "refuse",
        doc: "The decision if there is no valid answer: `refuse` or `allow`.",
    },
    HookKey {
        name: "concurrency",
        default: "64",
        doc: "Most requests at a time, from 1 to 10000. Further questions wait.",
    },
    HookKey {
        name: "waiting_max",
        default: "1000",
        doc: "Most questions that wait, without those of the requests under way (`concurrency`), up to 1000000. `when_away` decides a further one.",
    },
    HookKey {
        name: "waiting_bytes_max",
        default: "16777216",
        doc: "Most bytes of the data of all open questions, up to 1073741824. `when_away` decides a further one.",
    },
    HookKey {
        name: "batch_max",
        default: "1",
        doc: "Most publications that one request asks about, up to 1000. With more than 1, each request about publications has an [array](hooks.md#several-publications-in-one-request) of questions.",
    },
    HookKey {
        name: "batch_wait_ms",
        default: "5",
        doc: "Milliseconds that a question waits for other questions of the same request, up to half of `timeout_ms`. 0: a request takes the questions that wait at its turn.",
    },
    HookKey {
        name: "failures_max",
        default: "5",
        doc: "After so many failures in a row the server asks the target nothing for 1 s, then for twice as long each time, up to 30 s; after each pause one request tries it. 0: never.",
    },
    HookKey {
        name: "cache_ms",
        default: "0",
        doc: "Milliseconds for which an answer is used again, up to 86400000 (a day). 0: never.",
    },
    HookKey {
        name: "cache_by",
        default: "",
        doc: "The parts of two questions that must be equal for the same answer, besides action and name; one or a list: `everybody` (nothing more), `connection`, `claims`, `request` (the headers, cookies and query that are passed on), `data`, `mqtt` (the client id, the user name and the password of an MQTT client). Required with `cache_ms`.",
    },
    HookKey {
        name: "cache_max",
        default: "1000",
        doc: "Most answers that are kept, from 1 to 1000000; the oldest goes first. An answer over 4096 bytes is not kept.",
    },
    HookKey {
        name: "headers",
        default: "",
        doc: "Headers of the client's upgrade that are passed on; not `cookie`.",
    },
    HookKey {
        name: "cookies",
        default: "",
        doc: "Cookies of the client's upgrade that are passed on, if the page that opens the connection is of a trusted origin.",
    },
    HookKey {
        name: "query",
        default: "false",
        doc: "Whether the query of the client's upgrade is passed on.",
    },
    HookKey {
        name: "data",
        default: "true",
        doc: "Whether the data of the packet is passed on.",
    },
    HookKey {
        name: "mqtt_password",
        default: "false",
        doc: "Whether the password of an MQTT client is passed on with `connect`. Use `https` then.",
    },
    HookKey {
        name: "secret_file",
        default: "",
        doc: "A file with the secrets that sign each request, one on each line, up to 4 while one replaces another; each of 16 bytes or more.",
    },
    HookKey {
        name: "ca_file",
        default: "",
        doc: "A PEM file with the certificate authorities that are trusted for the URL, in place of the authorities of this machine.",
    },
    HookKey {
        name: "link_local",
        default: "false",
        doc: "Whether the host of the URL may have an address that serves this machine alone, such as 169.254.169.254.",
    },
];

/// The table of keys in Markdown, as `docs/configuration.md` has it.
#[doc(hidden)]
pub fn markdown() -> String {
    let mut table = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for key in &KEYS {
        table.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.default, key.doc));
    }
    table
}

/// Most hooks: in the worst case each packet of a client looks at all of them.
pub const HOOKS_MAX: usize = 100;

#[cfg(test)]
mod tests;
