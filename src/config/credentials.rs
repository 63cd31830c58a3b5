//! Secrets that the service manager hands over as files (`LoadCredential=`, systemd.exec(5)).
//!
//! A credential is a file in `$CREDENTIALS_DIRECTORY` that has the name of a setting: the value of a secret, without
//! the line's end, or the file that such a setting names. Other files there belong to other programs.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::form::Kind;
use super::settings::Setting;
use super::text_file::{self, SECRET_BYTES_MAX};
use crate::text;

/// The folder with credentials, if there is one.
#[derive(Clone, Default)]
pub(super) struct Credentials(Option<PathBuf>);

impl Credentials {
    /// The credentials of a process whose environment has this value for [`VARIABLE`].
    pub(super) fn new(folder: OsString) -> Credentials {
        Credentials((!folder.is_empty()).then(|| folder.into()))
    }

    /// The credential for a setting, if there is one: its file, and the text to store.
    pub(super) fn find(&self, setting: &Setting) -> Result<Option<(PathBuf, String)>, ConfigError> {
        let takes_one = setting.kind == Kind::Secret || setting.names_files();
        let Some(folder) = self.0.as_ref().filter(|_| takes_one) else {
            return Ok(None);
        };
        let file = folder.join(setting.name);
        if !file.exists() {
            return Ok(None);
        }
        let text = match setting.kind {
            Kind::Secret => secret_in(&file)?,
            Kind::Text | Kind::Number | Kind::TextOrNumber | Kind::Switch => file.display().to_string(),
        };
        Ok(Some((file, text)))
    }
}

/// A secret in a file of its own, which editors begin with a byte order mark and end with a line's end.
fn secret_in(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause: String| ConfigError::Unreadable {
        file: file.to_owned(),
        cause,
    };
    let text = text_file::read(file, SECRET_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    let secret = text::secret(&text).map_err(|fault| unreadable(fault.to_string()))?;
    Ok(secret.to_owned())
}

/// Whether this is the variable that names the folder with credentials.
pub(super) fn is_announced_by(name: &OsStr) -> bool {
    name == VARIABLE
}

const VARIABLE: &str = "CREDENTIALS_DIRECTORY";

#[cfg(test)]
mod tests {
    use crate::config::ConfigErrors;
    use crate::config::load::{ConfigSources, Loaded, Source};

    /// Credentials, removed with the value.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &[u8])]) -> Folder {
            let folder =
                std::env::temp_dir().join(format!("ringcast-credentials-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in files {
                std::fs::write(folder.join(name), bytes).unwrap();
            }
            Folder(folder)
        }

        fn load(&self, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
            let flags = flags
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            let folder = ("CREDENTIALS_DIRECTORY".into(), self.0.clone().into());
            let variables = variables
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            ConfigSources::new(flags.collect(), variables.chain([folder])).load()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // A folder that stays behind harms nothing.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn auth_key(loaded: &Loaded) -> (&[u8], Source) {
        let mut settings = loaded.settings();
        let found = settings.find(|(setting, ..)| setting.name == "auth_key").unwrap();
        assert_eq!(found.1.as_deref(), Some("…"));
        (loaded.config.auth.key.as_ref().unwrap().expose(), found.2)
    }

    #[test]
    fn a_credential_beats_the_file_and_is_beaten_by_a_variable_and_a_flag() {
        let config = b"auth_key = \"of the file\"\n";
        let folder = Folder::with(
            "precedence",
            &[("config.toml", config), ("auth_key", b"of systemd\n")],
        );
        let file = folder.0.join("config.toml");
        let file = ("config", file.to_str().unwrap());
        let variable = ("RINGCAST_AUTH_KEY", "of the environment");
        let flag = ("auth-key", "of the command line");
        for (flags, variables, key, source) in [
            (&[file][..], &[][..], "of systemd", Source::Credential),
            (&[file], &[variable], "of the environment", Source::Variable),
            (&[file, flag], &[variable], "of the command line", Source::Flag),
        ] {
            let loaded = folder.load(flags, variables).unwrap();
            assert_eq!(auth_key(&loaded), (key.as_bytes(), source));
        }
        let without = ConfigSources::new(vec![("config".into(), file.1.into())], [])
            .load()
            .unwrap();
        assert_eq!(auth_key(&without), (&b"of the file"[..], Source::File));
    }

    #[test]
    fn a_credential_beats_the_key_of_an_old_server_and_its_line_says_so() {
        let folder = Folder::with("inherited", &[("auth_key", b"of systemd\n")]);
        let options = ("SOCKETCLUSTER_OPTIONS", r#"{"authKey":"of the old server"}"#);
        let loaded = folder.load(&[], &[options]).unwrap();
        assert_eq!(auth_key(&loaded), (&b"of systemd"[..], Source::Credential));
        assert!(
            loaded.inherited[0].contains(" is not used: "),
            "{:?}",
            loaded.inherited
        );
    }

    #[test]
    fn a_credential_may_be_the_file_that_a_setting_names_and_others_are_left_alone() {
        let files: &[(&str, &[u8])] = &[
            ("password_file", b""),
            ("auth_key", b"k"),
            ("tcp_backlog", b"7"),
            ("other", b""),
        ];
        let folder = Folder::with("named", files);
        let loaded = folder.load(&[], &[]).unwrap();
        assert_eq!(
            loaded.config.login.password_file,
            Some(folder.0.join("password_file"))
        );
        assert_eq!(loaded.config.listen.tcp_backlog, 4096, "no secret, and no file");
    }

    #[test]
    fn what_an_editor_adds_is_no_part_of_a_secret() {
        for (name, bytes) in [
            ("mark", &b"\xef\xbb\xbfa key\n"[..]),
            ("windows", b"a key\r\n"),
            ("lines", b"a key\n\n"),
        ] {
            let folder = Folder::with(name, &[("auth_key", bytes)]);
            let loaded = folder.load(&[], &[]).unwrap();
            assert_eq!(auth_key(&loaded), (&b"a key"[..], Source::Credential), "{name}");
        }
    }

    #[test]
    fn a_credential_that_is_no_secret_is_refused_without_being_shown() {
        for (name, bytes, said) in [
            ("empty", &b"\n"[..], "line 1: the secret is empty"),
            ("two-lines", b"top\nsecret\n", "line 2: a secret must be one line"),
            ("binary", b"\xfftopsecret", "line 1: it is not UTF-8"),
            (
                "blank",
                b"topsecret \n",
                "line 1: the secret begins or ends with a blank",
            ),
            ("utf-16", b"\xff\xfet\0o\0p\0", "line 1: the file is UTF-16"),
        ] {
            let folder = Folder::with(name, &[("auth_key", bytes)]);
            let text = folder.load(&[], &[]).unwrap_err().to_string();
            assert!(
                text.contains("auth_key: cannot be read: ") && text.contains(said),
                "{text}"
            );
            assert!(
                !text.contains("secret\n") && !text.contains("topsecret"),
                "{text}"
            );
        }
    }
}
