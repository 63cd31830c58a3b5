//! Publications that no session decides: the server itself makes them.

use crate::config::channels::RetainPolicy;
use crate::decision::{Decision, Decisions, Epoch, Marks, Publish};
use crate::mqtt::publication::{Head, write_head};
use crate::mqtt::sessions::DueWill;
use crate::session::MqttMarks;
use crate::socketcluster::session::write_publish;
use crate::socketcluster::string;

/// A list with one decision, to publish `data`, which is JSON, to a channel. The message is that of SocketCluster; the
/// marks come from the policy of the channel, and `retain` says whether it is the retained publication from then on.
pub(crate) fn publication(
    channel: &[u8],
    data: Option<&[u8]>,
    marks: Marks,
    epoch: Epoch,
    retain: bool,
) -> Decisions {
    let mut decisions = Decisions::new();
    let name = decisions.write(|out| out.extend_from_slice(channel));
    let written = |out: &mut Vec<u8>| string::write_json(channel, out);
    let message = decisions.write(|out| write_publish(written, marks, epoch, data, out));
    let publish = Publish {
        retain,
        ..Publish::new(name, message, data.unwrap_or_default(), marks)
    };
    decisions.push(Decision::Publish(publish));
    decisions
}

/// A list with one decision, to publish the will of an MQTT client now.
pub(crate) fn mqtt_will(due: &DueWill, marks: MqttMarks, unix_ms: u64) -> Decisions {
    let will = &due.will;
    let head = Head {
        qos: will.qos,
        retain: will.retain,
        is_text: will.is_utf8,
        publisher: due.publisher,
        client_hash: due.client_hash,
        expires_at_ms: will.expiry_s.map(|seconds| unix_ms + u64::from(seconds) * 1000),
        payload_rule: marks.payload,
    };
    let mut decisions = Decisions::new();
    let topic = decisions.write(|out| out.extend_from_slice(&will.topic));
    let message = decisions.write(|out| {
        write_head(&head, &will.properties, out);
        out.extend_from_slice(&will.payload);
    });
    let is_retained = will.retain && marks.retain == RetainPolicy::Kept;
    let publish = Publish::of_mqtt(topic, message, &will.payload, marks.marks, is_retained);
    decisions.push(Decision::Publish(publish));
    decisions
}
