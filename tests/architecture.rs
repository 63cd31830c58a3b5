//! Who may know whom, and where `unsafe` may stand: read from the sources.
//!
//! The layers, lowest first; a module may import from its own layer's row and from the rows below it, and groups of
//! one row that are separated by a bar do not know each other:
//!
//! ```text
//!   cli · main
//!   server
//!   control
//!   handle
//!   cores
//!   protocols
//!   transport | websocket http | socketcluster | mqtt
//!   session | presence
//!   wills
//!   policy
//!   webhooks | hooks | login
//!   app
//!   auth decision history retained store services
//!   broker
//!   config metrics machine log audit clock slab sync client targets json labels replace text unicode wipe
//! ```
//!
//! Inside `src/cores` the rooms have an order of their own, the lowest first:
//!
//! ```text
//!   outgoing ◄ lifecycle ◄ connections ◄ delivery ◄ recovery ◄ arrivals ◄ input ◄ operators ◄ turn, visits, letters, owned_channels, busy_poll, tick
//! ```
//!
//! `post`, the letters from core to core, belongs to `lifecycle`: steps of all rooms from there on send them.
//! `presence` and `services` belong to `input`.
//!
//! A file there holds either *parts* of a core (structs with private fields, which import parts of their own room or of
//! rooms below) or *steps* of the core (`impl Core`), never both. `core.rs` imports parts of all rooms; steps import
//! `core.rs`, and import and call only their own room and rooms below. So a message travels down this map, and results
//! come back as values.

#![allow(clippy::unwrap_used)] // a test

#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, sources};

/// For each module at the top of `src`: the modules it may import besides itself.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("client", &[][..]),
        ("store", &["clock", "config", "history", "metrics"][..]),
        ("audit", &["clock"][..]),
        ("clock", &[][..]),
        ("slab", &[][..]),
        ("sync", &[][..]),
        ("targets", &[][..]),
        (
            "webhooks",
            &[
                "app", "auth", "broker", "clock", "config", "decision", "json", "metrics", "targets",
            ][..],
        ),
        ("log", &[][..]),
        ("replace", &[][..]),
        ("text", &[][..]),
        ("unicode", &[][..]),
        ("wipe", &[][..]),
        ("config", &["client", "labels", "log", "text"][..]),
        ("machine", &["config"][..]),
        ("decision", &["auth", "broker", "labels"][..]),
        ("labels", &[][..]),
        ("metrics", &["audit", "config", "decision", "labels"][..]),
        ("auth", &["clock", "config", "text"][..]),
        ("login", &["auth", "client", "clock", "metrics", "replace"][..]),
        (
            "policy",
            &[
                "auth", "client", "clock", "config", "hooks", "login", "metrics", "replace", "services",
                "text", "webhooks",
            ][..],
        ),
        ("app", &["auth", "clock", "decision"][..]),
        (
            "hooks",
            &["app", "auth", "config", "metrics", "services", "targets"][..],
        ),
        ("wills", &["app", "clock"][..]),
        ("http", &["auth", "client"][..]),
        (
            "websocket",
            &["client", "http", "decision", "unicode", "wipe"][..],
        ),
        (
            "session",
            &[
                "app", "auth", "clock", "config", "decision", "hooks", "policy", "services", "unicode",
            ][..],
        ),
        (
            "socketcluster",
            &[
                "app", "auth", "clock", "config", "decision", "history", "hooks", "json", "policy",
                "services", "session", "wills",
            ][..],
        ),
        (
            "mqtt",
            &[
                "app", "auth", "broker", "clock", "config", "decision", "hooks", "json", "policy",
                "services", "session", "slab", "store", "unicode", "wipe",
            ][..],
        ),
        (
            "protocols",
            &[
                "json",
                "app",
                "auth",
                "clock",
                "decision",
                "policy",
                "history",
                "mqtt",
                "services",
                "session",
                "socketcluster",
                "websocket",
                "wills",
                "broker",
                "config",
            ][..],
        ),
        ("json", &[][..]),
        ("broker", &["slab", "sync"][..]),
        ("history", &["broker", "clock", "config", "slab"][..]),
        ("retained", &["broker", "config"][..]),
        ("services", &["broker", "clock", "config", "labels"][..]),
        ("presence", &["app", "broker", "clock", "slab"][..]),
        ("transport", &["config"][..]),
        (
            "cores",
            &[
                "store",
                "app",
                "audit",
                "auth",
                "broker",
                "client",
                "clock",
                "config",
                "decision",
                "policy",
                "history",
                "hooks",
                "http",
                "json",
                "login",
                "machine",
                "metrics",
                "mqtt",
                "presence",
                "protocols",
                "retained",
                "services",
                "session",
                "slab",
                "transport",
                "webhooks",
                "websocket",
                "wills",
                "wipe",
            ][..],
        ),
        (
            "handle",
            &[
                "store",
                "app",
                "broker",
                "clock",
                "config",
                "cores",
                "decision",
                "history",
                "metrics",
                "mqtt",
                "policy",
                "services",
                "session",
                "presence",
                "socketcluster",
                "websocket",
            ][..],
        ),
        (
            "control",
            &[
                "app",
                "store",
                "audit",
                "auth",
                "config",
                "metrics",
                "clock",
                "log",
                "cores",
                "decision",
                "handle",
                "policy",
                "http",
                "login",
                "session",
                "targets",
                "text",
                "transport",
                "webhooks",
            ][..],
        ),
        (
            "server",
            &[
                "history",
                "store",
                "app",
                "audit",
                "auth",
                "broker",
                "clock",
                "config",
                "control",
                "cores",
                "handle",
                "policy",
                "http",
                "log",
                "login",
                "machine",
                "protocols",
                "retained",
                "session",
                "transport",
                "wills",
            ][..],
        ),
        (
            "cli",
            &[
                "app", "auth", "clock", "config", "control", "cores", "policy", "log", "machine", "server",
                "login", "replace", "services", "text", "webhooks",
            ][..],
        ),
        ("main", &[][..]),
        ("guide", &[][..]),
        ("prelude", &["app", "config", "server"][..]),
        // Opens all others for tests, by a macro.
        ("internals", &["app", "config"][..]),
        ("lib", &[][..]),
    ])
}

