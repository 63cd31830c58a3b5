//! Wipes memory that has contained a password, at the speed of `memset`.
//!
//! For buffers on the hot path, of tens of thousands of bytes: the `zeroize` crate, which wipes the passwords
//! themselves, writes byte by byte.
//!
//! A compiler might remove writes to memory that is freed right afterwards; [`black_box`] prevents that.
//! `tests/login.rs` searches the memory of a real server for passwords.

use std::hint::black_box;

/// Overwrites with zeros.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// Wipes the whole allocation of a buffer, including bytes of former contents, and frees it.
pub(crate) fn wipe_and_drop(mut bytes: Vec<u8>) {
    bytes.clear();
    bytes.resize(bytes.capacity(), 0);
    black_box(&mut bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left() {
        let mut bytes = *b"secret";
        wipe(&mut bytes[1..5]);
        assert_eq!(&bytes, b"s\0\0\0\0t");
        wipe_and_drop(Vec::with_capacity(10));
        wipe_and_drop(Vec::new());
    }
}
