//! Socket activation: listening sockets that the service manager has opened for this process
//! (sd_listen_fds(3)).
//!
//! Their names (`FileDescriptorName=` of a socket unit) say what they are for: `tls` for the port of
//! `tls_listen`, `mqtt` and `mqtt-tls` for those of `mqtt_listen` and `mqtt_tls_listen`, `admin` for the
//! control plane, and `listen` for clients. Sockets without a configured name, which systemd calls `unknown`
//! or `NAME.socket`, are for clients as well.
#![allow(unsafe_code)] // two lines: descriptors that the service manager names are checked, then become owned ones

use std::env;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::SockRef;

/// The received sockets, by port.
#[derive(Debug, Default)]
pub(crate) struct ActivatedSockets {
    /// For clients.
    pub(crate) main: Vec<TcpListener>,
    /// For clients with TLS.
    pub(crate) tls: Vec<TcpListener>,
    /// For clients that speak MQTT.
    pub(crate) mqtt: Vec<TcpListener>,
    /// For clients that speak MQTT over TLS.
    pub(crate) mqtt_tls: Vec<TcpListener>,
    /// For operators.
    pub(crate) admin: Option<TcpListener>,
    /// A message for the log, if the sockets are for another process.
    pub(crate) ignored: Option<String>,
}

/// Why the sockets cannot be used.
#[derive(Debug)]
pub enum ActivationError {
    /// The variables that announce them cannot be read.
    Announced(io::Error),
    /// A socket has an unknown name.
    Name(String),
    /// A socket is not a listening TCP socket.
    NotListening(String),
    /// There are several sockets for operators.
    SeveralForOperators,
}

impl ActivatedSockets {
    /// The sockets for this process, usually none. If the variables are inherited and name another process,
    /// its sockets are left alone.
    ///
    /// # Errors
    /// The sockets cannot be used.
    pub(crate) fn receive() -> Result<ActivatedSockets, ActivationError> {
        let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let (process, count) = (variable("LISTEN_PID"), variable("LISTEN_FDS"));
        let mut activated = ActivatedSockets::default();
        match announced_for(process.as_deref(), count.as_deref(), std::process::id()) {
            AnnouncedFor::This => {}
            AnnouncedFor::NoProcess => return Ok(activated),
            AnnouncedFor::Another => {
                activated.ignored = Some(format!(
                    "LISTEN_PID is {}, not this process ({}): the sockets of LISTEN_FDS belong to another \
                     process and are not used",
                    process.as_deref().unwrap_or("not set"),
                    std::process::id()
                ));
                return Ok(activated);
            }
        }
        for (number, name) in sd_notify::listen_fds_with_names().map_err(ActivationError::Announced)? {
            // SAFETY: `listen_fds_with_names` has found it open, and nothing closes it meanwhile.
            let socket = unsafe { BorrowedFd::borrow_raw(number) };
            // A wrapper that closes these sockets may still pass the variables on. The number then belongs to
            // another descriptor, such as that of the log, which must not be closed.
            if !is_listening(&socket) {
                return Err(ActivationError::NotListening(name));
            }
            // SAFETY: it is a listening socket, and the variables, which name this process, say that it was
            // opened for it. Nothing else takes it: this runs once, before anything listens.
            let owned = unsafe { OwnedFd::from_raw_fd(number) };
            activated.assign(TcpListener::from(owned), name)?;
        }
        Ok(activated)
    }

    fn assign(&mut self, socket: TcpListener, name: String) -> Result<(), ActivationError> {
        if !is_listening(&socket) {
            return Err(ActivationError::NotListening(name));
        }
        match name.as_str() {
            "listen" | "unknown" | "" => self.main.push(socket),
            unit if unit.ends_with(".socket") => self.main.push(socket),
            "tls" => self.tls.push(socket),
            "mqtt" => self.mqtt.push(socket),
            "mqtt-tls" => self.mqtt_tls.push(socket),
            "admin" => {
                if self.admin.replace(socket).is_some() {
                    return Err(ActivationError::SeveralForOperators);
                }
            }
            _ => return Err(ActivationError::Name(name)),
        }
        Ok(())
    }
}

