//! One stored password: its forms, and the check of a password against it.
//!
//! Invariants
//! 1. Checking a password costs at most about two seconds and 256 MiB: [`PasswordHash::parse`] refuses
//!    costlier hashes, since a file with 2³¹ iterations would block all logins.
//! 2. `parse(text)?.text() == text`: forms that are not canonical are refused, so that each hash has one
//!    form.
//! 3. Neither `Debug` nor an error shows a hash.
//! 3. Neither `Debug` nor an error shows a hash.
//!
//! RFC 9106 (Argon2), RFC 8018 (PBKDF2), the PHC string format; `mosquitto_passwd` for `$6$` and `$7$`.

use std::fmt;
use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// The stored form of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    cost: Cost,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

/// The function that made a hash, and its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// `$6$`: SHA-512 of the password and the salt.
    Sha512,
    /// `$7$`: PBKDF2 with HMAC-SHA512.
    Pbkdf2 { iterations: NonZeroU32 },
    /// `$argon2id$v=19$`.
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
}

/// Why a text is not a stored password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// It begins with none of `$6$`, `$7$` and `$argon2id$`; it may be a plain password.
    Unknown,
    /// Its parts do not fit its kind, or are not base64 of the right length.
    Malformed,
    /// Checking a password would take too long or too much memory.
    TooCostly,
}

impl PasswordHash {
    /// Hashes a password with Argon2id at the cost that OWASP recommends: 19 MiB, two passes, about 30 ms.
    pub fn argon2id(password: &[u8], salt: [u8; SALT_BYTES_ARGON2ID]) -> PasswordHash {
        PasswordHash::new(Cost::DEFAULT, &salt, HASH_BYTES_ARGON2ID, password)
    }

    /// Hashes a password with PBKDF2-SHA512, as Mosquitto 2 does. `None` for zero iterations or more than
    /// [`ITERATIONS_MAX`].
    pub fn pbkdf2(password: &[u8], salt: [u8; SALT_BYTES_PBKDF2], iterations: u32) -> Option<PasswordHash> {
        let iterations = NonZeroU32::new(iterations).filter(|count| count.get() <= ITERATIONS_MAX)?;
        Some(PasswordHash::new(
            Cost::Pbkdf2 { iterations },
            &salt,
            HASH_BYTES_SHA512,
            password,
        ))
    }

    /// A hash that matches no known password, at the cost of a new entry.
    pub(super) fn without_password() -> PasswordHash {
        PasswordHash {
            cost: Cost::DEFAULT,
            salt: [0; SALT_BYTES_ARGON2ID].into(),
            hash: [0; HASH_BYTES_ARGON2ID].into(),
        }
    }

    fn new(cost: Cost, salt: &[u8], hash_bytes: usize, password: &[u8]) -> PasswordHash {
        let mut hash = vec![0; hash_bytes];
        cost.derive(password, salt, &mut hash);
        PasswordHash {
            cost,
            salt: salt.into(),
            hash: hash.into(),
        }
    }

    /// Reads the stored form.
    pub fn parse(text: &str) -> Result<PasswordHash, HashFault> {
        let rest = text.strip_prefix('$').ok_or(HashFault::Unknown)?;
        let (kind, rest) = rest.split_once('$').ok_or(HashFault::Unknown)?;
        match kind {
            "6" => {
                let (salt, hash) = parts(rest)?;
                parsed(Cost::Sha512, STANDARD.decode(salt), STANDARD.decode(hash))
            }
            "7" => {
                let (iterations, rest) = parts(rest)?;
                let iterations = number(iterations)?.ok_or(HashFault::TooCostly)?;
                let iterations = NonZeroU32::new(iterations).ok_or(HashFault::Malformed)?;
                let (salt, hash) = parts(rest)?;
                parsed(
                    Cost::Pbkdf2 { iterations },
                    STANDARD.decode(salt),
                    STANDARD.decode(hash),
                )
            }
            "argon2id" => {
                let rest = rest.strip_prefix("v=19$").ok_or(HashFault::Malformed)?;
                let (parameters, rest) = parts(rest)?;
                let cost = argon2id_cost(parameters)?;
                let (salt, hash) = parts(rest)?;
                parsed(cost, STANDARD_NO_PAD.decode(salt), STANDARD_NO_PAD.decode(hash))
            }
            _ => Err(HashFault::Unknown),
        }
    }

    /// The stored form. It must only be written to the password file: everyone who has it can guess passwords
    /// offline.
    pub fn text(&self) -> String {
        match self.cost {
            Cost::Sha512 => format!(
                "$6${}${}",
                STANDARD.encode(&self.salt),
                STANDARD.encode(&self.hash)
            ),
            Cost::Pbkdf2 { iterations } => format!(
                "$7${iterations}${}${}",
                STANDARD.encode(&self.salt),
                STANDARD.encode(&self.hash)
            ),
            Cost::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => format!(
                "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
                STANDARD_NO_PAD.encode(&self.salt),
                STANDARD_NO_PAD.encode(&self.hash)
            ),
        }
    }

