//! Logins with a name and a password.

use std::path::PathBuf;

/// Logins with a name and a password.
#[derive(Clone, Debug)]
pub struct Login {
    /// Users and their passwords, as `ringcast passwd` and `mosquitto_passwd` write them; nobody logs in without it.
    pub password_file: Option<PathBuf>,
    /// Passwords that are checked at a time.
    pub threads: u32,
    /// Path of the page that takes a login; its neighbours are `logout` and `whoami`. Begins with `/`.
    pub path: String,
    /// Name of the cookie that holds a token.
    pub cookie: String,
    /// How the field of a login with the user's name may be called; of those that are there, the first counts.
    pub user_fields: Vec<String>,
    /// The same for the password.
    pub password_fields: Vec<String>,
}

impl Default for Login {
    fn default() -> Login {
        Login {
            password_file: None,
            threads: 1,
            path: "/login".to_owned(),
            cookie: "ringcast".to_owned(),
            user_fields: ["email", "user", "username"].map(str::to_owned).to_vec(),
            password_fields: ["pw", "password"].map(str::to_owned).to_vec(),
        }
    }
}
