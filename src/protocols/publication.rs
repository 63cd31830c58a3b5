//! A publication that no session decides: the server itself makes it.

use crate::decision::{Decision, Decisions, Publish};
use crate::socketcluster::{encode, string};

/// A list with one decision, to publish `data`, which is JSON, to a channel. The message is that of SocketCluster.
pub(crate) fn publication(channel: &[u8], data: Option<&[u8]>) -> Decisions {
    let mut decisions = Decisions::new();
    let name = decisions.write(|out| out.extend_from_slice(channel));
    let message = decisions.write(|out| encode::publish(|out| string::write_json(channel, out), data, out));
    let publish = Publish::new(name, message, data.unwrap_or_default());
    decisions.push(Decision::Publish(publish));
    decisions
}
