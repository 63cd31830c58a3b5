//! `ringcast check`: finds everything that is wrong with the settings, without starting the server.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::CliError;
use crate::clock::Clock;
use crate::config::load::ConfigSources;
use crate::machine::cpus::Cpus;
use crate::machine::memory::MemoryPlan;
use crate::machine::reading;
use crate::policy::Policy;
use crate::server::StartError;

/// Checks the settings, key files, CPUs and addresses. Writes the settings as a server would use them, and
/// warnings.
///
/// # Errors
/// All faults, as one line each.
pub(super) fn check(sources: &ConfigSources, cpus: &Cpus, out: &mut impl Write) -> Result<(), CliError> {
    let (loaded, errors) = sources.read();
    let config = &loaded.config;
    let mut faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
    // If a key cannot be read, this is why no client could log in, so the latter is not reported too.
    if faults.is_empty() && config.admits_no_client() {
        faults.push(StartError::NoWayToLogIn.to_string());
    }
    faults.extend(Policy::faults(config).iter().map(ToString::to_string));
    faults.extend(cpus.missing(&config.cores.placement).err());
    let addresses = [
        ("listen", Some(config.listen.address)),
        ("tls_listen", config.tls.listen),
        ("mqtt_listen", config.mqtt.listen),
        ("mqtt_tls_listen", config.mqtt.tls_listen),
        ("admin", config.admin.address),
    ];
    faults.extend(
        addresses
            .iter()
            .filter_map(|(name, address)| address_fault(name, (*address)?)),
    );
    if !faults.is_empty() {
        return Err(CliError::Faults(faults));
    }
    let policy = Policy::open(config)?;
    if let Some(file) = &loaded.file {
        writeln!(out, "file: {}", file.display())?;
    }
    for (setting, value, source) in loaded.settings() {
        let value = value.as_deref().unwrap_or("not set");
        writeln!(out, "{source:<8}  {} = {value}", setting.key())?;
    }
    for (list, rules) in [
        ("rules", &config.permissions.rules),
        ("shadow_rules", &config.permissions.shadow_rules),
    ] {
        writeln!(out, "{list}: {}", rules.len())?;
    }
    writeln!(out, "channels: {}", config.channels.len())?;
    for (index, spec) in config.channels.iter().enumerate() {
        writeln!(out, "  {}: {}: {}", index + 1, spec.names.join(", "), spec.policy)?;
    }
    writeln!(out, "services: {}", config.services.len())?;
    for (index, spec) in config.services.iter().enumerate() {
        writeln!(out, "  {}: {}: {}", index + 1, spec.pattern, spec.terms)?;
    }
    writeln!(out, "api_keys: {}", config.admin.api_keys.len())?;
    writeln!(out, "webhooks: {}", config.webhooks.len())?;
    for spec in &config.webhooks {
        let events: Vec<&str> = spec.events.iter().map(|event| event.label()).collect();
        let channels = match spec.channels.is_empty() {
            true => String::new(),
            false => format!("; channels {}", spec.channels.join(", ")),
        };
        writeln!(out, "  {}: {}{channels}", spec.name, events.join(", "))?;
    }
    writeln!(out, "hooks: {}", config.hooks.len())?;
    for hook in &config.hooks {
        let actions: Vec<&str> = hook.actions.iter().map(|action| action.label()).collect();
        writeln!(out, "  {}: {}: {}", hook.name, actions.join(", "), hook.asked())?;
    }
    let cores = config.cores.placement.cpus(cpus.usable()).len();
    let memory = MemoryPlan::of(config, cores, &reading::machine(Path::new("/")));
    writeln!(out, "{memory}")?;
    if !loaded.ignored.is_empty() {
        writeln!(
            out,
            "ignored, since others set them: {}",
            loaded.ignored.join(", ")
        )?;
    }
    for line in &loaded.inherited {
        writeln!(out, "environment of SocketCluster: {line}")?;
    }
    let mut warnings: Vec<String> = config
        .warnings(cpus.usable())
        .iter()
        .map(ToString::to_string)
        .collect();
    warnings.extend(policy.warnings(Clock::begin().now().unix_ms));
    warnings.extend(memory.warning());
    for warning in &warnings {
        writeln!(out, "warning: {warning}")?;
    }
    match warnings.len() {
        0 => writeln!(out, "the settings are valid")?,
        count => writeln!(out, "the settings are valid; warnings: {count}, see above")?,
    }
    Ok(())
}