/// Modules that take bytes, values and the time, and return decisions.
const PURE: &[&str] = &[
    "websocket",
    "http",
    "socketcluster",
    "mqtt",
    "json",
    "auth",
    "app",
    "client",
    "decision",
    "history",
    "retained",
    "presence",
    "protocols",
    "services",
    "session",
    "text",
];

/// What a pure module must not name: beginnings of paths, and ends of paths.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "std::thread",
    "std::fs",
    "std::process",
    "std::io::Read",
    "std::io::stdin",
    "Instant::now",
    "SystemTime::now",
    "mio::",
    "tokio::",
    "socket2::",
    "nix::",
    "libc::",
    "rustix::",
    "crossbeam_channel::",
];

/// The files that may hold `unsafe`, each with its argument at its head.
const UNSAFE: &[&str] = &[
    "src/broker/post/letter_box.rs",
    "src/broker/ring/memory.rs",
    "src/broker/ring/publisher.rs",
    "src/broker/ring/reader.rs",
    "src/control/memory_release.rs",
    "src/transport/socket_activation.rs",
    "src/transport/hand_over.rs",
    "src/transport/unacknowledged.rs",
    "src/unicode.rs",
];

#[test]
fn imports_never_turn_round() {
    let allowed = allowed();
    let mut used = BTreeSet::new();
    for source in sources() {
        let (module, path) = (source.module(), &source.path);
        let Some(may) = allowed.get(module) else {
            panic!("{path:?}: module `{module}` has no place in the layers; give it one in this test");
        };
        for (line, imported) in source.imported_modules() {
            let allowance = may.iter().find(|may| **may == imported);
            assert!(
                imported == module || allowance.is_some() || module == "lib",
                "{path:?}:{line}: `{module}` imports `{imported}`, which lies beside or above it \
                 (layers: head of this test)"
            );
            used.extend(allowance.map(|imported| (module, *imported)));
        }
    }
    for (module, may) in &allowed {
        for imported in *may {
            let is_used = used.contains(&(*module, *imported));
            assert!(
                is_used,
                "`{module}` does not import `{imported}`: remove it from `allowed`"
            );
        }
    }
}

