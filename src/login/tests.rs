//! The password checks with real threads and real hashes.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::backoff::BackoffPolicy;
use super::*;
use crate::auth::passwords::{PasswordFile, PasswordHash, Users};
use crate::client::network::Nat64Prefixes;
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
fn password_checks(failures_max: u32, waiting_max: u32) -> PasswordChecks {
    let policy = BackoffPolicy {
        failures_max,
        delay_first: Duration::from_secs(3600),
        delay_max: Duration::from_secs(7200),
        accounts_max: 100,
    };
    let settings = PasswordCheckSettings {
        threads: 1,
        waiting_max,
        nat64_prefixes: Nat64Prefixes::default(),
        policy,
    };
    PasswordChecks::open(
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

fn submitted(password_checks: &PasswordChecks, attempt: Attempt) -> Receiver<LoginVerdict> {
    let (sender, answer) = bounded(1);
    let callback = move |verdict| sender.send(verdict).unwrap();
    assert!(password_checks.submit(attempt, Box::new(callback)).is_ok());
    answer
}

fn verdict(password_checks: &PasswordChecks, user: &str, password: &str) -> LoginVerdict {
    submitted(password_checks, attempt(user, password))
        .recv_timeout(Duration::from_secs(60))
        .unwrap()
}

#[test]
fn only_a_user_with_the_right_password_is_accepted() {
    let password_checks = password_checks(100, 10);
    let LoginVerdict::Accepted { claims } = verdict(&password_checks, "alice", "secret") else {
        panic!("alice has this password");
    };
    let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["username"]),
        (&"alice".into(), &"alice".into())
    );
    assert!(claims["jti"].as_str().is_some_and(|id| !id.is_empty()));
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
        assert_eq!(
            verdict(&password_checks, user, password),
            LoginVerdict::Refused,
            "{user}"
        );
    }
    assert_eq!(password_checks.metrics().value(LoginOutcome::Accepted), 1);
    assert_eq!(password_checks.metrics().value(LoginOutcome::Refused), 9);
}

/// Keeps the only thread of the password checks busy until the value is dropped.
fn busy(password_checks: &PasswordChecks, attempt: Attempt) -> Sender<()> {
    let (block, wait) = bounded::<()>(0);
    let (begun_sender, begun) = bounded(1);
    let hold = move |_| {
        begun_sender.send(()).unwrap();
        let _ = wait.recv();
    };
    assert!(password_checks.submit(attempt, Box::new(hold)).is_ok());
    begun.recv_timeout(PATIENCE).unwrap();
    block
}

fn from(address: &str, user: &str, password: &str) -> Attempt {
    Attempt {
        address: address.parse().unwrap(),
        ..attempt(user, password)
    }
}