/// True if it is a listening TCP socket.
fn is_listening(socket: &impl AsFd) -> bool {
    let socket = SockRef::from(socket);
    let has_address = socket
        .local_addr()
        .is_ok_and(|address| address.as_socket().is_some());
    has_address && socket.is_listener().unwrap_or(false)
}

/// The process that sockets are announced for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnnouncedFor {
    /// This process.
    This,
    /// There are no sockets.
    NoProcess,
    /// Another process.
    Another,
}

/// The variables may outlive the process that they are for: wrappers and shells pass them on.
fn announced_for(process: Option<&str>, count: Option<&str>, this_process: u32) -> AnnouncedFor {
    match (process, count) {
        (None, None) | (_, Some("0")) => AnnouncedFor::NoProcess,
        (Some(process), _) if process.parse() != Ok(this_process) => AnnouncedFor::Another,
        (Some(_), Some(_)) => AnnouncedFor::This,
        (Some(_), None) => AnnouncedFor::NoProcess,
        (None, Some(_)) => AnnouncedFor::Another,
    }
}

impl fmt::Display for ActivationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActivationError::Announced(cause) => write!(
                formatter,
                "LISTEN_FDS and LISTEN_FDNAMES of the service manager cannot be used: {cause}; they must contain the number of \
                 sockets and a name for each"
            ),
            ActivationError::Name(name) => write!(
                formatter,
                "the service manager passed a socket named {name:?}: FileDescriptorName= must be listen, tls, \
                 mqtt, mqtt-tls or admin"
            ),
            ActivationError::NotListening(name) => write!(
                formatter,
                "the socket {name:?} that the service manager passed is not a listening TCP socket: use ListenStream= \
                 with an address and a port, and Accept=no"
            ),
            ActivationError::SeveralForOperators => formatter.write_str(
                "the service manager passed several sockets named admin: there is only one control plane, so \
                 use one ListenStream=",
            ),
        }
    }
}

impl std::error::Error for ActivationError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn sockets_are_assigned_by_their_names() {
        let mut activated = ActivatedSockets::default();
        for name in [
            "listen",
            "unknown",
            "",
            "ringcast.socket",
            "tls",
            "tls",
            "mqtt",
            "mqtt-tls",
            "admin",
        ] {
            activated.assign(listening(), name.to_owned()).unwrap();
        }
        assert_eq!((activated.main.len(), activated.tls.len()), (4, 2));
        assert_eq!((activated.mqtt.len(), activated.mqtt_tls.len()), (1, 1));
        assert!(activated.admin.is_some());
        let again = activated.assign(listening(), "admin".to_owned());
        assert!(matches!(again, Err(ActivationError::SeveralForOperators)));
        let unknown = activated.assign(listening(), "wss".to_owned());
        assert!(matches!(unknown, Err(ActivationError::Name(name)) if name == "wss"));
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        for (process, count, expected) in [
            (None, None, AnnouncedFor::NoProcess),
            (Some("7"), Some("2"), AnnouncedFor::This),
            (Some("7"), Some("two"), AnnouncedFor::This),
            (Some("7"), Some("0"), AnnouncedFor::NoProcess),
            (Some("7"), None, AnnouncedFor::NoProcess),
            (Some("1"), Some("2"), AnnouncedFor::Another),
            (Some("1"), None, AnnouncedFor::Another),
            (Some("-7"), Some("1"), AnnouncedFor::Another),
            (Some(""), Some("1"), AnnouncedFor::Another),
            (Some("x"), Some("x"), AnnouncedFor::Another),
            (None, Some("1"), AnnouncedFor::Another),
        ] {
            assert_eq!(
                announced_for(process, count, 7),
                expected,
                "{process:?} {count:?}"
            );
        }
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let connected = std::net::TcpStream::connect(listening().local_addr().unwrap());
        let connected = TcpListener::from(OwnedFd::from(connected.unwrap()));
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for socket in [connected, TcpListener::from(OwnedFd::from(unix))] {
            let refused = ActivatedSockets::default().assign(socket, "listen".to_owned());
            assert!(matches!(refused, Err(ActivationError::NotListening(_))));
        }
    }
}