/// Modules that import each other in a circle are one module in several folders.
#[test]
fn the_table_of_imports_has_no_circle() {
    let allowed = allowed();
    let mut left: BTreeSet<&str> = allowed.keys().copied().collect();
    while !left.is_empty() {
        let free: Vec<&str> = left
            .iter()
            .copied()
            .filter(|module| !allowed[module].iter().any(|imported| left.contains(imported)))
            .collect();
        assert!(!free.is_empty(), "each of {left:?} imports another one of them");
        for module in free {
            left.remove(module);
        }
    }
}

#[test]
fn pure_modules_touch_no_socket_clock_thread_or_file() {
    for source in sources() {
        let (module, path) = (source.module(), &source.path);
        if !PURE.contains(&module) {
            continue;
        }
        for named in &source.named {
            let (text, line) = (named.path.join("::"), named.line);
            for word in IMPURE {
                let is_named = text.starts_with(word) || text.ends_with(&format!("::{word}"));
                assert!(
                    !is_named,
                    "{path:?}:{line}: `{module}` is pure and must not use `{text}`"
                );
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_is_argued_for() {
    let mut files = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.unsafe_lines.is_empty()) {
        let (path, lines) = (&source.path, &source.unsafe_lines);
        let listed = UNSAFE.iter().find(|listed| path.ends_with(listed));
        assert!(
            listed.is_some(),
            "{path:?}:{lines:?}: `unsafe` outside {UNSAFE:?}"
        );
        files.extend(listed);
    }
    let listed: BTreeSet<&&str> = UNSAFE.iter().collect();
    assert_eq!(
        files, listed,
        "a file that has no `unsafe` any more is to leave the list"
    );
}

#[test]
fn only_the_hot_room_owns_a_poll_and_only_the_control_room_a_runtime() {
    for source in sources() {
        let (module, path) = (source.module(), &source.path);
        for named in source.named.iter().filter(|named| !named.is_of_crate) {
            let owners: &[&str] = match named.path[0].as_str() {
                "mio" => &["cores", "transport", "server"],
                "tokio" | "axum" | "hyper" => &["control", "hooks", "targets"],
                _ => continue,
            };
            let (text, line) = (named.path.join("::"), named.line);
            assert!(
                owners.contains(&module),
                "{path:?}:{line}: `{module}` must not know `{text}`"
            );
        }
    }
}

/// The checks of this file see an import however it is spelled, and nothing that only tests have.
#[test]
fn an_import_is_seen_in_every_spelling() {
    let read = |text: &str| {
        let place = ["cores", "input", "intake"].map(str::to_owned).to_vec();
        let source = Source::read(PathBuf::from("planted.rs"), place, text);
        let named = source.named.iter();
        let named: BTreeSet<(bool, String)> = named
            .map(|named| (named.is_of_crate, named.path.join("::")))
            .collect();
        (named, source)
    };
    for planted in [
        "use crate::control::X;",
        "use crate::{app::App, control::X};",
        "use crate::{\n    app::{App, Call},\n    control::{\n        X,\n    },\n};",
        "use super::super::super::control::X as Y;",
        "pub(in crate::cores) use crate::control::X;",
        "fn f() -> u8 { crate::control::X.len() }",
        "fn f(x: crate::control::X) {}",
        "fn f() { println!(\"{}\", crate::control::X); }",
        "#[cfg(test)]\nmod tests;\nuse crate::control::X;",
        "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nuse crate::control::X;",
        "struct A<T>(Vec<crate::control::X>, T);",
        "mod inner { use crate::control::X; }",
        "mod inner { use super::super::super::super::control::X; }",
        "macro_rules! f { () => { $crate::control::X } }",
    ] {
        let (named, _) = read(planted);
        assert!(
            named.contains(&(true, "control::X".to_owned())),
            "{planted}: {named:?}"
        );
    }
    for (planted, is_of_crate, path) in [
        ("mod part; use part::X;", true, "cores::input::intake::part::X"),
        ("use self::part::X;", true, "cores::input::intake::part::X"),
        ("use super::X;", true, "cores::input::X"),
        (
            "use std::{fs, net::{IpAddr, TcpStream}};",
            false,
            "std::net::TcpStream",
        ),
        (
            "fn f() { ::std::time::Instant::now(); }",
            false,
            "std::time::Instant::now",
        ),
    ] {
        let (named, _) = read(planted);
        assert!(
            named.contains(&(is_of_crate, path.to_owned())),
            "{planted}: {named:?}"
        );
    }
    for innocent in [
        "// use crate::control::X;",
        "/// See [`crate::control::X`].\nfn f() {}",
        "const A: &str = \"crate::control::X\";",
        "#[cfg(test)]\nuse crate::control::X;",
        "#[cfg(test)]\npub(crate) fn f<A, B>() { crate::control::X }",
        "#[cfg(all(test, not(ringcast_loom)))]\nmod tests { use crate::control::X; unsafe fn f() {} }",
        "struct A { #[cfg(test)] x: crate::control::X, }",
        "#![cfg(test)]\nuse crate::control::X;",
    ] {
        let (named, source) = read(innocent);
        let is_seen = named.iter().any(|(_, path)| path.contains("control"));
        assert!(
            !is_seen && source.unsafe_lines.is_empty(),
            "{innocent}: {named:?}"
        );
    }
    let (_, source) = read("fn f() {\n    unsafe\n    { g() }\n}");
    assert_eq!(source.unsafe_lines, [2]);
    let step = "self\n.two(); Core::three(self); Self::four(self); core.five(1); self.part.six();";
    let (_, source) = read(&format!(
        "impl<A: App> Core<A> {{ fn one(&mut self) {{ {step} }} }}"
    ));
    let called: Vec<&str> = source.steps["one"]
        .iter()
        .map(|(_, name)| name.as_str())
        .collect();
    assert_eq!(called, ["two", "three", "four", "five"]);
}

/// A large file either has a second subject, and is to be divided, or a reason that readers want to know.
#[test]
fn a_large_file_stands_in_the_documentation_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut large = 0;
    for source in sources() {
        let path = source.path.strip_prefix(root).unwrap();
        let text = fs::read_to_string(&source.path).unwrap();
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("mod tests {"))
            .count();
        if lines <= LINES_MAX || path.starts_with("src/cores/simulation") {
            continue;
        }
        large += 1;
        let row = format!("| `{}` |", path.display());
        assert!(
            page.contains(&row),
            "{path:?} has {lines} lines: divide it, or say in docs/architecture.md why it is one file"
        );
    }
    assert_eq!(
        page.matches("| `src/").count(),
        large,
        "a file that is small now is to leave the table"
    );
}

/// Lines of code that need no reason.
const LINES_MAX: usize = 600;

/// What a program that embeds the server may use, and nothing else: the public names of each visible module.
const API: &[(&str, &[&str])] = &[
    (
        "lib.rs",
        &["mod app", "mod config", "mod guide", "mod prelude", "mod server"],
    ),
    (
        "app/mod.rs",
        &[
            "AllowedPublish",
            "AnswerError",
            "AnswerFailure",
            "App",
            "AppError",
            "Blame",
            "Call",
            "CallAnswer",
            "CallId",
            "CallRefused",
            "Claims",
            "Client",
            "CloseCode",
            "CloseReason",
            "Context",
            "Deferred",
            "DeferredDecision",
            "Inbound",
            "Message",
            "Name",
            "NotSessionId",
            "Outbound",
            "Peer",
            "RawJson",
            "RawPeer",
            "Refusal",
            "SessionId",
            "Tick",
            "TimerId",
            "TimerRefused",
            "Undelivered",
            "Unsent",
            "Upgrade",
            "UpgradeRefused",
            "UpgradeRequest",
        ],
    ),
    (
        "config/mod.rs",
        &[
            "AUTH_ALGORITHMS",
            "AcceptExcess",
            "Admin",
            "AllowedOrigins",
            "Anonymous",
            "Auth",
            "ClientProtocols",
            "Codec",
            "Config",
            "ConfigError",
            "ConfigErrors",
            "ConfigSources",
            "Conflict",
            "Cores",
            "Delivery",
            "FdTables",
            "Jwks",
            "KeylessProbes",
            "Limits",
            "ListFault",
            "Listen",
            "Loaded",
            "Log",
            "LogFormat",
            "Login",
            "Mqtt",
            "Nat64Prefixes",
            "Networks",
            "NotNat64Prefixes",
            "NotNetworks",
            "NotOrigins",
            "NotPlacement",
            "Permissions",
            "Placement",
            "Protocol",
            "Proxies",
            "QueueFull",
            "ReceiveExcess",
            "Restart",
            "SETTINGS",
            "SlowConsumer",
            "SocketCluster",
            "Source",
            "Store",
            "StoreMode",
            "Tls",
            "TlsCodec",
            "TokenIn",
            "Warning",
            "WelcomePage",
            "mod api_keys",
            "mod channels",
            "mod hooks",
            "mod services",
            "mod limits",
            "mod rules",
            "mod secret",
            "mod target_url",
            "mod tls",
            "mod webhooks",
        ],
    ),
    ("config/target_url.rs", &["TargetUrl"]),
    (
        "config/services.rs",
        &["Absent", "SERVICES_MAX", "ServiceSpec", "Terms"],
    ),
    (
        "config/channels.rs",
        &[
            "CHANNELS_MAX",
            "ChannelPolicy",
            "ChannelSpec",
            "HistoryPolicy",
            "PRESENCE_PREFIX",
            "PolicyPart",
            "PresencePolicy",
            "MqttPolicy",
            "RetainPolicy",
            "StringPolicy",
            "MqttPayload",
        ],
    ),
    (
        "config/api_keys.rs",
        &[
            "API_KEYS_MAX",
            "ApiAction",
            "ApiKeySpec",
            "KeyHash",
            "RATE_DEFAULT",
            "RATE_MAX",
            "is_key_name",
        ],
    ),
    (
        "config/hooks.rs",
        &["CacheBy", "HOOKS_MAX", "HookAction", "HookSpec", "WhenAway"],
    ),
    ("config/limits.rs", &["MemoryMax"]),
    ("config/target_url.rs", &["TargetUrl"]),
    (
        "config/webhooks.rs",
        &["WEBHOOKS_MAX", "WebhookEvent", "WebhookSpec"],
    ),
    (
        "config/rules.rs",
        &[
            "Action",
            "Effect",
            "RULES_MAX",
            "RuleSpec",
            "Scalar",
            "WHOLE_MAX",
            "Audience",
        ],
    ),
    ("config/secret.rs", &["Secret"]),
    ("config/tls.rs", &["ClientAuth", "OnListen"]),
    (
        "server/mod.rs",
        &[
            "ActivationError",
            "Answers",
            "ChannelInfo",
            "ClientAnswer",
            "ClientAnswers",
            "ClientFailure",
            "ClientProtocol",
            "ConnectionInfo",
            "ControlError",
            "CoreId",
            "Descriptors",
            "Embedding",
            "Exit",
            "FilterError",
            "Handle",
            "HandleError",
            "History",
            "HistoryEntry",
            "HistoryQuery",
            "LogTo",
            "LoginsFrom",
            "MemberInfo",
            "Page",
            "Pending",
            "PolicyError",
            "PortOwner",
            "PortSetting",
            "Position",
            "Receipt",
            "Received",
            "Selection",
            "ServiceInfo",
            "ServiceMember",
            "ReloadError",
            "Reloaded",
            "Server",
            "SignalHandling",
            "StartError",
            "StoreError",
            "StoreOwner",
            "Subscriber",
        ],
    ),
    (
        "prelude.rs",
        &[
            "AllowedPublish",
            "App",
            "AppError",
            "Call",
            "CallAnswer",
            "Claims",
            "CloseReason",
            "Config",
            "ConfigSources",
            "Deferred",
            "Descriptors",
            "Embedding",
            "Exit",
            "Handle",
            "LogTo",
            "Name",
            "Peer",
            "RawJson",
            "Refusal",
            "Server",
            "SessionId",
            "SignalHandling",
        ],
    ),
    (
        "guide.rs",
        &[
            "mod calls",
            "mod configuration",
            "mod connections",
            "mod logins",
            "mod metrics",
            "mod other_code",
            "mod other_threads",
            "mod permissions",
            "mod reload",
            "mod stopping",
        ],
    ),
];

/// A name that becomes public is chosen: it stands in [`API`], or is hidden from the documentation.
#[test]
fn a_program_that_embeds_the_server_sees_the_chosen_names_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, chosen) in API {
        let found = public_names(&fs::read_to_string(root.join(file)).unwrap());
        let chosen: BTreeSet<String> = chosen.iter().map(|name| (*name).to_owned()).collect();
        let (more, fewer): (Vec<_>, Vec<_>) = (
            found.difference(&chosen).collect(),
            chosen.difference(&found).collect(),
        );
        assert!(
            more.is_empty() && fewer.is_empty(),
            "src/{file}: public, but not chosen here: {more:?}; chosen, but not public: {fewer:?}"
        );
    }
}

