//! Letters about services (`cores/services`).

use crate::services::{
    CallId, Failure, GivenUp, JoinFailure, MemberKey, NotDelivered, Offer, PoolId, ServiceCall,
};

/// A letter about services. The number of letters that may be kept for a full box is bounded for each kind.
/// Letters about a call are bounded by the calls that may be open on all cores and by the cancelled calls
/// that count in a window. Letters about a pattern are bounded by the patterns that may be served: a client's
/// next letter about a pattern is sent when all cores have taken the letters that the last one caused, unless
/// its connection ends. Events are sent only if there is room. If the receiver has stopped, so have its
/// clients and its pools, and its callers need no answer.
#[derive(Debug)]
pub(crate) enum ServiceLetter {
    /// To the owner: a service registers a pattern, or changes its offer.
    Joins {
        pattern: Box<[u8]>,
        member: MemberKey,
        offer: Offer,
    },
    /// To the owner: a service gives a pattern up.
    Leaves { pattern: Box<[u8]>, member: MemberKey },
    /// To the core of the service: all cores know the pattern, or it is not registered.
    Joined {
        connection: usize,
        pattern: Box<[u8]>,
        outcome: Result<(), JoinFailure>,
    },
    /// To all cores: a pattern has services, or has none any more.
    Pattern {
        pattern: Box<[u8]>,
        owner: usize,
        change: PatternChange,
    },
    /// To the owner: this core knows the pattern.
    Known { pool: PoolId, core: usize },
    /// To the owner: a call or an event for a service.
    Call(Box<ServiceCall>),
    /// To the core of the service that was chosen.
    Give {
        connection: usize,
        call: Box<ServiceCall>,
    },
    /// To the owner: the service has not got the call or the event.
    NotDelivered {
        member: MemberKey,
        why: NotDelivered,
        call: Box<ServiceCall>,
    },
    /// To the owner: the outbox of a service that was full has room again.
    HasRoom { pattern: Box<[u8]>, member: MemberKey },
    /// To the core of the caller: the answer, or a failure.
    Answer(Box<ServiceCall>),
    /// To the core of the caller: the core of the service has stopped.
    Lost { id: CallId, failure: Failure },
    /// To the owner: the service has answered, or has ended, or had time enough after `$cancel`.
    Done { id: CallId },
    /// To the owner: the caller no longer waits for the answer.
    Cancel { id: CallId, pool: PoolId, why: GivenUp },
    /// To the core of the service: the caller no longer waits for the answer.
    Drop { connection: usize, id: CallId },
}

/// A change of a pattern that all cores have to know.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatternChange {
    /// It has services, in this pool.
    Served(PoolId),
    /// This pool has none any more.
    Gone(PoolId),
}
