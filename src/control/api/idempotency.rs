//! Idempotency keys: a repeated request gets the answer of the first, and is not carried out again.
//!
//! A caller that got no answer does not know whether its request was carried out. If the request has a header
//! `Idempotency-Key`, the caller can repeat it: while the key is remembered, the server answers with the first answer.
//!
//! ```text
//!   begin ──new key──► InProgress ──the request has changed something──► Done(answer) ──time over──► forgotten
//!     │                    └─────────nothing was changed──► forgotten: a repetition is carried out
//!     ├──same request, InProgress──► 409      ├──same request, Done──► the first answer
//!     └──another request──► 422
//! ```
//!
//! Keys of one API key do not meet those of another. Keys are remembered in this process only.
//!
//! Answers of calls are as large as clients make them. A large answer for which there is no room is not kept: a
//! repetition learns that the request was carried out, and other keys are not affected.
//!
//! Limits: `api_idempotency_keys_max` keys (a further one is answered 503: to forget an older key early would let its
//! repetition through), `api_idempotency_ms`, [`LARGE_ANSWER_BYTES_MAX`], [`LARGE_ANSWERS_BYTES_MAX`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::Bytes;
use axum::http::StatusCode;

use super::error::{ApiError, ErrorCode};
use crate::clock::Uptime;

/// The keys that are remembered.
#[derive(Debug)]
pub(super) struct IdempotencyKeys {
    table: RwLock<Table>,
    keys_max: usize,
    keep: Duration,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// The keys of all entries with the times of their end, the oldest first. All are kept for the same time.
    ends: VecDeque<(Uptime, Key)>,
    /// The bytes of all large answers.
    large_bytes: usize,
}

/// The hash of an API key's name and an idempotency key.
type Key = [u8; 32];
/// The hash of a request.
type Content = [u8; 32];

#[derive(Debug)]
struct Entry {
    content: Content,
    state: State,
    /// Tells this entry from a later one of the same key.
    ends: Uptime,
}

#[derive(Debug)]
enum State {
    InProgress,
    Done(KeptAnswer),
}

/// The answer to the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// The way to go on with a request that has an idempotency key.
#[derive(Debug)]
pub(super) enum Begin {
    /// It is the first: it is carried out.
    First(InProgress),
    /// It has been carried out.
    Again(KeptAnswer),
}

/// A request that is being carried out. Dropped without [`InProgress::finish`], the key is forgotten.
#[derive(Debug)]
pub(super) struct InProgress {
    keys: Arc<IdempotencyKeys>,
    key: Key,
    ends: Uptime,
}

impl IdempotencyKeys {
    pub(super) fn new(keys_max: usize, keep: Duration) -> Arc<IdempotencyKeys> {
        Arc::new(IdempotencyKeys {
            table: RwLock::default(),
            keys_max,
            keep,
        })
    }

    /// Begins a request; `parts` are all that makes it the same as another.
    ///
    /// # Errors
    /// The key belongs to another request or to one that is in progress, or there is no room for it.
    pub(super) fn begin(
        self: &Arc<Self>,
        api_key: &str,
        key: &str,
        parts: &[&[u8]],
        now: Uptime,
    ) -> Result<Begin, ApiError> {
        let key = hash(&[api_key.as_bytes(), key.as_bytes()]);
        let content = hash(parts);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.forget_ended(now);
        if let Some(entry) = table.entries.get(&key) {
            return match &entry.state {
                _ if entry.content != content => Err(ApiError::new(
                    ErrorCode::IdempotencyKeyReused,
                    "this idempotency key was used for another request: use a new key for each request, and repeat a \
                     request without any change",
                )),
                State::InProgress => Err(ApiError::new(
                    ErrorCode::IdempotencyKeyInUse,
                    "the first request with this idempotency key is not answered yet: repeat the request later",
                )
                .retry_after(Duration::from_secs(1))),
                State::Done(answer) => Ok(Begin::Again(answer.clone())),
            };
        }
        if table.entries.len() >= self.keys_max {
            let (ends, _) = table.ends.front().copied().unwrap_or((now, key));
            return Err(ApiError::new(
                ErrorCode::IdempotencyKeysFull,
                "too many idempotency keys are remembered: repeat the request later, or raise \
                 limits.api_idempotency_keys_max, or lower limits.api_idempotency_ms",
            )
            .retry_after(ends.since(now)));
        }
        let ends = Uptime::from_ms(now.as_ms().saturating_add(whole_ms(self.keep)));
        let entry = Entry {
            content,
            state: State::InProgress,
            ends,
        };
        table.entries.insert(key, entry);
        table.ends.push_back((ends, key));
        Ok(Begin::First(InProgress {
            keys: Arc::clone(self),
            key,
            ends,
        }))
    }
}

