//! Reason codes of MQTT 5 (section 2.4), and return codes of 3.1 and 3.1.1.
//!
//! One row for each code: its number, its name, and the packets that may carry it.

use super::packet::PacketOrWill;

/// Makes [`ReasonCode`] from its rows.
macro_rules! reason_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $name:literal, [$($place:ident),+];)+) => {
        /// A reason code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[doc = $doc])+ $variant = $code,)+
        }

        impl ReasonCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[ReasonCode] = &[$(ReasonCode::$variant,)+];

            /// The code with this number; `None` if the number is reserved.
            #[inline]
            pub const fn from_u8(code: u8) -> Option<ReasonCode> {
                match code {
                    $($code => Some(ReasonCode::$variant),)+
                    _ => None,
                }
            }

            /// The name in the specification.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ReasonCode::$variant => $name,)+
                }
            }

            /// The packets that may carry the code.
            const fn places(self) -> u32 {
                match self {
                    $(ReasonCode::$variant => $(PacketOrWill::$place.bit())|+,)+
                }
            }
        }
    };
}

reason_codes! {
    /// Success; in a DISCONNECT packet: normal disconnection, without the will; in a SUBACK packet: granted QoS 0.
    Success = 0x00, "Success",
        [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, AuthByServer, DisconnectByClient, DisconnectByServer];
    /// The subscription is granted, QoS 1 at most.
    GrantedQos1 = 0x01, "Granted QoS 1", [SubAck];
    /// The subscription is granted, QoS 2 at most.
    GrantedQos2 = 0x02, "Granted QoS 2", [SubAck];
    /// The client leaves, and wants its will published.
    DisconnectWithWill = 0x04, "Disconnect with Will Message", [DisconnectByClient];
    /// The message is accepted, but there are no subscribers.
    NoMatchingSubscribers = 0x10, "No matching subscribers", [PubAck, PubRec];
    /// The client unsubscribes from a filter to which it had not subscribed.
    NoSubscriptionExisted = 0x11, "No subscription existed", [UnsubAck];
    /// The next step of an authentication follows.
    ContinueAuthentication = 0x18, "Continue authentication", [AuthByClient, AuthByServer];
    /// The client starts another authentication.
    ReAuthenticate = 0x19, "Re-authenticate", [AuthByClient];
    /// The sender gives no reason.
    Unspecified = 0x80, "Unspecified error",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, DisconnectByClient, DisconnectByServer];
    /// A packet could not be read.
    MalformedPacket = 0x81, "Malformed Packet", [ConnAck, DisconnectByClient, DisconnectByServer];
    /// A packet that the protocol does not allow.
    ProtocolError = 0x82, "Protocol Error", [ConnAck, DisconnectByClient, DisconnectByServer];
    /// The packet is legal, and not accepted here.
    ImplementationSpecific = 0x83, "Implementation specific error",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, DisconnectByClient, DisconnectByServer];
    /// The server does not speak this version.
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version", [ConnAck];
    /// The client identifier is legal, and not accepted here.
    ClientIdNotValid = 0x85, "Client Identifier not valid", [ConnAck];
    /// The credentials are wrong.
    BadUserNameOrPassword = 0x86, "Bad User Name or Password", [ConnAck];
    /// The client may not do this.
    NotAuthorized = 0x87, "Not authorized", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, DisconnectByServer];
    /// The server cannot serve.
    ServerUnavailable = 0x88, "Server unavailable", [ConnAck];
    /// The server has too much to do.
    ServerBusy = 0x89, "Server busy", [ConnAck, DisconnectByServer];
    /// The client is shut out.
    Banned = 0x8a, "Banned", [ConnAck];
    /// The server is stopping.
    ServerShuttingDown = 0x8b, "Server shutting down", [DisconnectByServer];
    /// The authentication method is not supported, or is not the method of the connection.
    BadAuthenticationMethod = 0x8c, "Bad authentication method", [ConnAck, DisconnectByServer];
    /// Nothing came for one and a half times the keep alive.
    KeepAliveTimeout = 0x8d, "Keep Alive timeout", [DisconnectByServer];
    /// Another connection uses the client identifier.
    SessionTakenOver = 0x8e, "Session taken over", [DisconnectByServer];
    /// The topic filter is well-formed, and not accepted here.
    TopicFilterInvalid = 0x8f, "Topic Filter invalid", [SubAck, UnsubAck, DisconnectByServer];
    /// The topic name is well-formed, and not accepted here.
    TopicNameInvalid = 0x90, "Topic Name invalid",
        [ConnAck, PubAck, PubRec, DisconnectByClient, DisconnectByServer];
    /// The packet identifier is already in use.
    PacketIdInUse = 0x91, "Packet Identifier in use", [PubAck, PubRec, SubAck, UnsubAck];
    /// The packet identifier is not in use.
    PacketIdNotFound = 0x92, "Packet Identifier not found", [PubRel, PubComp];
    /// More messages in flight than the receiver allows.
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", [DisconnectByClient, DisconnectByServer];
    /// The topic alias is 0 or greater than the receiver allows.
    TopicAliasInvalid = 0x94, "Topic Alias invalid", [DisconnectByClient, DisconnectByServer];
    /// The packet is larger than the receiver allows.
    PacketTooLarge = 0x95, "Packet too large", [ConnAck, DisconnectByClient, DisconnectByServer];
    /// The sender sends too much.
    MessageRateTooHigh = 0x96, "Message rate too high", [DisconnectByClient, DisconnectByServer];
    /// A limit is exceeded.
    QuotaExceeded = 0x97, "Quota exceeded",
        [ConnAck, PubAck, PubRec, SubAck, DisconnectByClient, DisconnectByServer];
    /// An operator ended the connection.
    AdministrativeAction = 0x98, "Administrative action", [DisconnectByClient, DisconnectByServer];
    /// The payload does not agree with its Payload Format Indicator.
    PayloadFormatInvalid = 0x99, "Payload format invalid",
        [ConnAck, PubAck, PubRec, DisconnectByClient, DisconnectByServer];
    /// Messages cannot be retained here.
    RetainNotSupported = 0x9a, "Retain not supported", [ConnAck, DisconnectByServer];
    /// The QoS is above the maximum of the server.
    QosNotSupported = 0x9b, "QoS not supported", [ConnAck, DisconnectByServer];
    /// The client should use another server for now.
    UseAnotherServer = 0x9c, "Use another server", [ConnAck, DisconnectByServer];
    /// The client should use another server from now on.
    ServerMoved = 0x9d, "Server moved", [ConnAck, DisconnectByServer];
    /// There are no shared subscriptions here.
    SharedSubscriptionsNotSupported = 0x9e, "Shared Subscriptions not supported", [SubAck, DisconnectByServer];
    /// Too many connections in a short time.
    ConnectionRateExceeded = 0x9f, "Connection rate exceeded", [ConnAck, DisconnectByServer];
    /// The connection has lasted as long as it may.
    MaximumConnectTime = 0xa0, "Maximum connect time", [DisconnectByServer];
    /// There are no subscription identifiers here.
    SubscriptionIdsNotSupported = 0xa1, "Subscription Identifiers not supported", [SubAck, DisconnectByServer];
    /// There are no wildcards here.
    WildcardSubscriptionsNotSupported = 0xa2, "Wildcard Subscriptions not supported",
        [SubAck, DisconnectByServer];
}

