//! A message before the server looks at it, and the actions that an application may take on it.

use super::session_id::SessionId;
use crate::decision::{Decision, Decisions};

/// The further handling of a message that the application has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// The server handles it.
    Pass,
    /// The server ignores it, except that its sender does not count as silent.
    Drop,
}

/// The client that has sent a message at which the server has not looked yet.
#[derive(Debug)]
pub struct RawPeer<'a> {
    id: SessionId,
    decisions: &'a mut Decisions,
}

impl<'a> RawPeer<'a> {
    pub(crate) fn new(id: SessionId, decisions: &'a mut Decisions) -> RawPeer<'a> {
        RawPeer { id, decisions }
    }

    /// Its id. A client that has not completed its handshake does not know it yet.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Sends a text message as it is. SocketCluster's clients expect nothing but pings before the handshake is
    /// answered.
    pub fn send_text(&mut self, text: &str) {
        let message = self.decisions.write(|out| out.extend_from_slice(text.as_bytes()));
        self.decisions.push(Decision::Send { message });
    }

    /// Sends a binary message as it is.
    pub fn send_binary(&mut self, bytes: &[u8]) {
        let message = self.decisions.write(|out| out.extend_from_slice(bytes));
        self.decisions.push(Decision::SendBinary { message });
    }
}
