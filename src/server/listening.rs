//! The source of the listening sockets: the service manager, the process that serves already, or this process.
//!
//! | situation | the cores listen on |
//! |---|---|
//! | the service manager passes sockets for a port | these sockets, dealt out to the cores; their address replaces that of the setting |
//! | another process listens on the same address, or on one that overlaps it | nothing: the start fails and names the process (`port_in_use.rs`) |
//! | the same, the process has the same user, and `take_over` is on | its sockets; the other process keeps them, too, until it ends |
//! | none of these | one listener for each core, opened here |
//!
//! Opened or received sockets are at least as many as there are cores. The service manager may pass fewer: then only
//! the cores that have a socket accept connections, and hand some over to the others (`cores/arrivals/balance.rs`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::port_in_use::Claim;
use super::{PortSetting, StartError};
use crate::config::Config;
use crate::control::SignalHandling;
use crate::cores::operators::mailbox::CoreHandle;
use crate::transport::hand_over::Outlets;
use crate::transport::listener::{self, ListenerOptions, Reservation};
use crate::transport::port::{HandedOver, Port, Ports};
use crate::transport::socket_activation::ActivatedSockets;
use crate::transport::take_over;

/// The ports of a start that does not listen yet.
#[derive(Debug)]
pub(super) struct Reserved {
    activated: ActivatedSockets,
    /// For the ports for which the service manager passes no socket.
    reservations: Vec<Reservation>,
    ports: Ports,
    /// Addresses where another process serves, from which this start takes over.
    served: Vec<SocketAddr>,
    signals: SignalHandling,
    /// Keeps other starts from these ports until this one listens.
    _claim: Claim,
}

/// The sockets that the service manager passes to this process. A program that handles its signals takes its own.
pub(super) fn activated(signals: SignalHandling) -> Result<ActivatedSockets, StartError> {
    match signals {
        SignalHandling::ByServer => {
            let activated = ActivatedSockets::receive().map_err(StartError::SocketActivation)?;
            if let Some(ignored) = &activated.ignored {
                warn!("{ignored}");
            }
            Ok(activated)
        }
        SignalHandling::ByProgram => Ok(ActivatedSockets::default()),
    }
}

/// The configuration with the addresses of the passed sockets.
pub(super) fn with_addresses(config: &Config, activated: &ActivatedSockets) -> Config {
    let mut config = config.clone();
    let address = |sockets: &[TcpListener]| sockets.first().and_then(|socket| socket.local_addr().ok());
    if let Some(main) = address(&activated.main) {
        config.listen.address = main;
    }
    if let Some(tls) = address(&activated.tls) {
        config.tls.listen = Some(tls);
    }
    if let Some(mqtt) = address(&activated.mqtt) {
        config.mqtt.listen = Some(mqtt);
    }
    if let Some(mqtt_tls) = address(&activated.mqtt_tls) {
        config.mqtt.tls_listen = Some(mqtt_tls);
    }
    if let Some(admin) = activated
        .admin
        .as_ref()
        .and_then(|socket| socket.local_addr().ok())
    {
        config.admin.address = Some(admin);
    }
    config
}

impl Reserved {
    /// Reserves the ports for which no socket was passed.
    pub(super) fn new(
        config: &Config,
        activated: ActivatedSockets,
        signals: SignalHandling,
    ) -> Result<Reserved, StartError> {
        let wanted: Vec<(PortSetting, SocketAddr)> = [
            (
                PortSetting::Listen,
                Some(config.listen.address),
                activated.main.is_empty(),
            ),
            (
                PortSetting::TlsListen,
                config.tls.listen,
                activated.tls.is_empty(),
            ),
            (
                PortSetting::MqttListen,
                config.mqtt.listen,
                activated.mqtt.is_empty(),
            ),
            (
                PortSetting::MqttTlsListen,
                config.mqtt.tls_listen,
                activated.mqtt_tls.is_empty(),
            ),
            (
                PortSetting::Admin,
                config.admin.address,
                activated.admin.is_none(),
            ),
        ]
        .into_iter()
        .filter_map(|(setting, address, is_wanted)| Some((setting, address.filter(|_| is_wanted)?)))
        .collect();
        let claim = Claim::take(wanted.iter().map(|(_, address)| *address)).map_err(StartError::starting)?;
        let served = served(&wanted, config.restart.take_over)?;
        let mut reservations = Vec::new();
        let mut reserve = |setting, address| match wanted.contains(&(setting, address)) {
            false => Ok(address),
            true => Reservation::bind(address)
                .map(|reservation| {
                    let address = reservation.address();
                    reservations.push(reservation);
                    address
                })
                .map_err(|cause| StartError::listening(setting, address, cause)),
        };
        let main = reserve(PortSetting::Listen, config.listen.address)?;
        let mut reserve_one = |setting, address: Option<SocketAddr>| {
            let reserved = address.map(|address| reserve(setting, address));
            reserved.transpose()
        };
        let ports = Ports {
            main,
            main_tls: config.tls.on_listen,
            tls: reserve_one(PortSetting::TlsListen, config.tls.listen)?,
            mqtt: reserve_one(PortSetting::MqttListen, config.mqtt.listen)?,
            mqtt_tls: reserve_one(PortSetting::MqttTlsListen, config.mqtt.tls_listen)?,
            codecs: config.socketcluster.codecs(),
            mqtt_beside: config.mqtt.is_beside(),
        };
        Ok(Reserved {
            activated,
            reservations,
            ports,
            served,
            signals,
            _claim: claim,
        })
    }

