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
//!   outgoing ◄ lifecycle ◄ connections ◄ delivery ◄ recovery ◄ arrivals ◄ input ◄ operators ◄ turn, visits, letters, remembering, busy_poll, tick
//! ```
//!
//! `post`, the letters from core to core, belongs to `lifecycle`: steps of all rooms from there on send them. `presence`
//! and `services` belong to `input`.
//!
//! A file there holds either *parts* of a core (structs with private fields, which import parts of their own room or of
//! rooms below) or *steps* of the core (`impl Core`), never both. `core.rs` imports parts of all rooms; steps import
//! `core.rs`, and import and call what lies in their own room or below. So a message travels down this map, and what
//! comes back is a value.

#![allow(clippy::unwrap_used)] // a test

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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
        (
            "login",
            &["auth", "client", "clock", "config", "metrics", "replace"][..],
        ),
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
                "login", "replace", "text", "webhooks",
            ][..],
        ),
        ("main", &["internals"][..]),
        ("guide", &[][..]),
        ("prelude", &["app", "config", "server"][..]),
        (
            "internals",
            &[
                "app",
                "audit",
                "auth",
                "broker",
                "cli",
                "client",
                "clock",
                "config",
                "control",
                "cores",
                "decision",
                "history",
                "http",
                "json",
                "log",
                "login",
                "metrics",
                "mqtt",
                "policy",
                "presence",
                "protocols",
                "retained",
                "session",
                "socketcluster",
                "text",
                "webhooks",
                "websocket",
                "wills",
            ][..],
        ),
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

/// What a pure module must not touch.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::fs",
    "std::io::Read",
    "Instant::now",
    "SystemTime::now",
    "mio::",
    "tokio::",
    "socket2::",
    "nix::",
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
    for (module, path, text) in sources() {
        let Some(may) = allowed.get(module.as_str()) else {
            panic!("{path:?}: module `{module}` has no place in the layers; give it one in this test");
        };
        for (line, imported) in imports(&text) {
            assert!(
                imported == module || may.contains(&imported.as_str()),
                "{path:?}:{line}: `{module}` imports `{imported}`, which lies beside or above it \
                 (layers: head of this test)"
            );
        }
    }
}

