//! The answers of one hook that may be used again.
//!
//! A key is a digest of the action, the name, and the parts of the question that the operator names in `cache_by`.
//! Pure: takes the time.
//!
//! Limits: `cache_max` answers, the oldest goes first; `cache_ms`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::time::Instant;

use super::question::{ForwardedRequest, Question};
use super::reply::Reply;
use crate::config::hooks::CacheBy;

/// The answers, and when they were given.
#[derive(Debug)]
pub(super) struct Cache {
    age_max: Duration,
    count_max: usize,
    answers: HashMap<Key, (Instant, Arc<Reply>)>,
    /// The keys with the times at which answers were kept, the oldest first. An answer that was kept again has two.
    ages: VecDeque<(Instant, Key)>,
}

/// The digest of the parts on which an answer depends.
pub(super) type Key = [u8; 32];

impl Cache {
    /// An empty cache; `None` if nothing is to be kept.
    pub(super) fn new(age_max: Duration, count_max: u32) -> Option<Cache> {
        (!age_max.is_zero()).then(|| Cache {
            age_max,
            count_max: count_max as usize,
            answers: HashMap::new(),
            ages: VecDeque::new(),
        })
    }

    /// The answer to an equal question.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Arc<Reply>> {
        let (since, reply) = self.answers.get(key)?;
        (now.saturating_duration_since(*since) < self.age_max).then(|| Arc::clone(reply))
    }

    /// Keeps an answer.
    pub(super) fn keep(&mut self, key: Key, reply: Arc<Reply>, now: Instant) {
        self.answers.insert(key, (now, reply));
        self.ages.push_back((now, key));
        while let Some(&(since, key)) = self.ages.front() {
            let is_over = now.saturating_duration_since(since) >= self.age_max;
            if !is_over && self.ages.len() <= self.count_max {
                break;
            }
            self.ages.pop_front();
            // Not if it was kept again.
            if self.answers.get(&key).is_some_and(|(kept, _)| *kept == since) {
                self.answers.remove(&key);
            }
        }
    }
}

/// The key of a question.
pub(super) fn key(question: &Question, by: &[CacheBy], pass: &ForwardedRequest<'_>) -> Key {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        // With its length, so that two parts cannot be taken for other two.
        context.update(&bytes.len().to_le_bytes());
        context.update(bytes);
    };
    part(question.action().label().as_bytes());
    part(question.name());
    for by in by {
        match by {
            CacheBy::Everybody => {}
            CacheBy::Connection => part(question.client_id().as_bytes()),
            CacheBy::Mqtt => {
                for bytes in question.mqtt_login() {
                    part(bytes);
                }
            }
            CacheBy::Claims => match question.claims() {
                Some(claims) => {
                    part(b"claims");
                    part(claims.as_bytes());
                }
                None => part(b"anonymous"),
            },
            CacheBy::Request => {
                for (name, value) in pass.headers.iter().chain(&pass.cookies) {
                    part(name.as_bytes());
                    part(value.as_bytes());
                }
                part(b"query");
                part(pass.query.unwrap_or_default().as_bytes());
            }
            CacheBy::Data => part(question.data_bytes()),
        }
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Arc<Reply> {
        Arc::new(Reply::of_json(b"{\"allow\":true}").unwrap())
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_the_oldest_makes_room() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut cache = Cache::new(Duration::from_millis(100), 2).unwrap();
        let [a, b, c] = [[1; 32], [2; 32], [3; 32]];
        cache.keep(a, reply(), at(0));
        cache.keep(b, reply(), at(10));
        assert!(cache.find(&a, at(99)).is_some() && cache.find(&a, at(100)).is_none());
        cache.keep(c, reply(), at(20));
        assert!(cache.find(&a, at(20)).is_none() && cache.find(&b, at(20)).is_some());
        // Kept again, it is younger than the other.
        cache.keep(b, reply(), at(30));
        cache.keep(a, reply(), at(40));
        assert!(cache.find(&b, at(40)).is_some() && cache.find(&c, at(40)).is_none());
        cache.keep(a, reply(), at(500));
        assert_eq!((cache.answers.len(), cache.ages.len()), (1, 1));
        assert!(Cache::new(Duration::ZERO, 2).is_none());
    }
}
