//! The requests of a client about the members of a channel, and the reasons why a request fails.

/// A request to the core that owns a channel. It is written into the bytes of the decisions, so that a
/// decision needs only a span for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceRequest<'a> {
    /// A page of the members.
    Members {
        /// The place at which the page begins.
        after: u32,
        /// Most members of the page.
        limit: u32,
    },
    /// The member that the client belongs to gets this info, which is JSON; `None` removes its info.
    SetInfo(Option<&'a [u8]>),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceFailure {
    /// The client is not a member, so it can have no info.
    NoMember,
    /// `presence_members_max` leaves no room for the info.
    Full,
    /// The client, or all clients of its core, have too many requests without an answer.
    Busy,
    /// The core that owns the channel has not answered in time.
    TimedOut,
}

impl<'a> PresenceRequest<'a> {
    /// Appends the request in the form that [`PresenceRequest::read`] reads.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            PresenceRequest::Members { after, limit } => {
                out.push(b'm');
                out.extend_from_slice(&after.to_ne_bytes());
                out.extend_from_slice(&limit.to_ne_bytes());
            }
            PresenceRequest::SetInfo(None) => out.push(b'r'),
            PresenceRequest::SetInfo(Some(info)) => {
                out.push(b'i');
                out.extend_from_slice(info);
            }
        }
    }

    /// Reads a request that [`PresenceRequest::write`] has written.
    ///
    /// # Panics
    /// If [`PresenceRequest::write`] has not written these bytes.
    pub fn read(bytes: &'a [u8]) -> PresenceRequest<'a> {
        let written = "written by `PresenceRequest::write`";
        let (&kind, rest) = bytes.split_first().expect(written);
        match kind {
            b'm' => {
                let (&after, limit) = rest.split_first_chunk().expect(written);
                PresenceRequest::Members {
                    after: u32::from_ne_bytes(after),
                    limit: u32::from_ne_bytes(limit.try_into().expect(written)),
                }
            }
            b'r' => PresenceRequest::SetInfo(None),
            b'i' => PresenceRequest::SetInfo(Some(rest)),
            other => unreachable!("{other}, which `PresenceRequest::write` has never written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for request in [
            PresenceRequest::Members {
                after: 70_000,
                limit: 1,
            },
            PresenceRequest::SetInfo(None),
            PresenceRequest::SetInfo(Some(b"{\"m\":1}")),
        ] {
            let mut bytes = Vec::new();
            request.write(&mut bytes);
            assert_eq!(PresenceRequest::read(&bytes), request);
        }
    }
}
