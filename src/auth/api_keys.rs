//! API keys: finds the key that a request to the HTTP API carries, and decides whether the key allows the request.
//!
//! A key is 256 random bits, so that its hash is a plain SHA-256. A slow hash protects secrets that people choose,
//! since an attacker who has the hash tries all likely ones; nobody can try 2^256 keys, however fast each try is. A
//! slow hash would only cost each request a tenth of a second of CPU time, also requests with a wrong key.
//!
//! Invariants
//! 1. The time of a look-up depends neither on which key matches nor on where two hashes differ: each request is
//!    compared with all keys, in constant time.
//! 2. A reload does not refill the rate of a key whose entry it does not change.
//!
//! Not here: the form of keys in a file (`config::api_keys`), and when they are checked (`control::api`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::rules::{Pattern, first_bytes};
use crate::clock::Uptime;
use crate::config::ListFault;
use crate::config::api_keys::{ApiAction, ApiKeySpec, KeyHash};

/// The compiled keys of a configuration.
#[derive(Debug, Default)]
pub struct ApiKeys(Vec<Arc<ApiKey>>);

/// One key.
#[derive(Debug)]
pub struct ApiKey {
    spec: ApiKeySpec,
    channels: Box<[Pattern]>,
    separator: u8,
    rate: Arc<RequestRate>,
}

impl ApiKeys {
    /// Compiles keys. Keys with the same entries as `before` keep their remaining rate.
    ///
    /// # Errors
    /// A key has an invalid pattern, or the name or the hash of another.
    pub fn compile(
        specs: &[ApiKeySpec],
        separator: u8,
        before: Option<&ApiKeys>,
    ) -> Result<Arc<ApiKeys>, ListFault> {
        let mut keys: Vec<Arc<ApiKey>> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let fault = |fault: String| ListFault {
                list: "api_keys",
                number: index + 1,
                file: spec.file.clone(),
                line: spec.line,
                fault,
            };
            let of_before = &specs[..index];
            if let Some(other) = of_before.iter().position(|other| other.name == spec.name) {
                return Err(fault(format!(
                    "the name {:?} is that of number {}",
                    spec.name,
                    other + 1
                )));
            }
            if let Some(other) = of_before.iter().position(|other| other.hash == spec.hash) {
                return Err(fault(format!("the hash is that of number {}", other + 1)));
            }
            let channels = spec.channels.iter().map(|text| compile_pattern(text, separator));
            let channels = channels
                .collect::<Result<_, String>>()
                .map_err(|text| fault(format!("channels: {text}")))?;
            let same = before.and_then(|before| before.0.iter().find(|key| key.has_rate_of(spec)));
            keys.push(Arc::new(ApiKey {
                spec: spec.clone(),
                channels,
                separator,
                rate: same.map_or_else(Arc::default, |key| Arc::clone(&key.rate)),
            }));
        }
        Ok(Arc::new(ApiKeys(keys)))
    }

    /// True if no key is configured: the HTTP API is off.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key that a request brings, if it is one of these.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<ApiKey>> {
        let hash = hash(key);
        let mut found = None;
        for key in &self.0 {
            if verify_slices_are_equal(key.spec.hash.bytes(), hash.bytes()).is_ok() {
                found = Some(key);
            }
        }
        found
    }
}

impl ApiKey {
    /// Its name, for the log.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// True if a request with this key may do this at all.
    pub fn may(&self, action: ApiAction) -> bool {
        self.spec.actions.contains(&action)
    }

    /// True if the key names this channel for its actions on channels. As in policies of channels, a pattern that
    /// begins with a wildcard is not about the server's own channels, whose names begin with `$`.
    pub fn names_channel(&self, channel: &str) -> bool {
        let (name, first) = (channel.as_bytes(), first_bytes(channel.as_bytes()));
        self.channels.iter().any(|pattern| {
            let is_for_own = pattern.text().starts_with('$');
            is_for_own == channel.starts_with('$') && pattern.matches(name, first, self.separator, &[])
        })
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The key is over its rate; the time after which a request will be accepted.
    pub fn take(&self, now: Uptime) -> Result<(), Duration> {
        self.rate.take(self.spec.rate, self.spec.burst, now)
    }

    fn has_rate_of(&self, spec: &ApiKeySpec) -> bool {
        (&self.spec.hash, self.spec.rate, self.spec.burst) == (&spec.hash, spec.rate, spec.burst)
    }
}

fn compile_pattern(text: &str, separator: u8) -> Result<Pattern, String> {
    let mut claims = Vec::new();
    let pattern = Pattern::compile(text, separator, &mut claims)?;
    match claims.first() {
        Some(claim) => Err(format!(
            "{text:?}: a request with an API key has no token, so that {{{claim}}} has no value: write * for any one \
             segment"
        )),
        None => Ok(pattern),
    }
}

/// When the next request is due, in nanoseconds of uptime (GCRA). Relaxed order is enough: the value stands alone.
#[derive(Debug, Default)]
struct RequestRate(AtomicU64);

impl RequestRate {
    fn take(&self, per_second: u32, burst: u32, now: Uptime) -> Result<(), Duration> {
        let Some(period) = NS_PER_SECOND.checked_div(u64::from(per_second)) else {
            return Ok(());
        };
        let now = now.as_ms() * NS_PER_MS;
        let latest = now + u64::from(burst.saturating_sub(1)) * period;
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let due = next.max(now);
            (due <= latest).then_some(due + period)
        });
        taken
            .map(|_| ())
            .map_err(|next| Duration::from_nanos(next - latest))
    }
}

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// The hash of a key, as the file has it.
pub fn hash(key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    KeyHash::new(hash)
}