    /// True if this is the password. A wrong one takes as long; milliseconds, so never call it on a core.
    ///
    /// A password with a NUL never matches: HMAC pads its key with NULs, so PBKDF2 cannot tell `secret` from
    /// `secret\0`.
    pub fn verify(&self, password: &[u8]) -> bool {
        let mut hash = Zeroizing::new(vec![0; self.hash.len()]);
        self.cost.derive(password, &self.salt, &mut hash);
        verify_slices_are_equal(&hash, &self.hash).is_ok() && !password.contains(&0)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PasswordHash")
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

impl Cost {
    /// The cost of new entries.
    const DEFAULT: Cost = Cost::Argon2id {
        memory_kib: Params::DEFAULT_M_COST,
        passes: Params::DEFAULT_T_COST,
        lanes: Params::DEFAULT_P_COST,
    };

    fn derive(self, password: &[u8], salt: &[u8], hash: &mut [u8]) {
        #[cfg(test)]
        DERIVED.with_borrow_mut(|costs| costs.push(self));
        match self {
            Cost::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                hash.copy_from_slice(context.finish().as_ref());
            }
            Cost::Pbkdf2 { iterations } => {
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, password, hash);
            }
            Cost::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => {
                let params = Params::new(memory_kib, passes, lanes, Some(hash.len()))
                    .expect("costs and lengths were checked when the hash was parsed or chosen");
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password, salt, hash)
                    .expect(
                        "only salts and passwords out of bounds fail, which `parse` and the callers exclude",
                    );
            }
        }
    }
}

impl fmt::Display for HashFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            HashFault::Unknown => {
                "the text after the name is not a hash of a known kind ($argon2id$, $7$, $6$); \
                 `ringcast passwd -U` hashes a file of plain passwords"
            }
            HashFault::Malformed => "the hash is damaged; set the password again",
            HashFault::TooCostly => {
                "checking this hash would take too long or too much memory (at most 2000000 iterations, \
                 or 256 MiB and 2 GiB over all passes); set the password again"
            }
        })
    }
}

impl std::error::Error for HashFault {}

fn parts(text: &str) -> Result<(&str, &str), HashFault> {
    text.split_once('$').ok_or(HashFault::Malformed)
}

/// A number without sign and leading zeros; the inner `None` if it is too large for its type.
fn number(text: &str) -> Result<Option<u32>, HashFault> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(HashFault::Malformed);
    }
    Ok(text.parse().ok())
}

fn argon2id_cost(parameters: &str) -> Result<Cost, HashFault> {
    let mut found = parameters.split(',');
    let mut next = |name: &str| {
        let text = found.next().and_then(|part| part.strip_prefix(name));
        number(text.ok_or(HashFault::Malformed)?)?.ok_or(HashFault::TooCostly)
    };
    let (memory_kib, passes, lanes) = (next("m=")?, next("t=")?, next("p=")?);
    if found.next().is_some() || passes == 0 || lanes == 0 {
        return Err(HashFault::Malformed);
    }
    let work = u64::from(memory_kib) * u64::from(passes);
    if lanes > LANES_MAX || memory_kib > MEMORY_KIB_MAX || work > WORK_KIB_MAX {
        return Err(HashFault::TooCostly);
    }
    // RFC 9106 section 3.1.
    if memory_kib < 8 * lanes {
        return Err(HashFault::Malformed);
    }
    Ok(Cost::Argon2id {
        memory_kib,
        passes,
        lanes,
    })
}

fn parsed(
    cost: Cost,
    salt: Result<Vec<u8>, base64::DecodeError>,
    hash: Result<Vec<u8>, base64::DecodeError>,
) -> Result<PasswordHash, HashFault> {
    let (Ok(salt), Ok(hash)) = (salt, hash) else {
        return Err(HashFault::Malformed);
    };
    let legal = match cost {
        Cost::Sha512 => hash.len() == HASH_BYTES_SHA512 && (1..=SALT_BYTES_MAX).contains(&salt.len()),
        Cost::Pbkdf2 { iterations } => {
            if iterations.get() > ITERATIONS_MAX {
                return Err(HashFault::TooCostly);
            }
            hash.len() == HASH_BYTES_SHA512 && (1..=SALT_BYTES_MAX).contains(&salt.len())
        }
        Cost::Argon2id { .. } => {
            (16..=HASH_BYTES_SHA512).contains(&hash.len()) && (8..=SALT_BYTES_MAX).contains(&salt.len())
        }
    };
    if !legal {
        return Err(HashFault::Malformed);
    }
    Ok(PasswordHash {
        cost,
        salt: salt.into(),
        hash: hash.into(),
    })
}

#[cfg(test)]
thread_local! {
    /// The work that this thread has computed: tests use it to see that two checks cost the same, without a
    /// clock.
    pub(super) static DERIVED: std::cell::RefCell<Vec<Cost>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Longest password, in bytes. A longer one never matches.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Salt of a new Argon2id hash: RFC 9106 section 3.1 recommends 16 bytes.
pub const SALT_BYTES_ARGON2ID: usize = 16;
/// Salt of a new PBKDF2 hash: Mosquitto 2.0 accepts no other length.
pub const SALT_BYTES_PBKDF2: usize = 12;
/// The longest salt that mosquitto_passwd writes.
const SALT_BYTES_MAX: usize = 64;
const HASH_BYTES_ARGON2ID: usize = 32;
const HASH_BYTES_SHA512: usize = 64;

/// Iterations of a new PBKDF2 hash, as OWASP recommends: about a tenth of a second. `mosquitto_passwd` 2.0
/// uses 101.
pub const ITERATIONS_DEFAULT: u32 = 210_000;
/// Most iterations of PBKDF2 that are accepted.
pub const ITERATIONS_MAX: u32 = 2_000_000;
/// Most memory of Argon2id, in KiB.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most memory over all passes, in KiB.
const WORK_KIB_MAX: u64 = 2 * 1024 * 1024;
/// Lanes are computed one after the other.
const LANES_MAX: u32 = 64;
