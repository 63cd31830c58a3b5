//! The ports of the server, and the message that goes with a socket when one core hands it to another.

use std::net::SocketAddr;

use super::hand_over::About;
use crate::config::Codec;
use crate::config::tls::OnListen;

/// Which port a socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Port {
    /// That of `listen`.
    Main,
    /// That of `tls_listen`.
    Tls,
    /// That of `mqtt_listen`.
    Mqtt,
    /// That of `mqtt_tls_listen`.
    MqttTls,
}

/// Whether clients of a port speak MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MqttOn {
    /// None does.
    No,
    /// Some do, by themselves or in WebSockets.
    Beside,
    /// All do, and not in WebSockets.
    Only,
}

/// The ports, and their protocols.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    /// The address of `listen`.
    pub(crate) main: SocketAddr,
    /// The protocol of the port.
    pub(crate) main_tls: OnListen,
    /// The address of `tls_listen`, where TLS is spoken.
    pub(crate) tls: Option<SocketAddr>,
    /// The address of `mqtt_listen`.
    pub(crate) mqtt: Option<SocketAddr>,
    /// The address of `mqtt_tls_listen`, where TLS is spoken.
    pub(crate) mqtt_tls: Option<SocketAddr>,
    /// The codec of SocketCluster clients at `listen`, and at `tls_listen`.
    pub(crate) codecs: [Codec; 2],
    /// Whether clients may speak MQTT at `listen` and `tls_listen`.
    pub(crate) mqtt_beside: bool,
}

/// The kind of a socket that is handed to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// A client's, which came to this port.
    Connection(Port),
    /// The listener of this port.
    Listener(Port),
    /// A client's, whose connection moves to the core. A letter with the same ticket carries everything else.
    Moved(Ticket),
}

/// The name of a connection on its way from one core to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// The ticket of the connection with this number among those that have left the core.
    pub(crate) const fn new(core: usize, number: u64) -> Ticket {
        Ticket((core as u64) << 48 | number & NUMBER)
    }

    /// The core that the connection has left.
    pub(crate) const fn core(self) -> usize {
        (self.0 >> 48) as usize
    }
}

/// The bits of a ticket that hold the number.
const NUMBER: u64 = (1 << 48) - 1;

impl Port {
    /// The setting that names its address.
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Port::Main => "listen",
            Port::Tls => "tls_listen",
            Port::Mqtt => "mqtt_listen",
            Port::MqttTls => "mqtt_tls_listen",
        }
    }

    const fn of_byte(byte: u8) -> Port {
        const TLS: u8 = Port::Tls as u8;
        const MQTT: u8 = Port::Mqtt as u8;
        const MQTT_TLS: u8 = Port::MqttTls as u8;
        match byte {
            TLS => Port::Tls,
            MQTT => Port::Mqtt,
            MQTT_TLS => Port::MqttTls,
            _ => Port::Main,
        }
    }
}

impl Ports {
    /// The addresses for clients beside that of `listen`.
    pub(crate) fn others(&self) -> impl Iterator<Item = (Port, SocketAddr)> {
        let others = [
            (Port::Tls, self.tls),
            (Port::Mqtt, self.mqtt),
            (Port::MqttTls, self.mqtt_tls),
        ];
        others
            .into_iter()
            .filter_map(|(port, address)| Some((port, address?)))
    }

    /// Whether connections of a port begin with TLS.
    pub(crate) fn speak(&self, port: Port) -> OnListen {
        match port {
            Port::Main => self.main_tls,
            Port::Mqtt => OnListen::Off,
            Port::Tls | Port::MqttTls => OnListen::Only,
        }
    }

    /// Whether clients of a port speak MQTT.
    pub(crate) fn mqtt_on(&self, port: Port) -> MqttOn {
        match port {
            Port::Mqtt | Port::MqttTls => MqttOn::Only,
            Port::Main | Port::Tls if self.mqtt_beside => MqttOn::Beside,
            Port::Main | Port::Tls => MqttOn::No,
        }
    }

    /// The codec of SocketCluster clients of a port.
    pub(crate) fn codec_on(&self, port: Port) -> Codec {
        let [main, tls] = self.codecs;
        match port {
            // No SocketCluster client comes to the ports for MQTT.
            Port::Main | Port::Mqtt => main,
            Port::Tls | Port::MqttTls => tls,
        }
    }

    /// Whether clients of any port have the codec `min-bin`.
    pub(crate) fn have_min_bin(&self) -> bool {
        self.codecs.contains(&Codec::MinBin)
    }

    /// Whether clients of any port speak MQTT.
    pub(crate) fn have_mqtt(&self) -> bool {
        self.mqtt_beside || self.mqtt.is_some() || self.mqtt_tls.is_some()
    }
}

impl HandedOver {
    /// The message that is sent with the socket.
    pub(crate) const fn about(self) -> About {
        let (byte, ticket) = match self {
            HandedOver::Connection(port) => (port as u8, 0),
            HandedOver::Listener(port) => (port as u8 | LISTENER_BIT, 0),
            HandedOver::Moved(Ticket(ticket)) => (MOVED, ticket),
        };
        let [a, b, c, d, e, f, g, h] = ticket.to_ne_bytes();
        [byte, a, b, c, d, e, f, g, h]
    }

    /// Reads such a message.
    pub(crate) const fn of(about: About) -> HandedOver {
        let [byte, a, b, c, d, e, f, g, h] = about;
        let port = Port::of_byte(byte & !LISTENER_BIT);
        match byte {
            MOVED => HandedOver::Moved(Ticket(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))),
            LISTENER_BIT.. => HandedOver::Listener(port),
            _ => HandedOver::Connection(port),
        }
    }
}

/// Set in the byte of a listener.
const LISTENER_BIT: u8 = 1 << 7;
/// The byte of a connection that moves.
const MOVED: u8 = 1 << 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_told_apart_by_what_is_sent_with_it() {
        let ports = [Port::Main, Port::Tls, Port::Mqtt, Port::MqttTls];
        let of_ports = ports.map(|port| [HandedOver::Connection(port), HandedOver::Listener(port)]);
        let moved = [0, 1, NUMBER].map(|number| HandedOver::Moved(Ticket::new(127, number)));
        for what in of_ports.into_iter().flatten().chain(moved) {
            assert_eq!(HandedOver::of(what.about()), what);
        }
    }
}
