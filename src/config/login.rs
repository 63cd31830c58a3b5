//! Logins with a name and a password.

use std::path::PathBuf;

use super::form::{Form, Kind, PATH, file, names, non_empty, number};
use super::settings::settings;

settings! {
    /// Logins with a name and a password.
    login: Login {
        /// File of users and passwords, as `ringcast passwd` and `mosquitto_passwd` write it. Without it, no client can
        /// log in.
        password_file: Option<PathBuf> = None, "password_file", file("the name of a file"), on reload;

        /// Number of passwords that are checked at the same time, each on a thread beside the cores.
        threads: u32 = 1, "login_threads", number!(1 to 64);

        /// Path on `listen` that takes logins (POST, JSON or a form) if there is a `password_file`. `whoami` and
        /// `logout` are beside it.
        path: String = "/login".to_owned(), "login_path", PATH;

        /// Name of the cookie that holds a token, for logins and upgrades. Over HTTPS, a name such as `__Host-ringcast`
        /// keeps other hosts of the site from setting it.
        cookie: String = "ringcast".to_owned(), "login_cookie", COOKIE;

        /// Accepted names of the field with the user's name in a login, separated by commas. Of the fields that a login
        /// has, the first in this list counts.
        user_fields: Vec<String> = ["email", "user", "username"].map(str::to_owned).to_vec(), "login_user_fields",
            names("names separated by commas");

        /// Accepted names of the field with the password in a login, separated by commas. Of the fields that a login
        /// has, the first in this list counts.
        password_fields: Vec<String> = ["pw", "password"].map(str::to_owned).to_vec(), "login_password_fields",
            names("names separated by commas");
    }
}

/// The name of a cookie: a token of RFC 9110 section 5.6.2.
const COOKIE: Form<String> = Form {
    kind: Kind::Text,
    expects: "the name of a cookie, such as ringcast",
    parse: |text| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        non_empty(text).filter(|text| text.bytes().all(legal))
    },
    show: String::clone,
};
