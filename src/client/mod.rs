//! Who is at the other end of a connection: its address, also behind proxies, and the page that it stands for.
//!
//! Pure: addresses, networks and bytes in, addresses out. What reads them from sockets is in `cores`.

mod address;
pub mod ambient;
pub mod forwarded;
pub mod network;
pub mod networks;
pub mod origin;
pub mod proxy_header;

pub use address::ClientAddress;