/// Submits an attempt as soon as the intake has room.
fn submitted_with_retries(
    password_checks: &PasswordChecks,
    address: &str,
    user: &str,
    password: &str,
) -> Receiver<LoginVerdict> {
    loop {
        let (sender, answer) = bounded(1);
        let callback = move |verdict| drop(sender.send(verdict));
        match password_checks.submit(from(address, user, password), Box::new(callback)) {
            Ok(()) => return answer,
            Err(_) => std::thread::yield_now(),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn when_the_queue_is_full_an_attempt_of_the_busiest_user_is_displaced_and_answered() {
    let password_checks = password_checks(100, 2);
    let block = busy(&password_checks, attempt("alice", "guess"));
    let [first, second, third] =
        ["secret", "x", "y"].map(|password| submitted(&password_checks, attempt("alice", password)));
    // The third has come last, and all are of the same user.
    assert_eq!(third.recv_timeout(PATIENCE).unwrap(), LoginVerdict::Busy);
    assert_eq!(
        (
            password_checks.waiting(),
            password_checks.metrics().value(LoginOutcome::Busy)
        ),
        (2, 1)
    );
    // Another user there, and then another address, take precedence over a second attempt.
    let bob = submitted(&password_checks, attempt("bob", "b"));
    assert_eq!(second.recv_timeout(PATIENCE).unwrap(), LoginVerdict::Busy);
    let elsewhere = submitted(&password_checks, from("198.51.100.1", "bob", "b"));
    assert_eq!(bob.recv_timeout(PATIENCE).unwrap(), LoginVerdict::Busy);
    assert_eq!(password_checks.metrics().value(LoginOutcome::Displaced), 2);
    drop(block);
    for answer in [first, elsewhere] {
        assert!(matches!(
            answer.recv_timeout(PATIENCE).unwrap(),
            LoginVerdict::Accepted { .. }
        ));
    }
    assert_eq!(password_checks.waiting(), 0);
}

#[test]
fn no_network_keeps_a_familiar_user_out_with_any_form_of_addresses() {
    type Flood = fn(u32) -> String;
    let floods: [(&str, Flood); 6] = [
        ("one address", |_| "203.0.113.1".to_owned()),
        ("a /24", |index| format!("203.0.113.{}", index % 256)),
        ("a /48", |index| format!("2001:db8:7:{:x}::1", index)),
        ("a /32", |index| {
            format!("2001:db8:{:x}:{:x}::1", index, index % 7)
        }),
        ("NAT64", |index| format!("64:ff9b::203.0.113.{}", index % 256)),
        ("6to4", |index| format!("2002:cb00:{:x}::1", index)),
    ];
    for (name, address) in floods {
        let password_checks = password_checks(1_000_000, 8);
        let familiar = "192.0.2.9";
        let answer = submitted_with_retries(&password_checks, familiar, "alice", "secret");
        assert!(matches!(
            answer.recv_timeout(PATIENCE).unwrap(),
            LoginVerdict::Accepted { .. }
        ));
        let block = busy(&password_checks, from("203.0.113.1", "mallory", "guess"));
        let flood: Vec<_> = (0..1000)
            .map(|index| {
                submitted_with_retries(
                    &password_checks,
                    &address(index),
                    &format!("user {index}"),
                    "guess",
                )
            })
            .collect();
        let alice = submitted_with_retries(&password_checks, familiar, "alice", "secret");
        let stranger = submitted_with_retries(&password_checks, "198.51.100.1", "bob", "b");
        let more: Vec<_> = (1000..2000)
            .map(|index| submitted_with_retries(&password_checks, &address(index), "alice", "guess"))
            .collect();
        // All have been taken from the intake when all but those that fit in the queue are answered.
        let answered = || {
            flood
                .iter()
                .chain(&more)
                .filter(|answer| !answer.is_empty())
                .count()
        };
        while answered() < 1994 {
            std::thread::yield_now();
        }
        drop(block);
        for answer in [alice, stranger] {
            let verdict = answer.recv_timeout(PATIENCE).unwrap();
            assert!(
                matches!(verdict, LoginVerdict::Accepted { .. }),
                "{name}: {verdict:?}"
            );
        }
        let verdicts = flood
            .into_iter()
            .chain(more)
            .map(|answer| answer.recv_timeout(PATIENCE).unwrap());
        let busy = verdicts.filter(|verdict| *verdict == LoginVerdict::Busy).count();
        assert!(busy >= 1990, "{name}: {busy}");
    }
}

#[test]
fn a_flood_of_one_familiar_user_keeps_no_other_familiar_user_out() {
    let password_checks =
        password_checks(1_000_000, 8).with_users(Arc::new(users(&[("alice", "secret"), ("mallory", "m")])));
    let accepted = |answer: Receiver<LoginVerdict>| {
        let verdict = answer.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(verdict, LoginVerdict::Accepted { .. }), "{verdict:?}");
    };
    for (address, user, password) in [("192.0.2.9", "alice", "secret"), ("2001:db8::1", "mallory", "m")] {
        accepted(submitted_with_retries(&password_checks, address, user, password));
    }
    let block = busy(&password_checks, from("203.0.113.1", "nobody", "guess"));
    let flood: Vec<_> = (0..500)
        .map(|_| submitted_with_retries(&password_checks, "2001:db8::1", "mallory", "m"))
        .collect();
    let alice = submitted_with_retries(&password_checks, "192.0.2.9", "alice", "secret");
    drop(block);
    accepted(alice);
    drop(flood);
}

#[test]
fn waiting_attempts_are_answered_although_the_last_handle_is_dropped() {
    let answer: Vec<_> = {
        let password_checks = password_checks(100, 10);
        (0..10)
            .map(|_| submitted(&password_checks, attempt("alice", "secret")))
            .collect()
    };
    for answer in answer {
        let verdict = answer.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(matches!(verdict, LoginVerdict::Accepted { .. }));
    }
}

#[test]
fn a_panic_in_an_answer_does_not_end_the_thread() {
    let password_checks = password_checks(100, 10);
    let answer = |_| panic!("this test's own panic");
    assert!(
        password_checks
            .submit(attempt("alice", "secret"), Box::new(answer))
            .is_ok()
    );
    assert!(matches!(
        verdict(&password_checks, "alice", "secret"),
        LoginVerdict::Accepted { .. }
    ));
}

#[test]
fn after_too_many_failures_even_the_right_password_is_not_checked() {
    let password_checks = password_checks(2, 10);
    for _ in 0..2 {
        assert_eq!(verdict(&password_checks, "alice", "guess"), LoginVerdict::Refused);
    }
    for (user, password) in [("alice", "guess"), ("alice", "secret")] {
        let LoginVerdict::TooSoon { retry_after } = verdict(&password_checks, user, password) else {
            panic!("{user} was tried");
        };
        assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(3600));
    }
    assert!(matches!(
        verdict(&password_checks, "bob", "b"),
        LoginVerdict::Accepted { .. }
    ));
    assert_eq!(password_checks.metrics().value(LoginOutcome::TooSoon), 2);
    // A reload does not forgive failures.
    let reloaded = password_checks.with_users(Arc::new(users(&[("alice", "secret")])));
    assert!(matches!(
        verdict(&reloaded, "alice", "secret"),
        LoginVerdict::TooSoon { .. }
    ));
}

#[test]
fn unknown_users_have_to_wait_as_known_ones_do() {
    let password_checks = password_checks(2, 10);
    for _ in 0..2 {
        assert_eq!(
            verdict(&password_checks, "nobody", "guess"),
            LoginVerdict::Refused
        );
    }
    assert!(matches!(
        verdict(&password_checks, "nobody", "guess"),
        LoginVerdict::TooSoon { .. }
    ));
}

#[test]
fn a_reload_changes_which_users_are_accepted() {
    let before = password_checks(100, 10);
    let after = before.with_users(Arc::new(users(&[("alice", "changed"), ("carol", "c")])));
    for (user, password, is_before, is_after) in [
        ("alice", "secret", true, false),
        ("alice", "changed", false, true),
        ("bob", "b", true, false),
        ("carol", "c", false, true),
    ] {
        for (password_checks, accepted) in [(&before, is_before), (&after, is_after)] {
            let verdict = verdict(password_checks, user, password);
            assert_eq!(
                matches!(verdict, LoginVerdict::Accepted { .. }),
                accepted,
                "{user}"
            );
        }
    }
}

#[test]
fn names_and_passwords_that_no_user_can_have_are_checked_and_refused() {
    let password_checks = password_checks(100, 10);
    let long = "n".repeat(10_000_000);
    for (user, password) in [
        (long.as_str(), "secret"),
        ("alice", long.as_str()),
        (&"ä".repeat(1000), "x"),
    ] {
        assert_eq!(verdict(&password_checks, user, password), LoginVerdict::Refused);
    }
    assert_eq!(password_checks.metrics().value(LoginOutcome::Refused), 3);
    assert_eq!(password_checks.metrics().seconds.counts().iter().sum::<u64>(), 3);
}

#[test]
fn a_password_that_is_too_long_is_refused_although_it_begins_with_the_right_one() {
    let longest = "p".repeat(1024);
    let password_checks = password_checks(100, 10).with_users(Arc::new(users(&[("alice", &longest)])));
    assert!(matches!(
        verdict(&password_checks, "alice", &longest),
        LoginVerdict::Accepted { .. }
    ));
    assert_eq!(
        verdict(&password_checks, "alice", &format!("{longest}p")),
        LoginVerdict::Refused
    );
}

#[test]
fn a_name_is_escaped_in_the_claims() {
    let name = "ann\"\\},\u{e9}";
    let password_checks = password_checks(100, 10).with_users(Arc::new(users(&[(name, "a")])));
    let LoginVerdict::Accepted { claims } = verdict(&password_checks, name, "a") else {
        panic!("she is refused");
    };
    let claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
    assert_eq!(
        (&claims["sub"], &claims["username"]),
        (&name.into(), &name.into())
    );
}

#[test]
fn an_attempt_does_not_show_its_password() {
    let shown = format!("{:?}", attempt("alice", "topsecret"));
    assert!(shown.contains("alice") && !shown.contains("topsecret"), "{shown}");
}