/// A new key of 256 random bits. The beginning is for programs that look for secrets in files where none should be.
///
/// # Errors
/// The system has no random numbers.
pub fn generate() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut bits = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bits)?;
    Ok(Zeroizing::new(format!("rc_{}", URL_SAFE_NO_PAD.encode(*bits))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, key: &str) -> ApiKeySpec {
        ApiKeySpec {
            name: name.to_owned(),
            hash: hash(key.as_bytes()),
            actions: vec![ApiAction::Publish],
            channels: vec!["shop.**".to_owned()],
            rate: 10,
            burst: 3,
            file: None,
            line: 7,
        }
    }

    fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    #[test]
    fn the_hash_is_that_of_sha256sum() {
        assert_eq!(
            hash(b"test").text(),
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        );
    }

    #[test]
    fn a_generated_key_has_256_bits_and_is_found_by_its_hash() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(one.starts_with("rc_") && one.len() == 46 && one != other);
        let keys = ApiKeys::compile(&[spec("a", &one), spec("b", &other)], b'.', None).unwrap();
        assert_eq!(keys.find(one.as_bytes()).unwrap().name(), "a");
        assert_eq!(keys.find(other.as_bytes()).unwrap().name(), "b");
        for wrong in ["", "rc_", &one[..45], &format!("{}x", *one)] {
            assert!(keys.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_key_allows_the_actions_of_its_entry_and_no_others() {
        let keys = ApiKeys::compile(&[spec("a", "k")], b'.', None).unwrap();
        let key = keys.find(b"k").unwrap();
        let allowed: Vec<ApiAction> = ApiAction::ALL
            .into_iter()
            .filter(|action| key.may(*action))
            .collect();
        assert_eq!(allowed, [ApiAction::Publish]);
        assert!(key.names_channel("shop.a") && !key.names_channel("shops"));
        let patterns = |list: &[&str]| {
            let channels = list.iter().map(|text| (*text).to_owned()).collect();
            let keys = ApiKeys::compile(
                &[ApiKeySpec {
                    channels,
                    ..spec("a", "k")
                }],
                b'.',
                None,
            )
            .unwrap();
            Arc::clone(keys.find(b"k").unwrap())
        };
        let all = patterns(&["**"]);
        assert!(all.names_channel("news") && !all.names_channel("$presence/news"));
        assert!(patterns(&["$presence/news"]).names_channel("$presence/news"));
    }

    #[test]
    fn two_keys_have_neither_one_name_nor_one_hash() {
        let fault = |specs: &[ApiKeySpec]| ApiKeys::compile(specs, b'.', None).unwrap_err().to_string();
        let same_name = fault(&[spec("a", "k"), spec("a", "l")]);
        assert_eq!(
            same_name,
            "line 7: api_keys number 2: the name \"a\" is that of number 1"
        );
        let same_hash = fault(&[spec("a", "k"), spec("b", "k")]);
        assert_eq!(
            same_hash,
            "line 7: api_keys number 2: the hash is that of number 1"
        );
        let pattern = ApiKeySpec {
            channels: vec!["a.{sub}".to_owned()],
            ..spec("a", "k")
        };
        assert!(fault(&[pattern]).contains("channels: \"a.{sub}\""));
    }

    #[test]
    fn a_key_over_its_rate_is_told_when_to_come_again() {
        let keys = ApiKeys::compile(&[spec("a", "k")], b'.', None).unwrap();
        let key = keys.find(b"k").unwrap();
        let take = |now, attempts: usize| (0..attempts).filter(|_| key.take(at(now)).is_ok()).count();
        assert_eq!(take(1000, 100), 3, "a burst of three");
        assert_eq!(key.take(at(1000)), Err(Duration::from_millis(100)));
        assert_eq!(take(1099, 1), 0);
        assert_eq!(take(1100, 2), 1);
        // Ten a second in the long run.
        let lines: usize = (1..=1000).map(|tenth| take(1100 + tenth * 10, 5)).sum();
        assert_eq!(lines, 100);
        assert_eq!(take(100_000, 100), 3, "a pause saves up no more than a burst");
    }

    #[test]
    fn a_reload_refills_the_rate_only_of_a_changed_key() {
        let before = ApiKeys::compile(&[spec("a", "k"), spec("b", "l")], b'.', None).unwrap();
        for key in ["k", "l"] {
            while before.find(key.as_bytes()).unwrap().take(at(0)).is_ok() {}
        }
        let changed = ApiKeySpec {
            burst: 4,
            ..spec("b", "l")
        };
        let after = ApiKeys::compile(&[spec("renamed", "k"), changed], b'.', Some(&before)).unwrap();
        assert!(after.find(b"k").unwrap().take(at(0)).is_err());
        assert!(after.find(b"l").unwrap().take(at(0)).is_ok());
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let unlimited = ApiKeySpec {
            rate: 0,
            burst: 1,
            ..spec("a", "k")
        };
        let keys = ApiKeys::compile(&[unlimited], b'.', None).unwrap();
        assert!((0..1000).all(|_| keys.find(b"k").unwrap().take(at(5)).is_ok()));
    }
}
