//! Variables that begin with `RINGCAST_` and that other programs set.
//!
//! Kubernetes describes each Service of a namespace to every pod of it, in variables that begin with the Service's
//! name: one named `ringcast` or `ringcast-admin` makes `RINGCAST_PORT`, `RINGCAST_ADMIN_SERVICE_HOST` and so on
//! (`enableServiceLinks`). Docker does the same for linked containers (`--link`). These variables say nothing about
//! this server's settings and must not stop its start, while a misspelled setting has to.
//!
//! | name, behind `RINGCAST_` and perhaps more of the Service's name | value |
//! |---|---|
//! | `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_HTTP` | any |
//! | `PORT` | `tcp://10.0.0.11:8000`, or `udp`, `sctp` |
//! | `PORT_8000_TCP`, and behind it `_PROTO`, `_PORT`, `_ADDR`, `_START`, `_END` | any |
//! | `NAME` | `/web/ringcast`, a container's |
//! | `ENV_` and a variable of the linked container | any |

use std::ffi::OsStr;

use super::settings::PREFIX;

/// Whether a variable is one of the table above. If a setting ever has such a name, the variable counts as another
/// program's only with a value that no setting accepts.
pub(super) fn is_of_others(name: &str, value: &OsStr, is_setting: bool) -> bool {
    let Some(name) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let value = value.to_str().unwrap_or_default();
    let words: Vec<&str> = name.split('_').collect();
    if is_service_url(value) {
        return words.contains(&"PORT");
    }
    !is_setting && (is_of_service(&words) || is_of_link(&words, value))
}

/// Whether the words end in those of a Service: `… SERVICE HOST`, `… SERVICE PORT [NAME]`, `… PORT 8000 TCP […]`.
fn is_of_service(words: &[&str]) -> bool {
    (0..words.len()).any(|at| match &words[at..] {
        ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT", number, protocol, ..] => {
            number.parse::<u16>().is_ok() && PROTOCOLS.contains(&protocol.to_ascii_lowercase().as_str())
        }
        _ => false,
    })
}

/// Whether Docker sets such a variable for a linked container.
fn is_of_link(words: &[&str], value: &str) -> bool {
    let has_variable = words
        .iter()
        .position(|word| *word == "ENV")
        .is_some_and(|at| at + 1 < words.len());
    has_variable || (words.last() == Some(&"NAME") && value.starts_with('/'))
}

/// `tcp://10.0.0.11:8000`, which no setting accepts.
pub(super) fn is_service_url(value: &str) -> bool {
    let Some((protocol, address)) = value.split_once("://") else {
        return false;
    };
    PROTOCOLS.contains(&protocol)
        && address
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn ignored(name: &str, value: &str) -> bool {
        is_of_others(name, value.as_ref(), false)
    }

    #[test]
    fn what_kubernetes_and_docker_say_of_a_service_of_this_name_is_theirs() {
        for service in [
            "RINGCAST",
            "RINGCAST_ADMIN",
            "RINGCAST_2",
            "RINGCAST_TLS_LISTEN",
            "RINGCAST_HTTP_API",
        ] {
            for (rest, value) in [
                ("SERVICE_HOST", "10.0.0.11"),
                ("SERVICE_HOST", "fd00::1"),
                ("SERVICE_PORT", "8000"),
                ("SERVICE_PORT_HTTP", "8000"),
                ("SERVICE_PORT_HTTP_METRICS", "9464"),
                ("PORT", "tcp://10.0.0.11:8000"),
                ("PORT", "tcp://[fd00::1]:8000"),
                ("PORT", "udp://10.0.0.11:53"),
                ("PORT_8000_TCP", "tcp://10.0.0.11:8000"),
                ("PORT_8000_TCP_PROTO", "tcp"),
                ("PORT_8000_TCP_PORT", "8000"),
                ("PORT_8000_TCP_ADDR", "10.0.0.11"),
                ("PORT_9464_SCTP_ADDR", "10.0.0.11"),
                ("PORT_8000_TCP_START", "tcp://172.17.0.2:8000"),
                ("PORT_8000_TCP_PORT_END", "8010"),
                ("NAME", "/web/ringcast"),
                ("ENV_PATH", "/usr/bin"),
                ("ENV_RINGCAST_CORES", "2"),
            ] {
                assert!(
                    ignored(&format!("{service}_{rest}"), value),
                    "{service}_{rest}={value}"
                );
            }
        }
    }

    #[test]
    fn a_setting_that_is_spelled_wrongly_is_not_theirs() {
        for (name, value) in [
            ("RINGCAST_CORE", "2"),
            ("RINGCAST_LISTN", "0.0.0.0:8000"),
            ("RINGCAST_PORT", "8000"),
            ("RINGCAST_PORT", ""),
            ("RINGCAST_PORT", "https://10.0.0.11:8000"),
            ("RINGCAST_ADMIN_PORT", "9464"),
            ("RINGCAST_HOST", "0.0.0.0"),
            ("RINGCAST_SERVICE", "x"),
            ("RINGCAST_ENV", "production"),
            ("RINGCAST_NAME", "ringcast"),
            ("RINGCAST_PORT_TCP", "8000"),
            ("RINGCAST_LISTN", "tcp://10.0.0.11:8000"),
            ("RINGCAST_", "x"),
        ] {
            assert!(!ignored(name, value), "{name}={value}");
        }
    }

    #[test]
    fn a_setting_is_theirs_only_with_a_value_that_no_setting_takes() {
        for setting in SETTINGS {
            for value in [
                "",
                "10.0.0.11",
                "8000",
                "https://id.example:8000/",
                "/web/ringcast",
            ] {
                assert!(
                    !is_of_others(&setting.variable(), value.as_ref(), true),
                    "{}",
                    setting.name
                );
            }
        }
        assert!(is_of_others(
            "RINGCAST_ADMIN_PORT",
            "tcp://10.0.0.11:9464".as_ref(),
            true
        ));
    }
}
