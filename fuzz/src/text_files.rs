//! Files that operators write: the configuration and the password file.

use std::io::Write;
use std::os::fd::AsRawFd;

use ringcast::config::ConfigSources;
use ringcast::internals::auth::passwords::{NameFault, PasswordFile, PasswordHash, check_name};

/// A configuration is read, or refused by an error of one line without a secret; each value is shown in the form in
/// which it can be set.
pub fn configuration(data: &[u8]) {
    const SECRET: &str = "t0psecretkey";
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A pipe has room for so many bytes without a reader.
    if text.len() > 32 * 1024 {
        return;
    }
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(text.as_bytes()).expect("there is room");
    drop(writer);
    let file = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let sources = ConfigSources::new(vec![("config".to_owned(), file)], []);
    match sources.load() {
        Ok(loaded) => {
            assert!(!format!("{:?}", loaded.config).contains(SECRET));
            let mut config = loaded.config.clone();
            for (setting, shown, _) in loaded.settings() {
                let Some(shown) = shown else { continue };
                assert!(!shown.contains(SECRET) || !text.contains("auth_key"));
                // A secret is shown as a placeholder.
                if shown != "…" && setting.store(&mut config, &shown).is_ok() {
                    assert_eq!(setting.show(&config).as_ref(), Some(&shown), "{}", setting.key());
                }
            }
            let _ = loaded.config.warnings(&[0, 1]);
        }
        Err(error) => {
            assert!(error.iter().count() > 0);
            for error in error.iter() {
                let said = error.to_string();
                assert!(!said.is_empty() && !said.contains('\n'), "{said}");
            }
        }
    }
}

/// A change of a password file keeps all other lines, and hashes are written as they were read.
pub fn password_file(data: &[u8]) {
    let hash = PasswordHash::pbkdf2(b"secret", [7; 12], 1).expect("one iteration");
    let Ok(mut file) = PasswordFile::parse(data) else {
        return;
    };
    let before = file.text();
    let text = std::str::from_utf8(data).expect("it was read");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert_eq!(before.trim_end_matches('\n'), text.trim_end_matches('\n'));
    assert_eq!(
        PasswordFile::parse(before.as_bytes())
            .expect("it was read before")
            .text(),
        before
    );
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, rest)) = line.split_once(':') else {
            continue;
        };
        let Ok(read) = PasswordHash::parse(rest) else {
            continue;
        };
        let again = PasswordHash::parse(&read.text());
        assert!(again == Ok(read), "a hash reads as it was written");
    }
    let users = file.users().map(|users| users.count());
    let name = text.split(':').next().unwrap_or_default();
    let had = file.clone().remove(name);
    match file.set(name, &hash) {
        Ok(()) => {
            assert_eq!(check_name(name), Ok(()));
            let again = PasswordFile::parse(file.text().as_bytes()).expect("what was set can be read");
            if let Ok(count) = users {
                let users = again.users().expect("no other hash has changed");
                assert_eq!(users.count(), count + usize::from(!had));
                assert!(users.verify(name, b"secret") && !users.verify(name, b"secre"));
            }
            assert!(file.remove(name) && !file.remove(name));
            if !had {
                assert_eq!(file.text().trim_end_matches('\n'), before.trim_end_matches('\n'));
            }
        }
        Err(fault) => assert!(check_name(name) == Err(fault) && fault != NameFault::Colon && !had),
    }
}
