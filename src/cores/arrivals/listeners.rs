//! The listeners of one core, and the tokens of its poll that do not belong to a connection.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::transport::port::Port;

/// The listeners of one core.
#[derive(Debug, Default)]
pub(in crate::cores) struct Listeners {
    open: Vec<Listener>,
    /// The index of the listener to try next, so that a storm at one port does not keep clients of others waiting.
    next: usize,
}

#[derive(Debug)]
pub(super) struct Listener {
    socket: Source,
    port: Port,
    /// Whether it may have sockets to accept.
    is_ready: bool,
}

/// Where the sockets of a listener come from.
#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    #[cfg(test)]
    Simulated(crate::cores::simulation::SimulatedListener),
}

impl Listeners {
    /// Adds a listener, and registers it with the poll.
    pub(super) fn add(&mut self, mut socket: TcpListener, port: Port, registry: &Registry) -> io::Result<()> {
        registry.register(&mut socket, token_of(port), Interest::READABLE)?;
        self.open.push(Listener {
            socket: Source::Tcp(socket),
            port,
            is_ready: false,
        });
        Ok(())
    }

    /// Notes that the poll has reported sockets at a listener.
    pub(super) fn note_ready(&mut self, token: Token) {
        for listener in &mut self.open {
            listener.is_ready |= token_of(listener.port) == token;
        }
    }

    /// Marks all listeners ready, whether the poll has reported sockets or not.
    pub(super) fn mark_all_ready(&mut self) {
        for listener in &mut self.open {
            listener.is_ready = true;
        }
    }

    /// The one listener of a simulation.
    #[cfg(test)]
    pub(in crate::cores) fn simulated(
        mut simulated: crate::cores::simulation::SimulatedListener,
        registry: &Registry,
    ) -> io::Result<Listeners> {
        registry.register(&mut simulated, LISTENER, Interest::READABLE)?;
        let open = vec![Listener {
            socket: Source::Simulated(simulated),
            port: Port::Main,
            is_ready: false,
        }];
        Ok(Listeners { open, next: 0 })
    }

    /// Stops listening.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }

    pub(super) fn has_ready(&self) -> bool {
        self.open.iter().any(|listener| listener.is_ready)
    }

    pub(super) fn next_ready(&mut self) -> Option<&mut Listener> {
        let index = self.next_index()?;
        self.next = index + 1;
        Some(&mut self.open[index])
    }

    /// The port of the listener that [`Listeners::next_ready`] returns.
    pub(super) fn next_port(&self) -> Option<Port> {
        self.next_index().map(|index| self.open[index].port)
    }

    fn next_index(&self) -> Option<usize> {
        let count = self.open.len();
        (0..count)
            .map(|step| (self.next + step) % count)
            .find(|&index| self.open[index].is_ready)
    }
}

impl Listener {
    /// Accepts the next socket. Returns it with the port of this listener.
    pub(super) fn accept(&mut self) -> (Port, io::Result<(TcpStream, SocketAddr)>) {
        let accepted = self.socket.accept();
        if let Err(error) = &accepted {
            self.is_ready = error.kind() != io::ErrorKind::WouldBlock;
        }
        (self.port, accepted)
    }
}

impl Source {
    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Source::Tcp(listener) => listener.accept(),
            #[cfg(test)]
            Source::Simulated(simulated) => simulated.accept(),
        }
    }
}

/// The token of a port's listener in the poll.
const fn token_of(port: Port) -> Token {
    match port {
        Port::Main => LISTENER,
        Port::Tls => TLS_LISTENER,
        Port::Mqtt => MQTT_LISTENER,
        Port::MqttTls => MQTT_TLS_LISTENER,
    }
}

/// The tokens of the listeners.
pub(in crate::cores) const LISTENER: Token = Token(usize::MAX);
pub(in crate::cores) const TLS_LISTENER: Token = Token(usize::MAX - 3);
pub(in crate::cores) const MQTT_LISTENER: Token = Token(usize::MAX - 4);
pub(in crate::cores) const MQTT_TLS_LISTENER: Token = Token(usize::MAX - 5);
/// The waker's token.
pub(in crate::cores) const WAKER: Token = Token(usize::MAX - 1);
/// The token of the receiving end of hand-overs.
pub(in crate::cores) const HAND_OVERS: Token = Token(usize::MAX - 2);