impl ReasonCode {
    /// The number on the wire.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the code says that something failed (section 2.4).
    #[inline]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// Whether a packet may carry the code.
    #[inline]
    pub(super) const fn may_stand_in(self, place: PacketOrWill) -> bool {
        self.places() & place.bit() != 0
    }

    /// The code of a CONNACK packet of MQTT 3.1 and 3.1.1 (table 3.1 there) that is nearest to this code.
    pub const fn return_code(self) -> ReturnCode {
        match self {
            ReasonCode::Success => ReturnCode::Accepted,
            ReasonCode::UnsupportedProtocolVersion => ReturnCode::UnacceptableProtocolVersion,
            ReasonCode::ClientIdNotValid => ReturnCode::IdentifierRejected,
            ReasonCode::BadUserNameOrPassword => ReturnCode::BadUserNameOrPassword,
            ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => {
                ReturnCode::NotAuthorized
            }
            ReasonCode::GrantedQos1
            | ReasonCode::GrantedQos2
            | ReasonCode::DisconnectWithWill
            | ReasonCode::NoMatchingSubscribers
            | ReasonCode::NoSubscriptionExisted
            | ReasonCode::ContinueAuthentication
            | ReasonCode::ReAuthenticate
            | ReasonCode::Unspecified
            | ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::ImplementationSpecific
            | ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::ServerShuttingDown
            | ReasonCode::KeepAliveTimeout
            | ReasonCode::SessionTakenOver
            | ReasonCode::TopicFilterInvalid
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PacketIdInUse
            | ReasonCode::PacketIdNotFound
            | ReasonCode::ReceiveMaximumExceeded
            | ReasonCode::TopicAliasInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::MessageRateTooHigh
            | ReasonCode::QuotaExceeded
            | ReasonCode::AdministrativeAction
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::RetainNotSupported
            | ReasonCode::QosNotSupported
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
            | ReasonCode::SharedSubscriptionsNotSupported
            | ReasonCode::ConnectionRateExceeded
            | ReasonCode::MaximumConnectTime
            | ReasonCode::SubscriptionIdsNotSupported
            | ReasonCode::WildcardSubscriptionsNotSupported => ReturnCode::ServerUnavailable,
        }
    }
}