    /// Whether another process serves the port for clients, and this one takes over from it.
    pub(super) fn takes_over(&self) -> bool {
        self.served.contains(&self.ports.main)
    }

    /// The ports, none of them 0.
    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// How many of so many cores will have a listener.
    pub(super) fn acceptors(&self, cores: usize) -> usize {
        match self.activated.main.len() {
            0 => cores,
            count => {
                let others = [
                    &self.activated.tls,
                    &self.activated.mqtt,
                    &self.activated.mqtt_tls,
                ];
                cores.min(count + others.map(Vec::len).iter().sum::<usize>())
            }
        }
    }

    /// The listener for operators.
    pub(super) fn admin(&mut self, config: &Config) -> Result<Option<TcpListener>, StartError> {
        if let Some(activated) = self.activated.admin.take() {
            return Ok(Some(activated));
        }
        let open = |address| {
            listener::listen_for_operators(address)
                .map_err(|cause| StartError::listening(PortSetting::Admin, address, cause))
        };
        config.admin.address.map(open).transpose()
    }

    /// Listens, and sends each core its listeners. Returns when all cores have them: the system gives a listener its
    /// share of the new connections from its first moment on. The answer holds all listeners, for the process that
    /// comes after this one.
    pub(super) fn listen(
        self,
        cores: &[CoreHandle],
        traits: &ListenerOptions,
        outlets: &Outlets,
    ) -> Result<Vec<TcpListener>, StartError> {
        let received = self.received();
        for address in &self.served {
            let has_it = |socket: &TcpListener| socket.local_addr().is_ok_and(|has| has == *address);
            if !received.iter().any(has_it) {
                warn!(
                    "another process serves {address}, too: until it ends, clients are divided between the two"
                );
            }
        }
        let ActivatedSockets {
            main,
            tls,
            mqtt,
            mqtt_tls,
            ..
        } = self.activated;
        let ports = &self.ports;
        let mut all = Vec::new();
        for (setting, port, address, activated) in [
            (PortSetting::Listen, Port::Main, Some(ports.main), main),
            (PortSetting::TlsListen, Port::Tls, ports.tls, tls),
            (PortSetting::MqttListen, Port::Mqtt, ports.mqtt, mqtt),
            (
                PortSetting::MqttTlsListen,
                Port::MqttTls,
                ports.mqtt_tls,
                mqtt_tls,
            ),
        ] {
            let Some(address) = address else { continue };
            let sockets = sockets(address, activated, &received, cores.len(), traits)
                .map_err(|cause| StartError::listening(setting, address, cause))?;
            all.extend(sockets.into_iter().map(|socket| (socket, port)));
        }
        for (index, (socket, port)) in all.iter().enumerate() {
            outlets
                .send(index % cores.len(), socket, HandedOver::Listener(*port).about())
                .map_err(StartError::System)?;
        }
        for (index, core) in cores.iter().enumerate() {
            let sent = (index..all.len()).step_by(cores.len()).count();
            wait_for_listeners(core, sent).map_err(StartError::System)?;
        }
        // Only now: until this server listens, the reserved ports keep other processes off.
        drop(self.reservations);
        Ok(all.into_iter().map(|(socket, _)| socket).collect())
    }

    /// What the process that serves the port for clients leaves to this one.
    fn received(&self) -> Vec<TcpListener> {
        if self.signals == SignalHandling::ByProgram || !self.takes_over() {
            return Vec::new();
        }
        match take_over::receive_listeners(self.ports.main) {
            Ok((sockets, process)) => {
                info!(
                    process,
                    sockets = sockets.len(),
                    "listening with the process that serves already: end that process now, no client is refused"
                );
                sockets
            }
            Err(error) => {
                warn!(
                    "the process that serves {} does not share its sockets: {error}",
                    self.ports.main
                );
                Vec::new()
            }
        }
    }
}

/// The addresses where another process serves.
///
/// # Errors
/// There is one, and this start does not take over.
fn served(wanted: &[(PortSetting, SocketAddr)], take_over: bool) -> Result<Vec<SocketAddr>, StartError> {
    let mut served = wanted.iter().filter(|(_, address)| listener::is_served(*address));
    if take_over {
        return Ok(served.map(|(_, address)| *address).collect());
    }
    match served.next() {
        Some((setting, address)) => Err(StartError::served(*setting, *address)),
        None => Ok(Vec::new()),
    }
}

/// The listening sockets of one port: those of the service manager, or those of the older process and new ones until
/// each core has one.
fn sockets(
    address: SocketAddr,
    activated: Vec<TcpListener>,
    received: &[TcpListener],
    cores: usize,
    traits: &ListenerOptions,
) -> io::Result<Vec<TcpListener>> {
    let is_activated = !activated.is_empty();
    let mut sockets = activated;
    if !is_activated {
        for socket in received {
            if socket.local_addr()? == address {
                sockets.push(socket.try_clone()?);
            }
        }
    }
    for socket in &sockets {
        listener::prepare(socket, traits)?;
    }
    while !is_activated && sockets.len() < cores {
        sockets.push(listener::listen(address, traits)?);
    }
    Ok(sockets)
}

/// Waits until a core has so many listeners.
fn wait_for_listeners(core: &CoreHandle, count: usize) -> io::Result<()> {
    while core.listeners().map_err(io::Error::other)? < count {
        if core.has_stopped() {
            return Err(io::Error::other("a core has stopped"));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// How often the start looks whether a core has its listeners.
const LOOK_EVERY: Duration = Duration::from_millis(1);
