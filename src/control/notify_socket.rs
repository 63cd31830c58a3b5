//! The socket that a service manager names in `NOTIFY_SOCKET` (sd_notify(3)).
//!
//! | value | socket |
//! |---|---|
//! | `/run/notify` | in the file system |
//! | `@name` | in Linux's abstract namespace: a NUL stands for the `@` |
//! | `vsock:2:1234` and others | not supported: a manager outside of this virtual machine |
//!
//! A failure to reach the manager is a warning and never ends the process: the variable may come from a
//! parent process, and its socket may be gone.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Sends a datagram to the service manager, if there is one.
///
/// # Errors
/// Nothing listens on the socket, or its address is not supported.
pub(super) fn send(message: &str) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block the messages that follow for ever.
    socket.set_write_timeout(Some(SEND_TIME_MAX))?;
    socket.send_to_addr(message.as_bytes(), &address(&name)?)?;
    Ok(())
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest),
        [b'/', _, ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "NOTIFY_SOCKET={} is neither a path nor an abstract name (@name)",
                name.display()
            ),
        )),
    }
}

/// How long a send may take.
const SEND_TIME_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_an_abstract_name() {
        let path = address("/run/notify".as_ref()).unwrap();
        assert_eq!(path.as_pathname(), Some("/run/notify".as_ref()));
        let name = address("@a/b".as_ref()).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"a/b"[..]));
        for other in [
            "vsock:2:1234",
            "vsock-stream:2:1",
            "notify",
            "@",
            "/",
            "unix:/run/notify",
        ] {
            assert_eq!(
                address(other.as_ref()).unwrap_err().kind(),
                io::ErrorKind::Unsupported,
                "{other}"
            );
        }
        assert!(address(("/".to_owned() + &"a".repeat(200)).as_ref()).is_err());
    }
}
