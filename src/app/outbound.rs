//! The form in which a client gets a publication: the answer of [`App::deliver`](super::App::deliver).

use serde::Serialize;

/// The form in which a client gets a publication that is about to be queued for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an answer that is not returned changes nothing"]
pub struct Outbound(OutboundKind);

/// The kinds of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutboundKind {
    Pass,
    Withhold,
    /// JSON.
    Instead(Box<str>),
}

impl Outbound {
    /// The client gets it as it was published.
    #[inline]
    pub const fn pass() -> Outbound {
        Outbound(OutboundKind::Pass)
    }

    /// The client does not get it.
    #[inline]
    pub const fn withhold() -> Outbound {
        Outbound(OutboundKind::Withhold)
    }

    /// The client gets it with this data. If the value has no JSON form, the client does not get it.
    pub fn instead(data: &(impl Serialize + ?Sized)) -> Outbound {
        match serde_json::to_string(data) {
            Ok(json) => Outbound(OutboundKind::Instead(json.into())),
            Err(_) => Outbound::withhold(),
        }
    }

    #[inline]
    pub(crate) fn into_kind(self) -> OutboundKind {
        self.0
    }
}
