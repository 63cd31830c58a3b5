//! A name and a password in a form or in JSON.

use ringcast::internals::auth::CredentialFields;

use super::json_model;

/// The values of a form can be encoded and decoded again; the values of JSON are those of the model.
pub fn credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let fields = CredentialFields::default();
    if let Ok(found) = fields.in_form(text) {
        let password = str::from_utf8(found.password.expose()).expect("a password is text");
        let form = format!("user={}&pw={}", escaped(&found.user), escaped(password));
        let Ok(again) = fields.in_form(&form) else {
            panic!("what was escaped can be read");
        };
        assert_eq!(again.user, found.user);
        assert_eq!(again.password.expose(), found.password.expose());
    }
    if let Ok(found) = fields.in_json(text) {
        let password = str::from_utf8(found.password.expose()).expect("a password is text");
        let value = json_model::parse(text).expect("it was JSON");
        for (names, said) in [
            (&["email", "user", "username"][..], found.user.as_str()),
            (&["pw", "password"], password),
        ] {
            let first = names.iter().find_map(|name| value.member(name));
            assert!(first.is_some_and(|first| first.is_text(said)));
        }
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