impl InProgress {
    /// Keeps the answer for repetitions.
    pub(super) fn finish(self, answer: &KeptAnswer) {
        let mut table = self.keys.table.write().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        // The entry may have ended while the request was carried out.
        if let Some(entry) = table.entries.get_mut(&self.key)
            && entry.ends == self.ends
        {
            let bytes = large_bytes_of(answer);
            let has_room =
                bytes <= LARGE_ANSWER_BYTES_MAX && table.large_bytes + bytes <= LARGE_ANSWERS_BYTES_MAX;
            let kept = if has_room { answer.clone() } else { not_kept() };
            table.large_bytes += large_bytes_of(&kept);
            entry.state = State::Done(kept);
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut table = self.keys.table.write().unwrap_or_else(PoisonError::into_inner);
        let is_open = table
            .entries
            .get(&self.key)
            .is_some_and(|entry| entry.ends == self.ends && matches!(entry.state, State::InProgress));
        if is_open {
            table.entries.remove(&self.key);
            // The times are in order, and those of one millisecond are few.
            let first = table.ends.partition_point(|(ends, _)| *ends < self.ends);
            let own = table
                .ends
                .range(first..)
                .position(|end| *end == (self.ends, self.key));
            if let Some(place) = own {
                table.ends.remove(first + place);
            }
        }
    }
}

impl Table {
    fn forget_ended(&mut self, now: Uptime) {
        while let Some((ends, key)) = self.ends.front().copied()
            && ends <= now
        {
            self.ends.pop_front();
            if let Some(entry) = self.entries.remove(&key)
                && let State::Done(answer) = entry.state
            {
                self.large_bytes -= large_bytes_of(&answer);
            }
        }
    }
}

/// What a large answer takes of the room for them; 0 for others.
fn large_bytes_of(answer: &KeptAnswer) -> usize {
    match answer.body.len() {
        bytes if bytes > SMALL_ANSWER_BYTES_MAX => bytes,
        _ => 0,
    }
}

/// The answer to the repetition of a request whose own answer was not kept.
fn not_kept() -> KeptAnswer {
    let error = ApiError::new(
        ErrorCode::AnswerNotKept,
        "the request was carried out, and its answer was too large to be kept for repetitions",
    );
    super::kept(error.code().status(), error.body().to_string())
}

/// The hash of several parts; their lengths count, so that no two lists of parts have the same.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Answers up to this size are always kept.
const SMALL_ANSWER_BYTES_MAX: usize = 1024;
/// A larger answer than this is not kept.
const LARGE_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of all answers that are not small.
const LARGE_ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_MS: u64 = 1000;

    fn keys(max: usize) -> Arc<IdempotencyKeys> {
        IdempotencyKeys::new(max, Duration::from_millis(KEEP_MS))
    }

    fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    fn answer(body: &'static str) -> KeptAnswer {
        KeptAnswer {
            status: StatusCode::OK,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn first(keys: &Arc<IdempotencyKeys>, key: &str, content: &str, now: u64) -> InProgress {
        match keys.begin("a", key, &[content.as_bytes()], at(now)) {
            Ok(Begin::First(progress)) => progress,
            other => panic!("{other:?}"),
        }
    }

    fn code(keys: &Arc<IdempotencyKeys>, api_key: &str, key: &str, content: &str, now: u64) -> ErrorCode {
        keys.begin(api_key, key, &[content.as_bytes()], at(now))
            .unwrap_err()
            .code()
    }

    #[test]
    fn a_repetition_gets_the_first_answer_until_its_time_is_over() {
        let keys = keys(10);
        first(&keys, "k", "x", 5).finish(&answer("one"));
        for now in [5, 5 + KEEP_MS - 1] {
            match keys.begin("a", "k", &[b"x"], at(now)) {
                Ok(Begin::Again(kept)) => assert_eq!(kept, answer("one")),
                other => panic!("{other:?}"),
            }
        }
        first(&keys, "k", "x", 5 + KEEP_MS).finish(&answer("two"));
        assert_eq!(keys.table.read().unwrap().large_bytes, 0);
    }

    #[test]
    fn another_request_with_the_same_key_is_refused_unless_it_has_another_api_key() {
        let keys = keys(10);
        let progress = first(&keys, "k", "x", 5);
        assert_eq!(code(&keys, "a", "k", "x", 6), ErrorCode::IdempotencyKeyInUse);
        assert_eq!(code(&keys, "a", "k", "y", 6), ErrorCode::IdempotencyKeyReused);
        progress.finish(&answer("one"));
        assert_eq!(code(&keys, "a", "k", "y", 6), ErrorCode::IdempotencyKeyReused);
        assert!(matches!(
            keys.begin("b", "k", &[b"y"], at(6)),
            Ok(Begin::First(_))
        ));
        // The parts are told apart: neither "ak" of nobody nor "a" of "bk".
        assert_ne!(hash(&[b"a", b"bk"]), hash(&[b"ab", b"k"]));
    }

    #[test]
    fn a_request_without_effect_is_carried_out_again() {
        let keys = keys(10);
        drop(first(&keys, "k", "x", 5));
        drop(first(&keys, "k", "y", 5));
        first(&keys, "k", "z", 7).finish(&answer("one"));
        // The ends of the first two do not end the third.
        assert_eq!(
            code(&keys, "a", "k", "x", 5 + KEEP_MS),
            ErrorCode::IdempotencyKeyReused
        );
        assert_eq!(keys.table.read().unwrap().ends.len(), 1);
    }

    #[test]
    fn a_full_table_takes_no_key_and_forgets_none_before_its_time() {
        let keys = keys(2);
        first(&keys, "k", "x", 0).finish(&answer("one"));
        let slow = first(&keys, "l", "x", 10);
        let error = keys.begin("a", "m", &[b"x"], at(20)).unwrap_err();
        let expected =
            ApiError::new(ErrorCode::IdempotencyKeysFull, "").retry_after(Duration::from_millis(980));
        assert_eq!(error.code(), expected.code());
        assert!(matches!(
            keys.begin("a", "k", &[b"x"], at(20)),
            Ok(Begin::Again(_))
        ));
        first(&keys, "m", "x", KEEP_MS).finish(&answer("two"));
        // A request that takes longer than keys are kept leaves nothing behind.
        first(&keys, "n", "x", KEEP_MS + 10).finish(&answer("three"));
        slow.finish(&answer("late"));
        assert_eq!(keys.table.read().unwrap().entries.len(), 2);
    }

    /// Answers of calls have the sizes that clients choose.
    #[test]
    fn large_answers_take_bounded_room_and_shut_no_other_key_out() {
        let keys = keys(1000);
        let sized = |bytes: usize| KeptAnswer {
            status: StatusCode::OK,
            body: vec![b'x'; bytes].into(),
        };
        let again = |key: &str| match keys.begin("a", key, &[b"x"], at(1)) {
            Ok(Begin::Again(kept)) => kept,
            other => panic!("{other:?}"),
        };
        first(&keys, "huge", "x", 0).finish(&sized(LARGE_ANSWER_BYTES_MAX + 1));
        assert_eq!(again("huge"), not_kept());
        // As many at a time as the control plane has connections, and more.
        let under_way: Vec<_> = (0..100).map(|n| first(&keys, &n.to_string(), "x", 0)).collect();
        for progress in under_way {
            progress.finish(&sized(LARGE_ANSWER_BYTES_MAX));
        }
        let bytes = keys.table.read().unwrap().large_bytes;
        assert_eq!(bytes, LARGE_ANSWERS_BYTES_MAX);
        assert_eq!(again("0").body.len(), LARGE_ANSWER_BYTES_MAX);
        assert_eq!(again("99"), not_kept());
        first(&keys, "small", "x", 1).finish(&sized(SMALL_ANSWER_BYTES_MAX));
        assert_eq!(again("small").body.len(), SMALL_ANSWER_BYTES_MAX);
        // Their room comes back.
        first(&keys, "later", "x", KEEP_MS + 1).finish(&sized(SMALL_ANSWER_BYTES_MAX + 1));
        let bytes = keys.table.read().unwrap().large_bytes;
        assert_eq!(bytes, SMALL_ANSWER_BYTES_MAX + 1);
    }
}