/// The fault of an address that this machine does not have. It binds any free port of the address, since the
/// port itself may be in use by the very server whose settings are checked.
fn address_fault(name: &str, address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(SocketAddr::new(address.ip(), 0)).err()?;
    Some(format!(
        "{name}: {} is not an address of this machine: {error}",
        address.ip()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use crate::cli::tests::answer;

    #[test]
    fn settings_are_shown_with_their_source_and_without_secrets() {
        let (code, text) = answer(
            &["check", "--tcp-backlog", "5"],
            &[
                ("RINGCAST_AUTH_KEY", "topsecret"),
                ("RINGCAST_RING_SLOTS", "1024"),
            ],
        );
        assert_eq!(code, 0, "{text}");
        for line in [
            "flag      tcp_backlog = 5",
            "variable  auth_key = …",
            "variable  limits.ring_slots = 1024",
            "default   listen = 127.0.0.1:8000",
            "default   admin_key = not set",
            "the settings are valid; warnings: 1, see above",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(!text.contains("topsecret"));
    }

    #[test]
    fn policies_of_channels_are_shown_with_names_that_have_no_effect() {
        let file = std::env::temp_dir().join(format!("ringcast-check-channels-{}", std::process::id()));
        let text = "[[channels]]\nnames = [\"room.*\", \"user.**\"]\nhistory_entries = 5\n\
                    [[channels]]\nnames = \"user.ann\"\nlast_value = true\n";
        std::fs::write(&file, text).unwrap();
        let check = || answer(&["check", "--config", file.to_str().unwrap()], &[]);
        let (code, text) = check();
        assert_eq!(code, 0, "{text}");
        for part in [
            "channels: 2\n  1: room.*, user.**: history of 5 publications, 1048576 bytes, 600000 ms; position\n  \
             2: user.ann: last value; position\n",
            "warning: channels number 2 (line 4): \"user.ann\" has no effect, since number 1 above",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        std::fs::write(
            &file,
            "[[channels]]\nnames = \"room-*\"\n[[channels]]\nname = \"a\"\n",
        )
        .unwrap();
        let (code, text) = check();
        assert_eq!(code, 78, "{text}");
        assert!(
            text.contains("line 4: channels number 2: name is not known; did you mean names?"),
            "{text}"
        );
        std::fs::write(&file, "[[channels]]\nnames = \"room-*\"\n").unwrap();
        let (code, text) = check();
        assert_eq!(code, 78, "{text}");
        assert!(
            text.contains("line 1: channels number 1: names: \"room-*\": *, **"),
            "{text}"
        );
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn cpus_addresses_and_files_that_this_machine_lacks_are_refused() {
        for (words, part) in [
            (
                ["--cores", "1-2"],
                "cores: this process cannot run on CPU 2: it may run on 0,1",
            ),
            (
                ["--listen", "192.0.2.1:8000"],
                "listen: 192.0.2.1 is not an address of this machine",
            ),
            (
                ["--auth-public-key-file", "/nowhere.pem"],
                "/nowhere.pem: cannot be read",
            ),
            (["--admin", "0.0.0.0:9464"], "set admin_key"),
        ] {
            let (code, text) = answer(&["check", words[0], words[1]], &[]);
            assert_eq!(code, 78, "{text}");
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let (code, text) = answer(
            &[
                "check",
                "--cores",
                "0-5",
                "--listen",
                "192.0.2.1:8000",
                "--auth-public-key-file",
                "/nowhere.pem",
                "--jwks-file",
                "/nowhere.json",
                "--password-file",
                "/nowhere.users",
            ],
            &[("RINGCAST_PINGS", "maybe"), ("RINGCAST_CORE", "1")],
        );
        assert_eq!(code, 78);
        for part in [
            "RINGCAST_PINGS: found \"maybe\"",
            "RINGCAST_CORE is not known; did you mean RINGCAST_CORES?",
            "password_file: no key is set that could sign",
            "/nowhere.pem: cannot be read",
            "/nowhere.json: cannot be read",
            "/nowhere.users cannot be read",
            "cores: this process cannot run on CPUs 2,3,4,5: it may run on 0,1",
            "listen: 192.0.2.1 is not an address",
        ] {
            assert_eq!(
                text.lines().filter(|line| line.contains(part)).count(),
                1,
                "{part} in {text}"
            );
        }
        assert_eq!(text.lines().count(), 8, "{text}");
    }

    #[test]
    fn a_server_without_any_way_to_log_in_is_refused() {
        let listen = ["check", "--listen", "0.0.0.0:8000"];
        let (code, text) = answer(&listen, &[]);
        assert_eq!(code, 78);
        assert!(
            text.contains("no client could log in") && text.contains("RINGCAST_AUTH_KEY"),
            "{text}"
        );
        for variable in [
            ("RINGCAST_AUTH_KEY", "an example of a key, 32 bytes long"),
            ("RINGCAST_ALLOW_ANONYMOUS", "on"),
            ("RINGCAST_JWKS_URL", "https://id.example/"),
        ] {
            assert_eq!(answer(&listen, &[variable]).0, 0, "{variable:?}");
        }
        assert_eq!(answer(&["check"], &[("RINGCAST_ALLOW_ANONYMOUS", "off")]).0, 78);
    }

    #[test]
    fn the_environment_of_a_socketcluster_server_is_reported_with_the_settings_to_write_instead() {
        let options = r#"{"authKey":"an example of a key, 32 bytes long","pingTimeout":20000,"mine":1}"#;
        let variables = [("SOCKETCLUSTER_PORT", "8123"), ("SOCKETCLUSTER_OPTIONS", options)];
        let (code, text) = answer(&["check"], &variables);
        assert_eq!(code, 0, "{text}");
        // The page about moving shows these lines.
        let page = include_str!("../../docs/migrating-from-socketcluster.md");
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("environment of SocketCluster: "))
            .collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(page.contains(&lines.join("\n")), "{lines:?}");
    }

    #[test]
    fn variables_of_a_service_named_ringcast_are_reported_and_ignored() {
        let (code, text) = answer(&["check"], &[("RINGCAST_PORT", "tcp://10.0.0.11:8000")]);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("ignored, since others set them: RINGCAST_PORT\n"),
            "{text}"
        );
        let words = ["token", "--claims", "{}"];
        let key = ("RINGCAST_AUTH_KEY", "an example of a key, 32 bytes long");
        let service = ("RINGCAST_SERVICE_HOST", "10.0.0.11");
        assert_eq!(answer(&words, &[key, service]).0, 0);
        let words = ["tuning", "--connections", "1", "--cores", "1"];
        assert_ne!(answer(&words, &[service]).0, 78);
        assert_eq!(answer(&words, &[("RINGCAST_CORE", "1")]).0, 78);
    }

    #[test]
    fn a_password_file_is_checked_and_its_faults_are_reported() {
        let folder = std::env::temp_dir().join(format!("ringcast-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users");
        let name = file.to_str().unwrap();
        let check = || answer(&["check", "--password-file", name], &[]);
        let entry = format!("$7$1$AAAA${}==", "A".repeat(86));
        for (text, code, part) in [
            (
                format!("# staff\n  # and others\n \t\nalice:{entry}\n"),
                0,
                "flag      password_file = ",
            ),
            (
                format!("# staff\n  # and others\n\nalice:{entry}\nbob\n\ncarol"),
                78,
                "users: line 5: it has no ':', so it is not an entry: delete it",
            ),
            (
                format!("alice:{entry}\nbob:topsecret\n"),
                78,
                "users: line 2: the text after the name is not a hash",
            ),
            (
                format!("alice:{entry}\nalice:{entry}\n"),
                78,
                "line 2: the user already has an entry in line 1",
            ),
            (
                entry.replace("$7$1$", "a:$7$2147483648$"),
                78,
                "line 1: checking this hash would take too long",
            ),
        ] {
            std::fs::write(&file, &text).unwrap();
            let (found, text) = check();
            assert_eq!(found, code, "{text}");
            assert!(
                text.contains(part) && !text.contains("topsecret") && !text.contains("AAAA"),
                "{text}"
            );
        }
        std::fs::write(&file, "").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (code, text) = check();
            assert_eq!(code, 0, "{text}");
            assert_eq!(
                text.contains("is open to every user of this machine: chmod 600"),
                warned,
                "{text}"
            );
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(check().0, 78);
        assert_eq!(answer(&["check", "--password-file", "/dev/null"], &[]).0, 78);
    }

    #[test]
    fn doubtful_settings_give_warnings() {
        let (code, text) = answer(&["check", "--cores", "3"], &[]);
        assert_eq!(code, 0);
        assert!(
            text.contains("warning: cores: 3 event loops share 2 CPUs and wait"),
            "{text}"
        );
        assert!(text.contains("warning: auth_key is not set"), "{text}");
    }
}
