//! A publication that no session decides: the server itself makes it.

use crate::decision::{Decision, Decisions, Epoch, Marks, Publish};
use crate::socketcluster::session::write_publish;
use crate::socketcluster::string;

/// A list with one decision, to publish `data`, which is JSON, to a channel. The message is that of SocketCluster; the
/// marks come from the policy of the channel.
pub(crate) fn publication(channel: &[u8], data: Option<&[u8]>, marks: Marks, epoch: Epoch) -> Decisions {
    let mut decisions = Decisions::new();
    let name = decisions.write(|out| out.extend_from_slice(channel));
    let written = |out: &mut Vec<u8>| string::write_json(channel, out);
    let message = decisions.write(|out| write_publish(written, marks, epoch, data, out));
    let publish = Publish::new(name, message, data.unwrap_or_default(), marks);
    decisions.push(Decision::Publish(publish));
    decisions
}
