//! Every row: its default, its bounds, its names, and what it changes.

use super::*;

fn setting(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).unwrap()
}

#[test]
fn every_default_reads_back_as_itself() {
    let defaults = Config::default();
    for setting in SETTINGS {
        let Some(text) = setting.show(&defaults) else {
            continue;
        };
        let mut config = Config::default();
        assert_eq!(setting.store(&mut config, &text), Ok(()), "{}", setting.name);
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"), "{}", setting.name);
    }
}

#[test]
fn every_setting_changes_only_its_own_value() {
    let defaults = Config::default();
    for setting in SETTINGS {
        let other = [
            "2",
            "/",
            "other",
            "/other",
            "10.0.0.1:1",
            "off",
            "on",
            "skip",
            "shared",
            "json",
            "HS512",
            "debug",
            "optional",
            "on",
            "https://other.example",
            "192.0.2.1",
            "refuse",
            "auto",
            "on",
            "https://id.example/",
            "json",
            "2001:db8:64::/96",
            "strict",
            "socketcluster,mqtt",
            "oldest",
            "count",
            "min-bin",
        ]
        .into_iter()
        .chain((setting.kind == Kind::Number).then_some("70000"))
        .chain((setting.kind == Kind::Number).then_some("3000"))
        .find(|text| {
            let mut config = Config::default();
            setting.store(&mut config, text).is_ok() && setting.show(&config) != setting.show(&defaults)
        })
        .unwrap_or_else(|| panic!("no other value of {} is known here", setting.name));
        let mut config = Config::default();
        setting.store(&mut config, other).unwrap();
        for neighbour in SETTINGS {
            let same = neighbour.show(&config) == neighbour.show(&defaults);
            assert_eq!(
                same,
                neighbour.name != setting.name,
                "{} changed {}",
                setting.name,
                neighbour.name
            );
        }
    }
}

#[test]
fn names_are_told_apart_by_flag_variable_and_key() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert!(
            SETTINGS[..index].iter().all(|other| other.name != setting.name),
            "{}",
            setting.name
        );
        assert!(
            setting
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        );
    }
    let setting = setting("handshake_timeout_ms");
    assert_eq!(setting.flag(), "--handshake-timeout-ms");
    assert_eq!(setting.variable(), "RINGCAST_HANDSHAKE_TIMEOUT_MS");
    assert_eq!(setting.key(), "limits.handshake_timeout_ms");
}

#[test]
fn values_end_at_their_bounds() {
    for (name, legal, illegal) in [
        (
            "ping_timeout_ms",
            &["1", "2147483647"][..],
            &["0", "2147483648", "-1", "1.5", "1s", ""][..],
        ),
        ("drain_seconds", &["0", "86400"], &["86401", "x"]),
        ("liveness_timeout_ms", &["100", "3600000"], &["99", "3600001"]),
        ("busy_poll_us", &["0", "1000"], &["1001", "-1"]),
        ("fan_out_slice_us", &["10", "1000000"], &["9", "1000001"]),
        ("fragments_max", &["4294967295"], &["4294967296", "0"]),
        (
            "listen",
            &["0.0.0.0:0", "[::1]:8000"],
            &["8000", "localhost:8000", "127.0.0.1", "127.0.0.1:65536"],
        ),
        ("admin", &["off", "127.0.0.1:1"], &["on", ""]),
        (
            "path",
            &["/", "/socketcluster/"],
            &["", "socketcluster", "/a b", "/a?b", "/a#b"],
        ),
        (
            "probe_paths",
            &["off", "/", "/a, /b", "/health-check,/healthz"],
            &["", "/a,", "a", "/a b", "/a?b", "on"],
        ),
        ("welcome_page", &["auto", "on", "off"], &["", "yes"]),
        ("pings", &["on", "off", "true", "false"], &["", "1", "yes", "ON"]),
        ("protocol", &["auto", "1", "2"], &["0", "3", "v1"]),
        ("auth_algorithm", &["HS256", "EdDSA"], &["none", "hs256", ""]),
        (
            "auth_key",
            &["k", "two words"],
            &["", "key\n", "key ", "\tkey", "key\r", "\u{feff}key"],
        ),
        ("password_file", &["users"], &["", "users\r", "us\0ers"]),
        ("login_threads", &["1"], &["1\r", " 1"]),
        (
            "log",
            &["info", "ringcast=debug,warn", "off"],
            &["", "loud=very", "=info="],
        ),
        ("origins", &["*:*", "example.com:*"], &[""]),
        (
            "allowed_origins",
            &["https://example.com", "http://localhost:* null", ""],
            &["example.com", "*:*", "https://*"],
        ),
        (
            "trusted_proxies",
            &["10.0.0.0/8, ::1", ""],
            &["10.0.0.1/8", "localhost", "*"],
        ),
        (
            "translator_prefixes",
            &["2001:db8:64::/96, 2001:db8:65::/64", ""],
            &[
                "2001:db8:64::",
                "2001:db8:64::/95",
                "2001:db8::1/96",
                "192.0.2.0/24",
            ],
        ),
        ("cores", &["auto", "0-1"], &["0"]),
        ("login_path", &["/login", "/a/b"], &["", "login", "/a?b"]),
        (
            "login_cookie",
            &["ringcast", "__Host-a.b"],
            &["", "a b", "a=b", "a;b", "é"],
        ),
        ("login_user_fields", &["a", "a, b"], &["", "a,", ",a"]),
        ("allow_anonymous", &["auto", "on", "off"], &["", "yes"]),
        ("probes_without_key", &["auto", "on", "off"], &["", "yes"]),
        (
            "admin_hosts",
            &["a", "a.example, b_c"],
            &["", "a,", "a:1", "http://a", "a b"],
        ),
        ("authentication_timeout_ms", &["0"], &["-1"]),
    ] {
        for text in legal {
            assert_eq!(
                setting(name).store(&mut Config::default(), text),
                Ok(()),
                "{name} {text}"
            );
        }
        for text in illegal {
            assert_eq!(
                setting(name).store(&mut Config::default(), text),
                Err(Unexpected),
                "{name} {text}"
            );
        }
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    for setting in SETTINGS.iter().filter(|setting| setting.kind == Kind::Secret) {
        let mut config = Config::default();
        setting.store(&mut config, "topsecret").unwrap();
        assert_eq!(setting.show(&config).as_deref(), Some("…"));
        assert!(!format!("{config:?}").contains("topsecret"));
    }
}
