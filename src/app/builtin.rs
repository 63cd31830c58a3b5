//! The application of the `ringcast` binary.
//!
//! It knows one event, `ping`: transmitted, it is answered with a `pong` event; called, with a reply. Both hold the
//! number of pings that this core has received so far, this one included. Nothing is allocated for either.

use super::{AllowedPublish, App, Call, CallAnswer, Name, Peer, Refusal};

/// The application of the `ringcast` binary, on one core.
#[derive(Debug, Default)]
pub struct Builtin {
    pings: u64,
}

/// `{"count":N}`
struct Pong {
    count: u64,
}

impl Pong {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"count\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.count).as_bytes());
        out.push(b'}');
    }
}

impl Builtin {
    /// An application that has received no pings.
    pub fn new() -> Builtin {
        Builtin::default()
    }

    /// Counts `call` if it is a ping.
    fn count(&mut self, call: &Call<'_>) -> Option<Pong> {
        if call.event != *"ping" {
            return None;
        }
        self.pings += 1;
        Some(Pong { count: self.pings })
    }
}

impl App for Builtin {
    /// Looks at no payload.
    #[inline]
    fn publish_bytes(
        &mut self,
        _topic: Name<'_>,
        _payload: &[u8],
        _peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        Ok(AllowedPublish::as_sent())
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        self.count(call).map_or_else(CallAnswer::silent, |pong| {
            peer.reply_written(|out| pong.write(out))
        })
    }

    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        if let Some(pong) = self.count(call) {
            peer.handled();
            peer.transmit_written("pong", |out| pong.write(out));
        }
    }
}