/// The names of a module in the documentation: its public items and its re-exports, at the left margin.
fn public_names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_hidden = false;
    let mut in_macro = false;
    let lines = text.lines().take_while(|line| *line != "mod tests {");
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    // What a macro of ours declares stands one step to the right.
    let mut lines = lines.map(|line| {
        in_macro = line.ends_with("! {") || (in_macro && line != "}");
        line.strip_prefix("    ").filter(|_| in_macro).unwrap_or(line)
    });
    while let Some(line) = lines.next() {
        let Some(item) = line.strip_prefix("pub ") else {
            is_hidden = line == "#[doc(hidden)]" || (is_hidden && line.starts_with("#["));
            continue;
        };
        if std::mem::take(&mut is_hidden) {
            continue;
        }
        if let Some(first) = item.strip_prefix("use ") {
            let mut path = first.to_owned();
            while !path.ends_with(';') {
                path.push_str(lines.next().expect("the end of the import").trim());
            }
            let list = path.trim_end_matches(';');
            let list = match list.split_once('{') {
                Some((_, group)) => group.trim_end_matches('}'),
                None => list.rsplit("::").next().unwrap(),
            };
            let exported = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.extend(exported.map(|name| name.rsplit(" as ").next().unwrap().to_owned()));
            continue;
        }
        let words: Vec<&str> = item.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let is_fn = words.contains(&"fn");
        let name = match words[0] {
            "mod" => format!("mod {}", words[1]),
            _ if is_fn => words[words.iter().position(|word| *word == "fn").unwrap() + 1].to_owned(),
            _ => words[1].to_owned(),
        };
        names.insert(name);
    }
    names
}

