//! Wipes memory in which a password lay, at the speed of `memset`.
//!
//! For buffers of the hot path: the `zeroize` crate, which wipes the passwords themselves, writes byte by byte, and a
//! buffer has tens of thousands.
//!
//! That a compiler might leave writes out to memory which is given back right afterwards is kept from it by
//! [`black_box`]; `tests/login.rs` looks for passwords in the memory of a real server.

use std::hint::black_box;

/// Writes zeros.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// The same for all of a buffer, what it held before included, and gives it back.
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
