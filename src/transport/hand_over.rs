//! Passes an accepted socket from one core to another (unix(7), `SCM_RIGHTS`).
//!
//! Each core owns the receiving end of one socket pair, and all cores have all sending ends. The pairs are
//! made before the cores split their descriptor tables, so every table contains them. `SOCK_SEQPACKET` keeps
//! one message for each socket. Unlike a pair of datagram sockets it is bounded by bytes (some hundred
//! messages) and not by ten messages.
//!
//! Listeners are sent in the same way when the cores begin: a descriptor that is opened for a core after the
//! tables were split must be sent there.
//!
//! Not here: the choice of the core (`cores/arrivals/balance.rs`).
#![allow(unsafe_code)] // one line: a received descriptor becomes an owned one

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// The message that goes with a socket: a byte that says what it is, and a number that some kinds need.
pub(crate) type About = [u8; ABOUT_BYTES];

const ABOUT_BYTES: usize = 9;

/// One core's ends of the socket pairs.
#[derive(Debug)]
pub(crate) struct HandOver {
    inbox: OwnedFd,
    outlets: Arc<[OwnedFd]>,
}

impl HandOver {
    /// Makes one for each core.
    pub(crate) fn new(cores: usize) -> io::Result<Vec<HandOver>> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let pairs = (0..cores)
            .map(|_| socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags))
            .collect::<Result<Vec<_>, _>>()?;
        let (inboxes, outlets): (Vec<OwnedFd>, Vec<OwnedFd>) = pairs.into_iter().unzip();
        let outlets: Arc<[OwnedFd]> = outlets.into();
        Ok(inboxes
            .into_iter()
            .map(|inbox| HandOver {
                inbox,
                outlets: Arc::clone(&outlets),
            })
            .collect())
    }

    /// Sends a socket to `core`, with some information. `WouldBlock` if too many already wait for that core. The
    /// caller takes its copy out of its poll and drops it afterwards.
    pub(crate) fn send(&self, core: usize, socket: &impl AsRawFd, about: About) -> io::Result<()> {
        send_descriptor(&self.outlets[core], socket, about)
    }

    /// The sending ends to all cores, for threads that are not cores.
    pub(crate) fn outlets(&self) -> Outlets {
        Outlets(Arc::clone(&self.outlets))
    }

    /// The descriptors that this core needs.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        std::iter::once(&self.inbox)
            .chain(self.outlets.iter())
            .map(AsRawFd::as_raw_fd)
    }

    /// The next socket from another core; `WouldBlock` if there is none.
    pub(crate) fn receive(&self) -> io::Result<Received> {
        receive_descriptor(&self.inbox)
    }
}

/// A message of [`send_descriptor`].
#[derive(Debug)]
pub(crate) struct Received<const BYTES: usize = ABOUT_BYTES> {
    /// `None` if the receiver's descriptor table was full: then the system has closed this copy of the
    /// socket.
    pub(crate) socket: Option<OwnedFd>,
    /// The sender's information, which arrives in either case.
    pub(crate) about: [u8; BYTES],
}

/// The sending ends to all cores.
#[derive(Debug)]
pub(crate) struct Outlets(Arc<[OwnedFd]>);

impl Outlets {
    /// As [`HandOver::send`].
    pub(crate) fn send(&self, core: usize, socket: &impl AsRawFd, about: About) -> io::Result<()> {
        send_descriptor(&self.0[core], socket, about)
    }
}

/// Sends a few bytes, and with them a descriptor.
pub(super) fn send_descriptor<const BYTES: usize>(
    to: &impl AsRawFd,
    socket: &impl AsRawFd,
    about: [u8; BYTES],
) -> io::Result<()> {
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&about)], &rights, flags, None)?;
    Ok(())
}

/// Receives a message of [`send_descriptor`]; `UnexpectedEof` at the end.
pub(super) fn receive_descriptor<const BYTES: usize>(from: &impl AsRawFd) -> io::Result<Received<BYTES>> {
    let mut about = [0; BYTES];
    let mut space = cmsg_space!(RawFd);
    let mut room = [IoSliceMut::new(&mut about)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_raw_fd(), &mut room, Some(&mut space), flags)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut socket = None;
    // If no descriptor is free, Linux delivers only the bytes and sets MSG_CTRUNC, which nix reports as an
    // error (ENOBUFS). The message cannot be received a second time.
    for control in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for descriptor in descriptors {
                // SAFETY: the system has just made this descriptor for this process, and nothing else has its
                // number yet.
                let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
                // Each message has one descriptor; an unexpected second one is closed here.
                socket.get_or_insert(owned);
            }
        }
    }
    Ok(Received { socket, about })
}

impl AsFd for HandOver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_handed_over_socket_loses_no_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"sent before the hand-over").unwrap();
        let ends = HandOver::new(2).unwrap();
        let accepted = listener.accept().unwrap().0;
        ends[0].send(1, &accepted, [7; 9]).unwrap();
        drop(accepted);
        let received = ends[1].receive().unwrap();
        assert_eq!(received.about, [7; 9]);
        let mut received = std::net::TcpStream::from(received.socket.unwrap());
        client.write_all(b", and after it").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        received.set_nonblocking(false).unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "sent before the hand-over, and after it");
        assert_eq!(ends[1].receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