/// The rooms of `src/cores`, the lowest first: the map at the head of this test.
const ROOMS: &[&str] = &[
    "outgoing",
    "lifecycle",
    "connections",
    "delivery",
    "recovery",
    "arrivals",
    "input",
    "operators",
    "turn",
];

/// Files that lie in `src/cores` itself, and the rooms that they belong to.
const ROOM_OF_FILE: &[(&str, &str)] = &[
    ("connections", "connections"),
    ("turn", "turn"),
    ("busy_poll", "turn"),
    ("visits", "turn"),
    ("tick", "turn"),
    ("letters", "turn"),
    ("owned_channels", "turn"),
    ("post", "lifecycle"),
    ("presence", "input"),
    ("services", "input"),
];

/// Files in `src/cores` that belong to no room. `core` is the core itself, which is made of parts of all rooms and
/// knows none of their steps; `turn_time`, `tick_timer` and `fd_table` know no room; `mod` and `parts` begin a core, and
/// know all.
const OUTSIDE: &[&str] = &["core", "turn_time", "tick_timer", "fd_table", "mod", "parts"];

/// One source of `src/cores`.
struct CoreFile {
    source: &'static Source,
    /// The name in `src/cores`: of the folder, or of the file.
    name: &'static str,
    /// The paths below `src/cores` that it names, by line.
    imports: Vec<(usize, Vec<String>)>,
}

