//! Flags, variables, credentials and files together.

use super::*;
use crate::config::unknown::NAMES_ELSEWHERE;

fn pairs<'a, T: From<&'a str>>(list: &[(&'a str, &'a str)]) -> Vec<(T, T)> {
    list.iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn load(
    flags: &[(&str, &str)],
    variables: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Loaded, ConfigErrors> {
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in variables {
        environment.push((name.into(), value.into()));
    }
    let folder = TestFile::new(file.unwrap_or_default());
    if file.is_some() {
        environment.push((CONFIG_VARIABLE.into(), folder.0.clone().into()));
    }
    ConfigSources::new(pairs(flags), environment).load()
}

fn message(flags: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&str>) -> String {
    let text = load(flags, variables, file).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

/// A file of its own for each test, removed at its end.
struct TestFile(PathBuf);

impl TestFile {
    fn new(text: &str) -> TestFile {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ringcast-{}-{}.toml",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        TestFile(file)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // A file that stays behind harms nothing.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let flag = [("tcp-backlog", "1")];
    let variable = [("RINGCAST_TCP_BACKLOG", "2")];
    let file = Some("tcp_backlog = 3");
    for (loaded, backlog, source) in [
        (load(&flag, &variable, file), 1, Source::Flag),
        (load(&[], &variable, file), 2, Source::Variable),
        (load(&[], &[], file), 3, Source::File),
        (load(&[], &[], None), 4096, Source::Default),
    ] {
        let loaded = loaded.unwrap();
        assert_eq!(loaded.config.listen.tcp_backlog, backlog);
        let found = loaded
            .settings()
            .find(|(setting, ..)| setting.name == "tcp_backlog")
            .unwrap();
        assert_eq!((found.1.unwrap(), found.2), (backlog.to_string(), source));
    }
}

#[test]
fn every_setting_can_be_set_from_every_source() {
    for setting in SETTINGS {
        let text = match setting.kind {
            Kind::Secret => "topsecret".to_owned(),
            Kind::Text | Kind::Number | Kind::TextOrNumber | Kind::Switch => setting
                .show(&Config::default())
                .unwrap_or_else(|| match setting.name {
                    "auth_algorithm" => "HS256".into(),
                    "allowed_origins" => "https://example.com".into(),
                    "jwks_url" => "https://id.example/".into(),
                    "trusted_proxies" => "192.0.2.1".into(),
                    "translator_prefixes" => "2001:db8:64::/96".into(),
                    _ => "file".into(),
                }),
        };
        let quoted = if setting.kind == Kind::Number {
            text.clone()
        } else {
            format!("\"{text}\"")
        };
        let line = match setting.table {
            Some(table) => format!("[{table}]\n{} = {quoted}", setting.name),
            None => format!("{} = {quoted}", setting.name),
        };
        let flag = setting.flag();
        for (outcome, source) in [
            (load(&[(&flag[2..], &text)], &[], None), Source::Flag),
            (load(&[], &[(&setting.variable(), &text)], None), Source::Variable),
            (load(&[], &[], Some(&line)), Source::File),
        ] {
            match outcome {
                Ok(loaded) => {
                    let found = loaded
                        .settings()
                        .find(|(other, ..)| other.name == setting.name)
                        .unwrap();
                    assert_eq!(found.2, source, "{}", setting.name);
                }
                Err(error) => {
                    // Some settings ask for another.
                    let conflicts = error
                        .iter()
                        .all(|error| matches!(error, ConfigError::Conflict(_)));
                    assert!(conflicts, "{line}: {error}")
                }
            }
        }
    }
}

#[test]
fn unknown_names_lead_to_the_nearest_known_one() {
    let text = message(&[("ping-intervall-ms", "1")], &[], None);
    assert_eq!(
        text,
        "command line: --ping-intervall-ms is not known; did you mean --ping-interval-ms?"
    );
    let text = message(&[], &[("RINGCAST_CORE", "1")], None);
    assert_eq!(
        text,
        "environment: RINGCAST_CORE is not known; did you mean RINGCAST_CORES?"
    );
    let text = message(&[], &[], Some("lissten = \"127.0.0.1:1\""));
    assert!(
        text.ends_with(".toml: line 1: lissten is not known; did you mean listen?"),
        "{text}"
    );
    let text = message(&[], &[], Some("message_bytes_max = 1"));
    assert!(
        text.ends_with("line 1: message_bytes_max is not known; did you mean limits.message_bytes_max?"),
        "{text}"
    );
    let text = message(&[], &[], Some("[limits]\nmesage_bytes_max = 1"));
    assert!(
        text.ends_with(
            ".toml: line 2: limits.mesage_bytes_max is not known; did you mean limits.message_bytes_max?"
        ),
        "{text}"
    );
    let text = message(&[], &[], Some("[limitz]\nring_slots = 2"));
    assert!(
        text.contains("line 1: limitz is not known; did you mean limits?"),
        "{text}"
    );
}

#[test]
fn variables_of_others_are_ignored() {
    assert!(load(&[], &[("PATH", "/bin"), ("RINGCASTER", "1")], None).is_ok());
    let service = [
        ("RINGCAST_PORT", "tcp://10.0.0.11:8000"),
        ("RINGCAST_SERVICE_HOST", "10.0.0.11"),
        ("RINGCAST_ADMIN_PORT_9464_TCP_ADDR", "10.0.0.12"),
        ("RINGCAST_TCP_BACKLOG", "7"),
    ];
    let loaded = load(&[], &service, None).unwrap();
    assert_eq!(loaded.config.listen.tcp_backlog, 7);
    assert_eq!(loaded.ignored.len(), 3);
    let text = message(&[], &[service[0], service[1], ("RINGCAST_CORE", "1")], None);
    assert_eq!(
        text,
        "environment: RINGCAST_CORE is not known; did you mean RINGCAST_CORES?"
    );
}

#[test]
fn a_file_of_another_system_says_the_same() {
    let text = "\u{feff}tcp_backlog = 7\nauth_issuer = \"\"\"\nhttps://a.example,\n  https://b.example\n\"\"\"\n\
                [[rules]]\nallow = \"publish\"\nchannels = [\n  \"a\",\n  \"b\"\n]\n";
    for text in [
        text.to_owned(),
        text.replace('\n', "\r\n"),
        text.replace(",\n", ", \t\r\n"),
    ] {
        let config = load(&[], &[], Some(&text)).unwrap().config;
        assert_eq!(config.listen.tcp_backlog, 7);
        assert_eq!(config.auth.issuer, ["https://a.example", "https://b.example"]);
        assert_eq!(config.permissions.rules.len(), 1);
    }
    let utf_16: Vec<u16> = text.encode_utf16().collect();
    let file = TestFile::new("");
    std::fs::write(
        &file.0,
        utf_16
            .iter()
            .flat_map(|unit| unit.to_le_bytes())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    let flags = vec![("config".to_owned(), file.0.display().to_string())];
    let error = ConfigSources::new(flags, []).load().unwrap_err().to_string();
    assert!(
        error.contains("cannot be read: line 1: the file is UTF-16"),
        "{error}"
    );
}

#[test]
fn a_name_that_is_like_none_leads_nowhere() {
    for (flags, variables, file) in [
        (&[("foo", "1")][..], &[][..], None),
        (&[], &[("RINGCAST_FOO", "1")], None),
        (&[], &[], Some("foo = 1")),
        (&[], &[], Some("[limits]\nfoo = 1")),
    ] {
        let text = message(flags, variables, file);
        assert!(
            text.ends_with(" is not known; `ringcast --help` lists the known ones"),
            "{text}"
        );
    }
}

#[test]
fn names_of_other_servers_lead_to_ours() {
    let text = message(&[], &[("RINGCAST_PORT", "8000")], None);
    assert_eq!(
        text,
        "environment: RINGCAST_PORT is not known; did you mean RINGCAST_LISTEN?"
    );
    for (_, ours) in NAMES_ELSEWHERE {
        assert!(
            setting_of_variable(&format!("{PREFIX}{ours}")).is_some(),
            "{ours}"
        );
    }
}

#[test]
fn errors_name_place_value_and_remedy() {
    assert_eq!(
        message(&[("ping-timeout-ms", "2147483648")], &[], None),
        "--ping-timeout-ms: found \"2147483648\", expected a whole number from 1 to 2147483647"
    );
    assert_eq!(
        message(&[], &[("RINGCAST_PINGS", "yes")], None),
        "RINGCAST_PINGS: found \"yes\", expected on or off"
    );
    for (file, end) in [
        (
            "\n\nlisten = 8000",
            ": line 3: listen: found \"8000\", expected an address with a port, such as 127.0.0.1:8000 or [::]:8000",
        ),
        ("tcp_backlog = \"1\"", "expected a whole number from 1 to 65535"),
    ] {
        let text = message(&[], &[], Some(file));
        assert!(text.ends_with(end), "{text}");
    }
    assert!(message(&[], &[], Some("limits = 1")).contains("limits is not known"));
    let text = message(&[("config", "/nowhere/ringcast.toml")], &[], None);
    assert!(
        text.starts_with("/nowhere/ringcast.toml: cannot be read: "),
        "{text}"
    );
    let text = message(&[], &[("RINGCAST_CONFIG", "")], None);
    assert_eq!(
        text,
        "RINGCAST_CONFIG: found \"\", expected the name of a TOML file"
    );
}

#[test]
fn all_errors_are_found_each_with_its_line() {
    let text = "listen = 8000\nfoo = 1\n[limits]\nmessage_bytes_max = \"-1\"\noutbox_bytes_max = -1\n\n\
                [[rules]]\nalow = \"publish\"\n[[shadow_rules]]\nallow = \"publsh\"\n";
    let flags = [("cores", "0"), ("foo", "1")];
    let variables = [("RINGCAST_LISTN", "127.0.0.1:1"), ("RINGCAST_PINGS", "yes")];
    let errors = load(&flags, &variables, Some(text)).unwrap_err();
    let said: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
    let expected = [
        "command line: --foo is not known",
        "environment: RINGCAST_LISTN is not known; did you mean RINGCAST_LISTEN?",
        "line 1: listen: found \"8000\"",
        "line 2: foo is not known",
        "line 4: limits.message_bytes_max: found \"\\\"-1\\\"\"",
        "line 5: limits.outbox_bytes_max: found \"-1\", expected a whole number",
        "line 8: rules number 1: alow is not known",
        "line 10: shadow_rules number 1: allow: \"publsh\" is not an action; did you mean publish?",
        "--cores: found \"0\"",
        "RINGCAST_PINGS: found \"yes\"",
    ];
    for part in expected {
        assert_eq!(
            said.iter().filter(|line| line.contains(part)).count(),
            1,
            "{part}: {said:#?}"
        );
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    assert_eq!(errors.to_string().lines().count(), said.len());
}

#[test]
fn each_line_that_is_no_toml_is_named_and_nothing_else_of_the_file() {
    let text = "listen = \nauth_key = topsecret\nfoo = 1\n[limits\n";
    let errors = load(&[("cores", "0")], &[], Some(text)).unwrap_err().to_string();
    for part in [
        "line 1 is not TOML",
        "line 2 is not TOML",
        "line 4 is not TOML",
        "--cores: found \"0\"",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert!(
        !errors.contains("topsecret") && !errors.contains("foo"),
        "{errors}"
    );
}

#[test]
fn a_value_that_is_not_taken_conflicts_with_nothing() {
    let admin = ("RINGCAST_ADMIN", "0.0.0.0:9464");
    let errors = load(&[], &[admin, ("RINGCAST_ADMIN_KEY", "a key ")], None).unwrap_err();
    assert_eq!(errors.iter().count(), 1, "{errors}");
    let errors = load(
        &[],
        &[
            admin,
            ("RINGCAST_PROXY_PROTOCOL", "on"),
            ("RINGCAST_X_FORWARDED_FOR", "on"),
        ],
        None,
    );
    assert_eq!(errors.unwrap_err().iter().count(), 3);
}

#[test]
fn errors_show_no_secret() {
    let text = message(&[], &[("RINGCAST_AUTH_KEY", "topsecret\n")], None);
    assert!(text.starts_with("RINGCAST_AUTH_KEY: expected a key"), "{text}");
    for file in [
        "auth_key = \"topsecret\\n\"",
        "auth_key = [\"topsecret\"]",
        "a = 1\nauth_key = topsecret\n",
    ] {
        let text = message(&[], &[], Some(file));
        assert!(!text.contains("topsecret"), "{text}");
    }
    let text = message(
        &[],
        &[],
        Some("listen = \"127.0.0.1:1\"\nauth_key = 'topsecret\n"),
    );
    assert!(
        text.contains("line 2 is not TOML") && !text.contains("topsecret"),
        "{text}"
    );
    let sources = ConfigSources::new(pairs(&[("auth-key", "topsecret")]), []);
    assert!(!format!("{sources:?} {:?}", sources.load()).contains("topsecret"));
}

#[test]
fn the_file_of_the_flag_beats_that_of_the_variable() {
    let file = TestFile::new("tcp_backlog = 7");
    let flags = vec![("config".to_owned(), file.0.display().to_string())];
    let environment = [(CONFIG_VARIABLE.into(), "/nowhere".into())];
    assert_eq!(
        ConfigSources::new(flags, environment)
            .load()
            .unwrap()
            .config
            .listen
            .tcp_backlog,
        7
    );
}

#[test]
fn an_empty_variable_is_an_error_rather_than_unset() {
    assert_eq!(
        message(&[], &[("RINGCAST_CORES", "")], None),
        "RINGCAST_CORES: found \"\", expected auto, a number from 1 to 128, or CPUs such as 0-3,6 (6-6 for one CPU)"
    );
}

#[test]
fn the_environment_of_a_socketcluster_server_is_read_and_each_line_names_the_setting_to_write() {
    let options = r#"{"authKey":"the key of the old server, kept","pingInterval":5000,"pingTimeoutDisabled":true,
        "perMessageDeflate":{},"wsEngineServerOptions":{"maxPayload":4096,"backlog":7},"ackTimeout":"soon",
        "authPrivateKey":"-----BEGIN","myOption":{"a":1}}"#;
    let variables = [
        ("SOCKETCLUSTER_PORT", "8123"),
        ("SOCKETCLUSTER_WORKERS", "2"),
        ("SOCKETCLUSTER_LOG_LEVEL", "1"),
        ("SOCKETCLUSTER_OPTIONS", options),
        ("SOCKETCLUSTER_BROKERS", ""),
        ("SCC_STATE_SERVER_HOST", "state"),
        ("SOCKETCLUSTER_SERVICE_HOST", "10.0.0.11"),
    ];
    let loaded = load(
        &[],
        &variables,
        Some("listen = \"127.0.0.1:7000\"\nping_timeout_ms = 7000"),
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen.address.to_string(), "[::]:8123");
    assert_eq!(
        config.auth.key.as_ref().unwrap().expose(),
        b"the key of the old server, kept"
    );
    assert_eq!(config.socketcluster.ping_interval.as_millis(), 5000);
    assert_eq!(config.socketcluster.ping_timeout.as_millis(), 7000);
    assert!(!config.socketcluster.pings && config.delivery.compression);
    assert_eq!(config.limits.message_bytes_max, 4096);
    let lines: Vec<&str> = loaded.inherited.iter().map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "SOCKETCLUSTER_PORT is read as RINGCAST_LISTEN=[::]:8123; write that instead",
            "SOCKETCLUSTER_WORKERS is read as RINGCAST_CORES=2; write that instead",
            "SOCKETCLUSTER_LOG_LEVEL is read as RINGCAST_LOG=error,ringcast::server=warn; write that instead",
            "SOCKETCLUSTER_OPTIONS.ackTimeout is not used: its value is not one that the setting takes",
            "SOCKETCLUSTER_OPTIONS.authKey is read as RINGCAST_AUTH_KEY=…; write that instead",
            "SOCKETCLUSTER_OPTIONS.authPrivateKey is not used: write the key to a file, and name that by \
             RINGCAST_AUTH_PRIVATE_KEY_FILE or RINGCAST_AUTH_PUBLIC_KEY_FILE",
            "SOCKETCLUSTER_OPTIONS.myOption is not used: socketcluster-server has no such option, or Ringcast does not know it",
            "SOCKETCLUSTER_OPTIONS.perMessageDeflate is read as RINGCAST_COMPRESSION=on; write that instead",
            "SOCKETCLUSTER_OPTIONS.pingInterval is read as RINGCAST_PING_INTERVAL_MS=5000; write that instead",
            "SOCKETCLUSTER_OPTIONS.pingTimeoutDisabled is read as RINGCAST_PINGS=off; write that instead",
            "SOCKETCLUSTER_OPTIONS.wsEngineServerOptions.backlog is not used: socketcluster-server has no such option, or \
             Ringcast does not know it",
            "SOCKETCLUSTER_OPTIONS.wsEngineServerOptions.maxPayload is read as RINGCAST_MESSAGE_BYTES_MAX=4096; write that \
             instead",
            "SCC_STATE_SERVER_HOST is not used: Ringcast runs on one machine, on all of its cores: there are no brokers and \
             no state server",
        ]
    );
}

#[test]
fn settings_of_this_server_are_stronger_than_those_of_the_old_one_and_nothing_of_it_is_an_error() {
    let listen = ("RINGCAST_LISTEN", "127.0.0.1:7000");
    let loaded = load(&[], &[("SOCKETCLUSTER_PORT", "8123"), listen], None).unwrap();
    assert_eq!(loaded.config.listen.address.to_string(), "127.0.0.1:7000");
    assert!(
        loaded.inherited[0].contains("remove it"),
        "{:?}",
        loaded.inherited
    );
    let flags = [("listen", "127.0.0.1:7001")];
    let loaded = load(&flags, &[("SOCKETCLUSTER_PORT", "8123")], None).unwrap();
    assert_eq!(loaded.config.listen.address.to_string(), "127.0.0.1:7001");
    for (name, value) in [
        ("SOCKETCLUSTER_OPTIONS", "{"),
        ("SOCKETCLUSTER_OPTIONS", "[1]"),
        (
            "SOCKETCLUSTER_OPTIONS",
            r#"{"origins":{"a":[]},"workers":-1,"port":65536,"wsEngineServerOptions":7}"#,
        ),
        ("SOCKETCLUSTER_PORT", "http"),
        ("SOCKETCLUSTER_WORKERS", "many"),
        ("SOCKETCLUSTER_WORKERS", "126-127"),
        ("SOCKETCLUSTER_LOG_LEVEL", "x"),
        ("SOCKETCLUSTER_SOCKET_CHANNEL_LIMIT", "1e9"),
    ] {
        let loaded = load(&[], &[(name, value)], None).unwrap();
        assert!(!loaded.inherited.is_empty(), "{name}={value}");
        assert!(
            loaded
                .inherited
                .iter()
                .all(|line| line.contains(" is not used: ")),
            "{:?}",
            loaded.inherited
        );
    }
}

/// A server of SocketCluster may have each of these values, and Ringcast could not start with it.
#[test]
fn a_value_of_the_old_server_that_does_not_go_with_the_settings_is_left_out() {
    let rsa = r#"{"authAlgorithm":"RS256","authPrivateKey":"-----BEGIN","authPublicKey":"-----BEGIN"}"#;
    let port = ("SOCKETCLUSTER_PORT", "9464");
    for (variable, file) in [
        (("SOCKETCLUSTER_OPTIONS", rsa), ""),
        (
            (
                "SOCKETCLUSTER_OPTIONS",
                r#"{"authKey":"-----BEGIN PUBLIC KEY-----"}"#,
            ),
            "",
        ),
        (
            ("SOCKETCLUSTER_OPTIONS", r#"{"authAlgorithm":"HS512"}"#),
            "auth_public_key_file = \"public.pem\"",
        ),
        (
            ("SOCKETCLUSTER_OPTIONS", r#"{"authAlgorithm":"HS512"}"#),
            "jwks_file = \"keys.json\"",
        ),
        (
            ("SOCKETCLUSTER_OPTIONS", r#"{"authKey":"a shared key"}"#),
            "auth_public_key_file = \"public.pem\"",
        ),
        (
            ("SOCKETCLUSTER_OPTIONS", r#"{"authKey":"a shared key"}"#),
            "auth_algorithm = \"RS256\"\njwks_file = \"keys.json\"",
        ),
        (port, "admin = \"127.0.0.1:9464\""),
        (("SOCKETCLUSTER_PORT", "1883"), "mqtt_listen = \"127.0.0.1:1883\""),
    ] {
        let loaded = load(&[], &[variable], Some(file)).unwrap();
        let without = load(&[], &[], Some(file)).unwrap();
        let settings = |loaded: &Loaded| -> Vec<_> {
            let settings = loaded.settings();
            settings
                .map(|(setting, value, source)| (setting.name, value, source))
                .collect()
        };
        assert_eq!(settings(&loaded), settings(&without), "{variable:?}");
        for line in &loaded.inherited {
            assert!(line.contains(" is not used: "), "{line}");
        }
        assert!(!loaded.inherited.is_empty(), "{variable:?}");
    }
}

#[test]
fn of_two_names_for_a_setting_the_one_that_the_old_server_used_counts_in_any_order() {
    let options = r#"{"maxPayload":7000,"wsEngineServerOptions":{"maxPayload":8000},"port":9000,"workers":3,
        "authAlgorithm":"HS256","authSignAlgorithm":"HS512"}"#;
    let mut variables = [
        ("SOCKETCLUSTER_OPTIONS", options),
        ("SOCKETCLUSTER_PORT", "8123"),
        ("SOCKETCLUSTER_WORKERS", "2"),
        ("SOCKETCLUSTER_SOCKET_CHANNEL_LIMIT", "7"),
    ];
    for _ in 0..2 {
        let loaded = load(&[], &variables, None).unwrap();
        let config = &loaded.config;
        assert_eq!(config.listen.address.port(), 8123);
        assert_eq!(config.cores.placement.to_string(), "3");
        assert_eq!(config.limits.message_bytes_max, 8000);
        assert_eq!(config.auth.algorithm.as_deref(), Some("HS256"));
        let channels = Config::default().limits.channels_per_connection_max;
        assert_eq!(config.limits.channels_per_connection_max, channels);
        let unused = loaded
            .inherited
            .iter()
            .filter(|line| line.contains(" is not used: "));
        assert_eq!(unused.count(), 5, "{:?}", loaded.inherited);
        variables.reverse();
    }
    let alone = ("SOCKETCLUSTER_OPTIONS", r#"{"maxPayload":10485760,"port":9000}"#);
    let loaded = load(&[], &[alone], None).unwrap();
    assert_eq!(loaded.config.limits.message_bytes_max, 10_485_760);
    assert_eq!(loaded.config.listen.address, Config::default().listen.address);
}
