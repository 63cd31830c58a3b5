//! Everything in which protocol versions 1 and 2 differ: the texts of ping and pong.
//!
//! The first packets of a client do not show its version. But a ping of the wrong version harms no client, and no
//! client answers it. So if the version is to be detected, the server sends pings of both versions in turn, version 2
//! first, until the client answers one (wire reference, section 4).

use crate::config::Protocol;

/// What the server knows about the version of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
    /// Unknown, and no ping has been sent. The first ping is of version 2.
    Unasked,
    /// Unknown; the client has not answered version 2's ping yet. The next ping is of version 1.
    AskedV2,
    /// Unknown; both pings have been sent, the last one of version 1.
    AskedV1Last,
    /// Unknown; both pings have been sent, the last one of version 2.
    AskedV2Last,
}

impl Version {
    pub(super) fn new(protocol: Protocol) -> Version {
        match protocol {
            Protocol::Auto => Version::Unasked,
            Protocol::V1 => Version::V1,
            Protocol::V2 => Version::V2,
        }
    }

    /// The text of the next ping.
    pub(super) fn ping(&mut self) -> &'static str {
        match self {
            Version::V1 => "#1",
            Version::V2 => "",
            Version::Unasked => {
                *self = Version::AskedV2;
                ""
            }
            Version::AskedV2 | Version::AskedV2Last => {
                *self = Version::AskedV1Last;
                "#1"
            }
            Version::AskedV1Last => {
                *self = Version::AskedV2Last;
                ""
            }
        }
    }

    /// True if a text message is a pong. If the version was unknown, the pong decides it.
    #[inline]
    pub(super) fn receive_pong(&mut self, text: &str) -> bool {
        match self {
            Version::V1 => text == "#2",
            Version::V2 => text.is_empty(),
            Version::Unasked | Version::AskedV2 => self.settle(text.is_empty(), Version::V2),
            Version::AskedV1Last | Version::AskedV2Last => {
                self.settle(text.is_empty(), Version::V2) || self.settle(text == "#2", Version::V1)
            }
        }
    }

    fn settle(&mut self, is_answer: bool, version: Version) -> bool {
        if is_answer {
            *self = version;
        }
        is_answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_version_has_its_own_ping_and_pong() {
        let mut one = Version::new(Protocol::V1);
        assert_eq!((one.ping(), one.ping()), ("#1", "#1"));
        assert!(one.receive_pong("#2") && !one.receive_pong("") && !one.receive_pong("#1"));
        let mut two = Version::new(Protocol::V2);
        assert_eq!((two.ping(), two.ping()), ("", ""));
        assert!(two.receive_pong("") && !two.receive_pong("#2"));
    }

    #[test]
    fn an_unknown_version_is_pinged_in_turn_until_it_answers() {
        for (pong, ping) in [("", ""), ("#2", "#1")] {
            let mut version = Version::new(Protocol::Auto);
            assert_eq!((version.ping(), version.ping(), version.ping()), ("", "#1", ""));
            assert!(!version.receive_pong("#1") && !version.receive_pong("x"));
            assert!(version.receive_pong(pong));
            assert_eq!((version.ping(), version.ping()), (ping, ping));
            assert!(version.receive_pong(pong));
        }
    }

    #[test]
    fn version_1_is_not_known_by_an_answer_to_a_ping_that_was_not_sent() {
        let mut version = Version::new(Protocol::Auto);
        assert!(!version.receive_pong("#2"));
        assert_eq!(version.ping(), "");
        assert!(!version.receive_pong("#2"));
        assert_eq!((version.ping(), version.ping()), ("#1", ""));
        assert!(version.receive_pong("#2"), "late, but an answer");
        assert_eq!(version.ping(), "#1");
    }
}