impl CoreFile {
    /// Its place in the map; `None` outside.
    fn room(&self) -> Option<usize> {
        room(self.name)
    }

    /// Whether it holds steps of the core, rather than parts that it is made of.
    fn has_steps(&self) -> bool {
        !self.source.steps.is_empty()
    }

    /// The path of its module below `cores`.
    fn below(&self) -> &'static [String] {
        &self.source.place[1..]
    }
}

/// The place of a room in the map.
fn room(name: &str) -> Option<usize> {
    let name = ROOM_OF_FILE
        .iter()
        .find(|(file, _)| *file == name)
        .map_or(name, |(_, room)| room);
    ROOMS.iter().position(|room| *room == name)
}

/// Inside `src/cores` as well no arrow turns round: neither an import, nor a call of a method of the core from a file
/// in which another method of the core is.
#[test]
fn in_a_core_no_import_and_no_call_leads_to_a_room_above() {
    let files = core_files();
    let mut room_of_step = BTreeMap::new();
    for file in &files {
        for step in file.source.steps.keys() {
            room_of_step.insert(step.clone(), (file.room(), file.source.path.clone()));
        }
    }
    let mut arrows = 0;
    for file in &files {
        let Some(own) = file.room() else {
            assert!(
                OUTSIDE.contains(&file.name),
                "{:?}: has no room in the map at the head of this test",
                file.source.path
            );
            continue;
        };
        for (line, imported) in &file.imports {
            let Some(other) = room(&imported[0]) else {
                continue;
            };
            arrows += 1;
            assert!(
                other <= own,
                "{:?}:{line}: `{}` imports `{}`, which lies above it",
                file.source.path,
                ROOMS[own],
                ROOMS[other]
            );
        }
        for (line, called) in file.source.steps.values().flatten() {
            let Some((Some(other), defined)) = room_of_step.get(called) else {
                continue;
            };
            arrows += 1;
            assert!(
                *other <= own,
                "{:?}:{line}: a step in `{}` calls `{called}` of {defined:?}, which lies above it",
                file.source.path,
                ROOMS[own]
            );
        }
    }
    assert!(
        arrows > 200,
        "imports and calls are where this test looks for them: {arrows}"
    );
}

