//! Tests of the back-off with times as arguments: the waits, what ends them, and the bound on memory.

use super::*;
use crate::client::network::{Nat64Prefixes, Width};

fn policy(failures_max: u32) -> BackoffPolicy {
    BackoffPolicy {
        failures_max,
        delay_first: Duration::from_secs(1),
        delay_max: Duration::from_secs(900),
        accounts_max: 1000,
    }
}

fn at(seconds: u64) -> Uptime {
    // Not at the very beginning, so that a time of 0 can mean nothing.
    Uptime::from_ms((1000 + seconds) * 1000)
}

fn address(text: &str) -> ClientNetwork {
    Nat64Prefixes::default().network(text.parse().unwrap(), Width::Address)
}

/// An attempt that fails, if it is admitted.
fn fail(backoff: &mut Backoff, user: &str, from: &str, now: Uptime) -> Result<(), Duration> {
    backoff.admit(user, address(from), now).map(|_| ())
}

/// An attempt that succeeds, if it is admitted.
fn succeed(backoff: &mut Backoff, user: &str, from: &str, now: Uptime) -> Result<(), Duration> {
    let admitted = backoff.admit(user, address(from), now)?;
    backoff.succeeded(admitted, now);
    Ok(())
}

fn seconds(count: u64) -> Result<(), Duration> {
    Err(Duration::from_secs(count))
}

#[test]
fn the_wait_begins_after_the_free_failures_and_doubles() {
    let mut backoff = Backoff::new(policy(3));
    let mut now = at(0);
    for _ in 0..3 {
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", now), Ok(()));
    }
    for wait in [1, 2, 4, 8, 16] {
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", now), seconds(wait));
        now = now + Duration::from_millis(wait * 1000 - 1);
        assert_eq!(
            fail(&mut backoff, "alice", "192.0.2.1", now),
            Err(Duration::from_millis(1))
        );
        now = now + Duration::from_millis(1);
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", now), Ok(()));
    }
}

#[test]
fn an_attempt_that_came_too_soon_does_not_count() {
    let mut backoff = Backoff::new(policy(1));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    for _ in 0..1000 {
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(0)), seconds(1));
    }
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(1)), Ok(()));
}

#[test]
fn no_wait_is_longer_than_the_configured_longest() {
    let mut backoff = Backoff::new(BackoffPolicy {
        delay_max: Duration::from_secs(60),
        ..policy(1)
    });
    let mut now = at(0);
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        if let Err(wait) = fail(&mut backoff, "alice", "192.0.2.1", now) {
            longest = longest.max(wait);
            now = now + wait;
        }
    }
    assert_eq!(longest, Duration::from_secs(60));
}

#[test]
fn a_success_clears_the_user_there_and_nothing_else() {
    let mut backoff = Backoff::new(policy(2));
    for _ in 0..2 {
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
        assert_eq!(fail(&mut backoff, "alice", "192.0.2.2", at(0)), Ok(()));
    }
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(1)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1)), seconds(1));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.2", at(0)), seconds(1));
}

#[test]
fn logins_to_an_own_account_do_not_clear_guesses_at_others() {
    let mut backoff = Backoff::new(policy(2));
    let mut admitted = 0;
    for victim in 0..100 {
        let victim = format!("victim {victim}");
        admitted += u32::from(fail(&mut backoff, &victim, "192.0.2.1", at(0)).is_ok());
        let _ = succeed(&mut backoff, "mallory", "192.0.2.1", at(0));
    }
    assert_eq!(admitted, 8);
    // The attacker can still log in to its own account there, which gains it nothing.
    assert_eq!(succeed(&mut backoff, "mallory", "192.0.2.1", at(0)), Ok(()));
}

#[test]
fn a_success_does_not_prolong_the_wait_of_its_address() {
    let mut backoff = Backoff::new(policy(1));
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    for user in ["a", "b", "c", "d"] {
        assert_eq!(fail(&mut backoff, user, "192.0.2.1", at(0)), Ok(()));
    }
    assert_eq!(fail(&mut backoff, "e", "192.0.2.1", at(0)), seconds(1));
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    assert_eq!(fail(&mut backoff, "e", "192.0.2.1", at(1)), Ok(()));
}

#[test]
fn one_address_may_not_try_every_user() {
    let mut backoff = Backoff::new(policy(5));
    for user in 0..20 {
        assert_eq!(
            fail(&mut backoff, &format!("user {user}"), "192.0.2.1", at(0)),
            Ok(())
        );
    }
    assert_eq!(fail(&mut backoff, "another", "192.0.2.1", at(0)), seconds(1));
    assert_eq!(fail(&mut backoff, "another", "192.0.2.2", at(0)), Ok(()));
}

#[test]
fn failures_elsewhere_make_a_user_wait_eight_seconds_at_most_and_not_at_all_at_a_familiar_address() {
    let mut backoff = Backoff::new(policy(5));
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    let (mut tried, mut now) = (0, at(0));
    let mut longest = Duration::ZERO;
    for host in 0..10_000 {
        let from = format!("10.0.{}.{}", host / 256, host % 256);
        match fail(&mut backoff, "alice", &from, now) {
            Ok(()) => tried += 1,
            Err(wait) => {
                longest = longest.max(wait);
                now = now + Duration::from_millis(100);
            }
        }
    }
    assert_eq!(longest, Duration::from_secs(8));
    assert!((100..300).contains(&tried), "{tried}");
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", now), Ok(()));
}

