//! MQTT 3.1, 3.1.1 and 5.0: bytes in, packets and reason codes out, and back.
//!
//! [`frame`] finds the packet at the start of the input, [`packet`] decodes it in place: strings and payloads are
//! slices of the input, and nothing is allocated. [`properties`] has the one table of the properties of MQTT 5, which
//! drives decoding and encoding, and [`reason`] the one table of reason codes. [`encode`] writes the packets that a
//! server sends.
//!
//! [`publication`] is the form of a client's publication in the ring, and [`payload`] its translation for
//! SocketCluster clients. [`receiver`] joins the bytes of a connection to packets. [`session`] is one
//! connected client: packets in, decisions out. [`sessions`] has the sessions of all client ids that a core
//! owns, connected or not. [`shares`] has the shared subscriptions, whose groups have members on all cores.
//! [`subscriptions`] has the subscriptions of all sessions of a core: it finds the filters that match a
//! topic.
//!
//! Nothing here uses a socket, a clock or a thread. Rules are cited by their number in the specification
//! (`MQTT-3.1.2-24`), or by the section of MQTT 5.0.

pub mod encode;
pub mod environment;
pub mod fault;
pub mod frame;
pub mod packet;
pub mod payload;
pub mod properties;
pub mod publication;
mod reader;
pub mod reason;
pub mod receiver;
pub mod session;
pub mod sessions;
pub mod settings;
pub mod shares;
pub mod subscriptions;
pub mod topic;
pub mod version;

pub use fault::Fault;
pub use packet::{Packet, PacketId, Qos};
pub use reason::ReasonCode;
pub use sessions::Sessions;
pub use version::Version;