#[test]
fn pure_modules_touch_no_socket_clock_thread_or_file() {
    for (module, path, text) in sources() {
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            for word in IMPURE {
                assert!(
                    !line.contains(word),
                    "{path:?}:{number}: `{module}` is pure and must not use `{word}`"
                );
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_it_is_argued_for() {
    for (_, path, text) in sources() {
        if UNSAFE.iter().any(|allowed| path.ends_with(allowed)) {
            continue;
        }
        for (number, line) in code_lines(&text) {
            let found =
                line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl");
            assert!(!found, "{path:?}:{number}: `unsafe` outside {UNSAFE:?}");
        }
    }
}

#[test]
fn only_the_hot_room_owns_a_poll_and_only_the_control_room_a_runtime() {
    for (module, path, text) in sources() {
        for (number, line) in code_lines(&text) {
            // mimalloc has the word in its path; the allocator is the binary's choice.
            if line.replace("mimalloc::", "").contains("mio::") {
                let owner = ["cores", "transport", "server"].contains(&module.as_str());
                assert!(owner, "{path:?}:{number}: `{module}` must not know mio");
            }
            if line.contains("tokio::") || line.contains("axum::") {
                let owner = ["control", "hooks", "targets"].contains(&module.as_str());
                assert!(owner, "{path:?}:{number}: `{module}` must not know tokio");
            }
        }
    }
}

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
            "Who",
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

/// The names that a module shows in the documentation: its public items and what it re-exports, at the left margin.
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
    ("remembering", "turn"),
    ("post", "lifecycle"),
    ("presence", "input"),
    ("services", "input"),
];

/// Files in `src/cores` that belong to no room. `core` is the core itself, which is made of parts of all rooms and
/// knows none of their steps; `turn_time` and `fd_table` know no room; `mod` and `parts` begin a core, and know all.
const OUTSIDE: &[&str] = &["core", "turn_time", "fd_table", "mod", "parts"];

/// One source of `src/cores`.
struct CoreFile {
    path: PathBuf,
    /// The name in `src/cores`: of the folder, or of the file.
    name: String,
    /// The methods of the core in it, each with the names of methods of the core that it calls, by line.
    steps: BTreeMap<String, Vec<(usize, String)>>,
    /// What it imports from `src/cores`: the path below, by line.
    imports: Vec<(usize, Vec<String>)>,
}

impl CoreFile {
    /// Its place in the map; `None` outside.
    fn room(&self) -> Option<usize> {
        room(&self.name)
    }

    /// Whether it holds steps of the core, rather than parts that it is made of.
    fn has_steps(&self) -> bool {
        !self.steps.is_empty()
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
        for step in file.steps.keys() {
            room_of_step.insert(step.clone(), (file.room(), file.path.clone()));
        }
    }
    let mut arrows = 0;
    for file in &files {
        let Some(own) = file.room() else {
            assert!(
                OUTSIDE.contains(&file.name.as_str()),
                "{:?}: has no room in the map at the head of this test",
                file.path
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
                file.path,
                ROOMS[own],
                ROOMS[other]
            );
        }
        for (line, called) in file.steps.values().flatten() {
            let Some((Some(other), defined)) = room_of_step.get(called) else {
                continue;
            };
            arrows += 1;
            assert!(
                *other <= own,
                "{:?}:{line}: a step in `{}` calls `{called}` of {defined:?}, which lies above it",
                file.path,
                ROOMS[own]
            );
        }
    }
    assert!(
        arrows > 200,
        "imports and calls are where this test looks for them: {arrows}"
    );
}

/// A part has no core to do anything with: what the parts keep private nobody else can break, and a delivery, which is
/// made of parts alone, cannot close a connection or read one.
#[test]
fn parts_of_a_core_know_neither_the_core_nor_its_steps() {
    let files = core_files();
    let step_files: Vec<Vec<String>> = files
        .iter()
        .filter(|file| file.has_steps() && file.name != "core")
        .map(|file| module_of(&file.path))
        .collect();
    for file in &files {
        if (file.has_steps() && file.name != "core") || file.name == "mod" || file.name == "parts" {
            continue;
        }
        for (line, imported) in &file.imports {
            assert!(
                imported[0] != "core",
                "{:?}:{line}: a part of a core imports the core",
                file.path
            );
            for step_file in &step_files {
                assert!(
                    !imported.starts_with(step_file),
                    "{:?}:{line}: a part of a core, or the core itself, imports from a file of steps, `{}`",
                    file.path,
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
            steps.map(|file| &file.path)
        );
    }
}

/// The path of a file's module below `cores`.
fn module_of(path: &Path) -> Vec<String> {
    let names = path.components().map(|name| name.as_os_str().to_str().unwrap());
    // The checkout may have any name.
    let below = names.skip_while(|name| *name != "src");
    let below = below.skip_while(|name| *name != "cores").skip(1);
    below
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .filter(|name| name != "mod")
        .collect()
}

/// All sources of `src/cores` but the simulation and the files of unit tests.
fn core_files() -> Vec<CoreFile> {
    let mut files = Vec::new();
    for (module, path, text) in sources() {
        let below = module_of(&path);
        if module != "cores" || below.first().is_some_and(|name| name == "simulation") {
            continue;
        }
        let name = below.first().cloned().unwrap_or_else(|| "mod".to_owned());
        let (mut steps, mut imports) = (BTreeMap::new(), Vec::new());
        let (mut in_core, mut step) = (false, String::new());
        for (number, line) in code_lines_before_tests(&text) {
            if line.starts_with("impl<A: App> Core<A>") {
                in_core = true;
            } else if line.starts_with('}') {
                in_core = false;
            }
            if in_core && let Some(name) = method(line) {
                steps.insert(name.clone(), Vec::new());
                step = name;
            } else if in_core && let Some(calls) = steps.get_mut(&step) {
                calls.extend(called(line).map(|name| (number, name)));
            }
            for after in line.split("crate::cores::").skip(1) {
                let words = after.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
                let path = words.into_iter().next().unwrap_or("").split("::");
                let modules: Vec<String> = path
                    .take_while(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
                    .map(str::to_owned)
                    .collect();
                // The ids and settings in `mod.rs` are known to all, the simulation to what it replaces.
                if modules.first().is_some_and(|name| name != "simulation") {
                    imports.push((number, modules));
                }
            }
        }
        files.push(CoreFile {
            path,
            name,
            steps,
            imports,
        });
    }
    assert!(files.len() > 30, "the rooms are where this test looks for them");
    files
}

/// The name of a method that begins in this line of an `impl`.
fn method(line: &str) -> Option<String> {
    let line = line.strip_prefix("    ").filter(|line| !line.starts_with(' '))?;
    let (before, after) = line.split_once("fn ")?;
    let is_head = before.is_empty() || before.starts_with("pub");
    is_head.then(|| {
        after
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    })
}

/// The methods of the core that a line of a method calls, by `self` or as the `core` of a closure.
fn called(line: &str) -> impl Iterator<Item = String> {
    let after = ["self.", "core."]
        .into_iter()
        .flat_map(|whose| line.split(whose).skip(1));
    after.filter_map(|after| {
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        after[end..].starts_with('(').then(|| after[..end].to_owned())
    })
}

/// As [`code_lines`], but past items that only tests have.
fn code_lines_before_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
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
    for (module, path, text) in sources() {
        if module != "cores" || WEBSOCKET.iter().any(|allowed| path.ends_with(allowed)) {
            continue;
        }
        for (line, imported) in imports(&text) {
            assert!(
                imported != "websocket",
                "{path:?}:{line}: imports `websocket`; a connection, its outbox and its end know only a wire and a framing \
                 (src/protocols/wire.rs)"
            );
        }
    }
}

/// All sources but the files of unit tests: top-level module, path, text.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let relative = path.strip_prefix(&root).unwrap();
                let first = relative
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push((module, path, text));
            }
        }
    }
    assert!(found.len() > 30, "the sources are where this test looks for them");
    found
}

/// Lines that are neither comments nor behind the file's own tests.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// The top-level modules of this crate that a file names by `crate::`.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code_lines(text) {
        for after in line.split("crate::").skip(1) {
            let names: Vec<&str> = match after.strip_prefix('{') {
                Some(group) => group.split([',', '}']).map(str::trim).collect(),
                None => vec![after],
            };
            for name in names {
                let module: String = name
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                if !module.is_empty() {
                    found.push((number, module));
                }
            }
        }
    }
    found
}
