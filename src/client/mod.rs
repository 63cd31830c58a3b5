//! Who is at the other end of a connection: its address, also behind proxies.
//!
//! Pure: addresses, networks and bytes in, addresses out. What reads them from sockets is in `cores`.

mod address;

pub use address::ClientAddress;