/// A part has no access to its core: other files cannot break the private state of a part, and a delivery, which is
/// made of parts alone, cannot close a connection or read one.
#[test]
fn parts_of_a_core_know_neither_the_core_nor_its_steps() {
    let files = core_files();
    let step_files: Vec<Vec<String>> = files
        .iter()
        .filter(|file| file.has_steps() && file.name != "core")
        .map(|file| file.below().to_vec())
        .collect();
    for file in &files {
        if (file.has_steps() && file.name != "core") || file.name == "mod" || file.name == "parts" {
            continue;
        }
        for (line, imported) in &file.imports {
            assert!(
                imported[0] != "core",
                "{:?}:{line}: a part of a core imports the core",
                file.source.path
            );
            for step_file in &step_files {
                assert!(
                    !imported.starts_with(step_file),
                    "{:?}:{line}: a part of a core, or the core itself, imports from a file of steps, `{}`",
                    file.source.path,
                    step_file.join("::")
                );
            }
        }
    }
    for room in ["outgoing", "connections", "delivery"] {
        let steps = files.iter().find(|file| file.name == room && file.has_steps());
        assert!(
            steps.is_none(),
            "{:?}: what is sent and delivered has no core to close or to read a connection with",
            steps.map(|file| &file.source.path)
        );
    }
}

/// All sources of `src/cores` but the simulation and the files of unit tests.
fn core_files() -> Vec<CoreFile> {
    let mut files = Vec::new();
    for source in sources() {
        let name = source.place.get(1).map_or("mod", String::as_str);
        if source.module() != "cores" || name == "simulation" {
            continue;
        }
        let below = source
            .named
            .iter()
            .filter(|named| named.is_of_crate && named.path[0] == "cores");
        let imports = below.map(|named| {
            let modules = named.path[1..]
                .iter()
                .take_while(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
            (named.line, modules.cloned().collect::<Vec<String>>())
        });
        // The ids and settings in `mod.rs` are known to all, the simulation to what it replaces.
        let imports = imports
            .filter(|(_, path)| path.first().is_some_and(|name| name != "simulation"))
            .collect();
        files.push(CoreFile {
            source,
            name,
            imports,
        });
    }
    assert!(files.len() > 30, "the rooms are where this test looks for them");
    files
}

/// The files of the cores that may know how a WebSocket frames its bytes. All others have a `Wire` and a `Framing`.
const WEBSOCKET: &[&str] = &[
    // The request for a WebSocket, and the origins that may send one.
    "src/cores/arrivals/upgrade.rs",
    "src/cores/arrivals/login.rs",
    // Messages out of the wire.
    "src/cores/input/intake.rs",
    // The frames of publications and replies.
    "src/cores/delivery/fan_out.rs",
    "src/cores/outgoing/forms.rs",
];

#[test]
fn a_core_knows_websockets_only_where_it_meets_them() {
    for source in sources() {
        let path = &source.path;
        if source.module() != "cores" || WEBSOCKET.iter().any(|allowed| path.ends_with(allowed)) {
            continue;
        }
        for (line, imported) in source.imported_modules() {
            assert!(
                imported != "websocket",
                "{path:?}:{line}: imports `websocket`; a connection, its outbox and its end know only a wire and a framing \
                 (src/protocols/wire.rs)"
            );
        }
    }
}
