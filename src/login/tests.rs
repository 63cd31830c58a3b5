//! The desk with real threads and real hashes.

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::backoff::Policy;
use super::*;
use crate::auth::passwords::{PasswordFile, PasswordHash, Users};
use crate::clock::Clock;
use crate::metrics::logins::LoginOutcome;

fn users(names: &[(&str, &str)]) -> Users {
    let mut file = PasswordFile::default();
    for (name, password) in names {
        let hash = PasswordHash::pbkdf2(password.as_bytes(), [7; 12], 101).unwrap();
        file.set(name, &hash).unwrap();
    }
    file.users().unwrap()
}

/// The waits are so long that none ends during a test.
fn desk(failures_max: u32, waiting_max: u32) -> LoginDesk {
    let policy = Policy {
        failures_max,
        delay_first: Duration::from_secs(3600),
        delay_max: Duration::from_secs(7200),
        accounts_max: 100,
    };
    let settings = Settings {
        threads: 1,
        waiting_max,
        policy,
    };
    LoginDesk::open(
        settings,
        Arc::new(users(&[("alice", "secret"), ("bob", "b")])),
        Clock::begin(),
    )
    .unwrap()
}

fn attempt(user: &str, password: &str) -> Attempt {
    Attempt {
        user: user.to_owned(),
        password: Password::new(password),
        address: [192, 0, 2, 1].into(),
    }
}

fn asked(desk: &LoginDesk, attempt: Attempt) -> Receiver<Verdict> {
    let (tell, told) = bounded(1);
    let answer = move |verdict| tell.send(verdict).unwrap();
    assert!(desk.ask(attempt, Box::new(answer)).is_ok());
    told
}

fn verdict(desk: &LoginDesk, user: &str, password: &str) -> Verdict {
    asked(desk, attempt(user, password))
        .recv_timeout(Duration::from_secs(30))
        .unwrap()
}

#[test]
fn a_user_with_the_right_password_is_welcome_and_nobody_else() {
    let desk = desk(100, 10);
    let claims = || match verdict(&desk, "alice", "secret") {
        Verdict::Welcome { claims } => serde_json::from_str::<serde_json::Value>(&claims).unwrap(),
        other => panic!("{other:?}"),
    };
    let (first, second) = (claims(), claims());
    assert_eq!(
        (&first["sub"], &first["username"]),
        (&"alice".into(), &"alice".into())
    );
    assert_eq!(first["jti"].as_str().map(str::len), Some(22));
    assert_ne!(first["jti"], second["jti"]);
    for (user, password) in [
        ("alice", ""),
        ("alice", "Secret"),
        ("alice", "secret\0"),
        ("alice", "b"),
        ("Alice", "secret"),
        ("alice ", "secret"),
        ("alice:", "secret"),
        ("", ""),
        ("mallory", "secret"),
    ] {
        assert_eq!(verdict(&desk, user, password), Verdict::Refused, "{user}");
    }
    assert_eq!(desk.metrics().value(LoginOutcome::Welcome), 2);
    assert_eq!(desk.metrics().value(LoginOutcome::Refused), 9);
}
