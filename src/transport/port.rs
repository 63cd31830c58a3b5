//! The ports of the server, and the byte that says what a socket is which one core hands to another.

use std::net::SocketAddr;

use crate::config::tls::OnListen;

/// Which port a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Port {
    /// That of `listen`.
    Main,
    /// That of `tls_listen`.
    Tls,
}

/// The ports, and what is spoken on them.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// The address of `listen`.
    pub(crate) main: SocketAddr,
    /// The protocol of the port.
    pub(crate) main_tls: OnListen,
    /// The address of `tls_listen`, where TLS is spoken.
    pub(crate) tls: Option<SocketAddr>,
}

/// The kind of a socket that is handed to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// A client's, which came to this port.
    Connection(Port),
    /// The listener of this port.
    Listener(Port),
}

impl Port {
    /// The setting that names its address.
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Port::Main => "listen",
            Port::Tls => "tls_listen",
        }
    }

    const fn of_byte(byte: u8) -> Port {
        if byte == Port::Tls as u8 {
            Port::Tls
        } else {
            Port::Main
        }
    }
}

impl Ports {
    /// Whether connections of a port begin with TLS.
    pub(crate) fn speak(&self, port: Port) -> OnListen {
        match port {
            Port::Main => self.main_tls,
            Port::Tls => OnListen::Only,
        }
    }
}

impl HandedOver {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            HandedOver::Connection(port) => port as u8,
            HandedOver::Listener(port) => port as u8 | LISTENER_BIT,
        }
    }

    pub(crate) const fn of_byte(byte: u8) -> HandedOver {
        let port = Port::of_byte(byte & !LISTENER_BIT);
        match byte & LISTENER_BIT {
            0 => HandedOver::Connection(port),
            _ => HandedOver::Listener(port),
        }
    }
}

/// Set in the byte of a listener.
const LISTENER_BIT: u8 = 1 << 7;