#[test]
fn failures_of_others_at_a_familiar_address_do_not_keep_a_user_out() {
    let mut backoff = Backoff::new(policy(5));
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    for user in 0..1000 {
        let _ = fail(&mut backoff, &format!("user {user}"), "192.0.2.1", at(0));
    }
    assert!(fail(&mut backoff, "bob", "192.0.2.1", at(0)).is_err());
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    // A month later the address is not familiar any more.
    let later = at(0) + FAMILIAR_FOR;
    for user in 0..1000 {
        let _ = fail(&mut backoff, &format!("user {user}"), "192.0.2.1", later);
    }
    assert!(succeed(&mut backoff, "alice", "192.0.2.1", later).is_err());
}

#[test]
fn at_a_familiar_address_the_password_cannot_be_guessed_either() {
    let mut backoff = Backoff::new(policy(5));
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    let tried = (0..1000)
        .filter(|_| fail(&mut backoff, "alice", "192.0.2.1", at(0)).is_ok())
        .count();
    assert_eq!(tried, 5);
}

#[test]
fn a_failure_is_forgiven_every_five_minutes() {
    let mut backoff = Backoff::new(policy(2));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(299)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(299)), seconds(1));
    // The first failure is forgiven now, so one is left, and one more is free.
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(300)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(300)), seconds(1));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1200)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1200)), Ok(()));
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", at(1200)), seconds(1));
}

#[test]
fn attempts_at_the_same_time_count_one_another() {
    let mut backoff = Backoff::new(policy(2));
    let first = backoff.admit("alice", address("192.0.2.1"), at(0)).unwrap();
    let _second = backoff.admit("alice", address("192.0.2.1"), at(0)).unwrap();
    assert!(backoff.admit("alice", address("192.0.2.1"), at(0)).is_err());
    backoff.succeeded(first, at(0));
    assert!(backoff.admit("alice", address("192.0.2.1"), at(0)).is_ok());
}

#[test]
fn a_user_with_many_addresses_does_not_displace_logins_of_others() {
    let mut backoff = Backoff::new(BackoffPolicy {
        accounts_max: 1000,
        ..policy(5)
    });
    assert_eq!(succeed(&mut backoff, "alice", "192.0.2.1", at(0)), Ok(()));
    for network in 0..10_000 {
        let from = format!("2001:db8:0:{network:x}::1");
        assert_eq!(succeed(&mut backoff, "mallory", &from, at(0)), Ok(()));
    }
    let standing = |backoff: &Backoff, user, from| backoff.standing(user, address(from), at(0)).is_familiar;
    assert!(standing(&backoff, "alice", "192.0.2.1"));
    assert!(standing(&backoff, "mallory", "2001:db8:0:270f::7"));
    assert!(!standing(&backoff, "mallory", "192.0.2.1") && !standing(&backoff, "alice", "192.0.2.2"));
}

#[test]
fn memory_is_bounded_and_the_youngest_records_are_kept() {
    let mut backoff = Backoff::new(BackoffPolicy {
        accounts_max: 100,
        ..policy(1)
    });
    for user in 0..10_000 {
        let from = format!("10.0.{}.{}", user / 256, user % 256);
        assert_eq!(fail(&mut backoff, &format!("user {user}"), &from, at(0)), Ok(()));
        assert_eq!(
            fail(&mut backoff, &format!("user {user}"), &from, at(0)),
            seconds(1)
        );
        for table in [&backoff.pairs, &backoff.addresses, &backoff.users] {
            assert!(table.young.len() + table.old.len() <= 100);
        }
    }
    // At least the last fifty are kept.
    for user in 9950..10_000 {
        let from = format!("10.0.{}.{}", user / 256, user % 256);
        assert!(fail(&mut backoff, &format!("user {user}"), &from, at(0)).is_err());
    }
    let kept = 10_000 * 3 - backoff.forgotten();
    assert!((150..=300).contains(&kept), "{kept}");
}

#[test]
fn the_longest_wait_and_the_largest_counts_do_not_overflow() {
    let mut backoff = Backoff::new(BackoffPolicy {
        failures_max: u32::MAX,
        delay_first: Duration::MAX,
        delay_max: Duration::MAX,
        accounts_max: u32::MAX,
    });
    let end = Uptime::from_ms(u64::MAX - 1);
    for now in [Uptime::from_ms(0), at(0), end, end, at(0)] {
        let _ = fail(&mut backoff, "alice", "192.0.2.1", now);
    }
    let mut backoff = Backoff::new(BackoffPolicy {
        failures_max: 0,
        delay_max: Duration::MAX,
        ..policy(0)
    });
    assert_eq!(fail(&mut backoff, "alice", "192.0.2.1", end), Ok(()));
    assert!(fail(&mut backoff, "alice", "192.0.2.1", end).is_err());
}
