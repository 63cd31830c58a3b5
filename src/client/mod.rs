//! The client of a connection: its address, also behind proxies, and the origin of the page that it belongs
//! to.
//!
//! Pure: addresses, networks and bytes in, addresses out. The code in `cores` reads them from sockets.

mod address;
pub mod ambient;
pub mod forwarded;
pub mod network;
pub mod networks;
pub mod origin;
pub mod proxy_header;

pub use address::ClientAddress;