/// The answer in a CONNACK packet of MQTT 3.1 and 3.1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReturnCode {
    /// The client is connected.
    Accepted = 0,
    /// The server does not speak this version.
    UnacceptableProtocolVersion = 1,
    /// The client identifier is legal, and not accepted here.
    IdentifierRejected = 2,
    /// The server cannot serve.
    ServerUnavailable = 3,
    /// The credentials are wrong.
    BadUserNameOrPassword = 4,
    /// The client may not connect.
    NotAuthorized = 5,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 2-6 of the specification, and which side sends a DISCONNECT packet with the code (table 3-10),
    /// written down apart from the rows above: C CONNACK, a PUBACK, r PUBREC, l PUBREL, c PUBCOMP, S SUBACK,
    /// U UNSUBACK, > DISCONNECT of a client, < DISCONNECT of a server, ( AUTH of a client, ) AUTH of a
    /// server.
    const TABLE: &[(u8, &str)] = &[
        (0x00, "CarlcSU><)"),
        (0x01, "S"),
        (0x02, "S"),
        (0x04, ">"),
        (0x10, "ar"),
        (0x11, "U"),
        (0x18, "()"),
        (0x19, "("),
        (0x80, "CarSU><"),
        (0x81, "C><"),
        (0x82, "C><"),
        (0x83, "CarSU><"),
        (0x84, "C"),
        (0x85, "C"),
        (0x86, "C"),
        (0x87, "CarSU<"),
        (0x88, "C"),
        (0x89, "C<"),
        (0x8a, "C"),
        (0x8b, "<"),
        (0x8c, "C<"),
        (0x8d, "<"),
        (0x8e, "<"),
        (0x8f, "SU<"),
        (0x90, "Car><"),
        (0x91, "arSU"),
        (0x92, "lc"),
        (0x93, "><"),
        (0x94, "><"),
        (0x95, "C><"),
        (0x96, "><"),
        (0x97, "CarS><"),
        (0x98, "><"),
        (0x99, "Car><"),
        (0x9a, "C<"),
        (0x9b, "C<"),
        (0x9c, "C<"),
        (0x9d, "C<"),
        (0x9e, "S<"),
        (0x9f, "C<"),
        (0xa0, "<"),
        (0xa1, "S<"),
        (0xa2, "S<"),
    ];

    const LETTERS: [(PacketOrWill, char); 11] = [
        (PacketOrWill::ConnAck, 'C'),
        (PacketOrWill::PubAck, 'a'),
        (PacketOrWill::PubRec, 'r'),
        (PacketOrWill::PubRel, 'l'),
        (PacketOrWill::PubComp, 'c'),
        (PacketOrWill::SubAck, 'S'),
        (PacketOrWill::UnsubAck, 'U'),
        (PacketOrWill::DisconnectByClient, '>'),
        (PacketOrWill::DisconnectByServer, '<'),
        (PacketOrWill::AuthByClient, '('),
        (PacketOrWill::AuthByServer, ')'),
    ];

    #[test]
    fn each_code_stands_in_the_packets_of_the_specification_and_no_other_number_is_a_code() {
        assert_eq!(ReasonCode::ALL.len(), TABLE.len());
        for code in 0..=u8::MAX {
            let row = TABLE.iter().find(|(number, _)| *number == code);
            let reason = ReasonCode::from_u8(code);
            assert_eq!(reason.is_some(), row.is_some(), "{code:#x}");
            if let (Some(reason), Some((_, packets))) = (reason, row) {
                assert_eq!(reason.as_u8(), code);
                assert_eq!(reason.is_error(), code >= 0x80);
                for (place, letter) in LETTERS {
                    assert_eq!(
                        reason.may_stand_in(place),
                        packets.contains(letter),
                        "{reason:?} in {place:?}"
                    );
                }
                for place in [
                    PacketOrWill::Connect,
                    PacketOrWill::Will,
                    PacketOrWill::PublishByClient,
                    PacketOrWill::Subscribe,
                ] {
                    assert!(!reason.may_stand_in(place), "{place:?} has no reason code");
                }
            }
        }
    }

    #[test]
    fn old_clients_get_the_return_code_that_is_nearest() {
        for (reason, code) in [
            (ReasonCode::Success, 0),
            (ReasonCode::UnsupportedProtocolVersion, 1),
            (ReasonCode::ClientIdNotValid, 2),
            (ReasonCode::ServerBusy, 3),
            (ReasonCode::BadUserNameOrPassword, 4),
            (ReasonCode::NotAuthorized, 5),
            (ReasonCode::Banned, 5),
        ] {
            assert_eq!(reason.return_code() as u8, code, "{reason:?}");
        }
    }
}
