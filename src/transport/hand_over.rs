//! Passing an accepted socket from one core to another (unix(7), `SCM_RIGHTS`).
//!
//! Each core owns the receiving end of one socket pair; all cores hold all sending ends. The pairs are made before
//! the cores split their descriptor tables, so every table has them. `SOCK_SEQPACKET` keeps one message one socket,
//! and unlike a datagram pair is bounded by bytes (some hundred messages) rather than by ten messages.
//!
//! Not here: which core gets the socket (`cores/balance.rs`).
#![allow(unsafe_code)] // one line: a received descriptor becomes an owned one

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use mio::net::TcpStream;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// One core's place in the exchange of sockets.
#[derive(Debug)]
pub(crate) struct HandOver {
    inbox: OwnedFd,
    outlets: Arc<[OwnedFd]>,
}

impl HandOver {
    /// One for each core.
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

    /// Sends `stream`, which nothing has been read from and no poll knows, to `core`, with a byte about it. `WouldBlock`
    /// if that core has too many waiting already. The caller drops its copy afterwards.
    pub(crate) fn send(&self, core: usize, stream: &TcpStream, about: u8) -> io::Result<()> {
        let descriptors = [stream.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(
            self.outlets[core].as_raw_fd(),
            &[IoSlice::new(&[about])],
            &rights,
            flags,
            None,
        )?;
        Ok(())
    }

    /// The next socket that another core has sent, with its byte; `WouldBlock` when there is none, another error if it
    /// came without a descriptor (this process has no room for one more).
    pub(crate) fn receive(&self) -> io::Result<(TcpStream, u8)> {
        let mut byte = [0];
        let mut space = cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut room = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(self.inbox.as_raw_fd(), &mut room, Some(&mut space), flags)?;
        let mut received = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control
                && let Some(&descriptor) = descriptors.first()
            {
                // SAFETY: the system has just made this descriptor for us; nobody else knows its number.
                let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
                received = Some(TcpStream::from_std(owned.into()));
            }
        }
        match received {
            Some(stream) => Ok((stream, byte[0])),
            None => Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32)),
        }
    }
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
        ends[0].send(1, &TcpStream::from_std(accepted), 7).unwrap();
        let (received, about) = ends[1].receive().unwrap();
        assert_eq!(about, 7);
        let mut received = std::net::TcpStream::from(received);
        client.write_all(b", and after it").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        received.set_nonblocking(false).unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "sent before the hand-over, and after it");
        assert_eq!(ends[1].receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
