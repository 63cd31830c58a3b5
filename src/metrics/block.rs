//! The metrics of one core: one row for each.
//!
//! A row names the field of [`CoreMetrics`], its kind and the metric's name; its documentation is the help text of
//! `/metrics` and of `docs/metrics.md`. To add a metric, write its row; `UPDATE=1 cargo test --test docs` renews the
//! table.
//!
//! The block is written by its core alone and read by the control plane. It is aligned so that two cores' blocks never
//! share a cache line.

use super::counter::{Counter, Counters, Histogram};
use crate::audit::Event;
use crate::config::rules::Action;
use crate::decision::{CloseReason, Gap, Limit, Wanted};
use crate::labels::labels;

labels! {
    /// How a TLS handshake ended.
    pub enum Handshake {
        /// Successfully, with a signature.
        Full = "full",
        /// Successfully, with a ticket of an earlier connection.
        Resumed = "resumed",
        /// Client and server have no version, cipher suite, group or signature in common.
        Incompatible = "incompatible",
        /// The client speaks other protocols than HTTP/1.1 and MQTT only.
        Protocol = "protocol",
        /// The client has no certificate, or not a valid one.
        Certificate = "certificate",
        /// The client refused the server, in most cases for its certificate.
        Refused = "refused",
        /// The client's bytes were no TLS, or broke its rules.
        Malformed = "malformed",
        /// The client disconnected, or took too long.
        Abandoned = "abandoned",
    }
}

labels! {
    /// Kinds of memory that connections hold.
    pub enum HeldKind {
        /// Bytes that wait to be sent, in buffers of single connections.
        Outboxes = "outboxes",
        /// Long publications, each stored once for all connections that wait for it.
        Shared = "shared",
        /// The newest publications for connections that have not kept up.
        Conflated = "conflated",
        /// Incomplete messages.
        Assemblies = "assemblies",
        /// Input that was read and is not yet processed.
        Leftovers = "leftovers",
        /// The rest of long arrays of packets, and decisions that wait for the ring or for a delivery.
        Parked = "parked",
        /// TLS records that are incomplete, or that sockets have not taken.
        Tls = "tls",
        /// Publications that wait for the ring after their publisher has disconnected.
        Abandoned = "abandoned",
        /// Publications that follow a history which their subscriber has not got yet.
        Collected = "collected",
    }
}

labels! {
    /// The outcome of a subscriber's question about the channel's past.
    pub enum RecoveryOutcome {
        /// All that it had asked for.
        Recovered = "recovered",
        /// The newest publication (`last_value`), without a question.
        LastValue = "last_value",
        /// It had asked for the position only.
        Position = "position",
        /// Its position is of another numbering.
        OtherEpoch = "other_epoch",
        /// A part had made room for newer publications.
        Evicted = "evicted",
        /// A part was too old.
        Expired = "expired",
        /// It had missed more than recovery_publications_max.
        TooMany = "too_many",
        /// The channel has no history.
        NoHistory = "no_history",
        /// The rules do not allow it to ask.
        NotAllowed = "not_allowed",
        /// The policy of the channel has changed.
        PolicyChanged = "policy_changed",
        /// Its position lies in the future.
        UnknownPosition = "unknown_position",
        /// The core that keeps the history did not answer in time.
        NoAnswer = "no_answer",
        /// It unsubscribed, or was unsubscribed, before.
        Unsubscribed = "unsubscribed",
        /// It had asked before, and not been answered yet.
        InProgress = "in_progress",
    }
}

impl RecoveryOutcome {
    /// The outcome for a client that wanted this.
    pub const fn of(wanted: Wanted, gap: Option<Gap>) -> RecoveryOutcome {
        match gap {
            None => match wanted {
                Wanted::LastValue | Wanted::Retained => RecoveryOutcome::LastValue,
                Wanted::Position => RecoveryOutcome::Position,
                Wanted::After(_)
                | Wanted::OtherEpoch
                | Wanted::Last(_)
                | Wanted::Since(_)
                | Wanted::Forbidden => RecoveryOutcome::Recovered,
            },
            Some(Gap::OtherEpoch) => RecoveryOutcome::OtherEpoch,
            Some(Gap::Evicted) => RecoveryOutcome::Evicted,
            Some(Gap::Expired) => RecoveryOutcome::Expired,
            Some(Gap::TooMany) => RecoveryOutcome::TooMany,
            Some(Gap::NoHistory) => RecoveryOutcome::NoHistory,
            Some(Gap::NotAllowed) => RecoveryOutcome::NotAllowed,
            Some(Gap::PolicyChanged) => RecoveryOutcome::PolicyChanged,
            Some(Gap::UnknownPosition) => RecoveryOutcome::UnknownPosition,
            Some(Gap::NoAnswer) => RecoveryOutcome::NoAnswer,
            Some(Gap::Unsubscribed) => RecoveryOutcome::Unsubscribed,
            Some(Gap::InProgress) => RecoveryOutcome::InProgress,
        }
    }
}

labels! {
    /// Why an MQTT client does not get a publication although its session has a subscription for it.
    pub enum MqttDrop {
        /// The queue of the session had no room: mqtt_queue_messages_max or mqtt_queue_bytes_max.
        QueueFull = "queue_full",
        /// The queues of all sessions had no room: mqtt_queues_bytes_max.
        QueuesFull = "queues_full",
        /// It expired before it was sent.
        Expired = "expired",
        /// The packet is larger than the client's Maximum Packet Size.
        TooLarge = "too_large",
        /// It was for a group of a shared subscription, and no member had room for it.
        GroupFull = "group_full",
        /// It waited for a client, and changed rules do not allow the client its topic.
        Forbidden = "forbidden",
    }
}

labels! {
    /// Why a remembered publication is forgotten.
    pub enum Eviction {
        /// Its channel had as many publications, or bytes of them, as its policy keeps.
        ChannelFull = "channel_full",
        /// It was older than the policy of its channel keeps publications.
        Expired = "expired",
        /// All channels together had history_bytes_max.
        BytesMax = "bytes",
        /// There were history_channels_max channels, and its channel was quiet for the longest time.
        ChannelsMax = "channels",
    }
}

/// One metric of a core.
#[derive(Debug)]
pub struct Metric {
    /// Its name, with prefix, unit and `_total`.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Where its values are.
    pub values: Values,
}

/// Where the values of a metric are in a core's block.
#[derive(Debug)]
pub enum Values {
    /// Goes up only.
    Counter(fn(&CoreMetrics) -> &Counter),
    /// Goes up and down.
    Gauge(fn(&CoreMetrics) -> &Counter),
    /// Go up only; one for each value of a label.
    Counters(Labelled),
    /// Go up and down; one for each value of a label.
    Gauges(Labelled),
    /// Durations.
    Histogram(fn(&CoreMetrics) -> &Histogram),
}

/// A counter or gauge for each value of a label.
#[derive(Clone, Copy, Debug)]
pub struct Labelled {
    /// The label.
    pub label: &'static str,
    /// Its values.
    pub labels: &'static [&'static str],
    /// The counters or gauges, in the same order.
    pub counters: fn(&CoreMetrics) -> &[Counter],
}

/// Makes [`CoreMetrics`] and [`METRICS`] from the rows.
///
/// Kinds of rows are `Counter`, `Gauge`, `Histogram`, and `Counters` and `Gauges`, which have one value for each
/// variant of an enum: `closes: Counters by "reason" of CloseReason, "ringcast_closes_total";`.
macro_rules! core_metrics {
    ($(
        $(#[doc = $help:literal])+
        $field:ident: $kind:ident $(by $label:literal of $enum:ident)?, $name:literal;
    )+) => {
        /// All metrics of one core.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct CoreMetrics {
            $($(#[doc = $help])+ pub $field: core_metrics!(@type $kind $($enum)?),)+
        }

        /// All metrics of a core, in the order in which they are exposed.
        pub const METRICS: &[Metric] = &[
            $(Metric {
                name: $name,
                help: concat!($($help),+).trim_ascii(),
                values: core_metrics!(@values $kind $field $($label $enum)?),
            },)+
        ];
    };
    (@type Counter) => { Counter };
    (@type Gauge) => { Counter };
    (@type Histogram) => { Histogram };
    (@type Counters $enum:ident) => { Counters<{ $enum::COUNT }> };
    (@type Gauges $enum:ident) => { Counters<{ $enum::COUNT }> };
    (@values Counter $field:ident) => { Values::Counter(|block| &block.$field) };
    (@values Gauge $field:ident) => { Values::Gauge(|block| &block.$field) };
    (@values Histogram $field:ident) => { Values::Histogram(|block| &block.$field) };
    (@values Counters $field:ident $label:literal $enum:ident) => {
        Values::Counters(core_metrics!(@labelled $field $label $enum))
    };
    (@values Gauges $field:ident $label:literal $enum:ident) => {
        Values::Gauges(core_metrics!(@labelled $field $label $enum))
    };
    (@labelled $field:ident $label:literal $enum:ident) => {
        Labelled {
            label: $label,
            labels: &$enum::LABELS,
            counters: |block| &*block.$field,
        }
    };
}

core_metrics! {
    /// Connections open now.
    connections: Gauge, "ringcast_connections";

    /// Connections open now that have completed the handshake of their protocol.
    sessions: Gauge, "ringcast_sessions";

    /// Connections that the drain still has to close; 0 while there is no drain.
    drain_left: Gauge, "ringcast_drain_left";

    /// Sockets accepted from the listener.
    accepts: Counter, "ringcast_accepts_total";

    /// Accepted sockets that the core handed to a core with less load before it read their first byte.
    hand_overs_sent: Counter, "ringcast_hand_overs_sent_total";

    /// Sockets that the core took over from another core.
    hand_overs_received: Counter, "ringcast_hand_overs_received_total";

    /// Connections that came to the core because it owns their MQTT client id.
    moves: Counter, "ringcast_mqtt_moves_total";

    /// Reads that were put off to a later turn because connections that are being opened or closed, or that present
    /// tokens again and again, had used up their time in this turn.
    transitions_deferred: Counter, "ringcast_transitions_deferred_total";

    /// Reads that were put off to a later turn, on any connection, because checks of tokens had used up their time in
    /// this turn.
    token_checks_deferred: Counter, "ringcast_token_checks_deferred_total";

    /// Connections refused because there was no room, or because they arrived too fast: answered 503 or 429, or only
    /// closed where TLS is spoken.
    connections_refused: Counter, "ringcast_connections_refused_total";

    /// TLS handshakes that have ended, by result: `full` and `resumed` have succeeded, the others name the failure.
    tls_handshakes: Counters by "result" of Handshake, "ringcast_tls_handshakes_total";

    /// Requests on the client port that were answered with plain HTTP.
    http_answers: Counter, "ringcast_http_answers_total";

    /// Whole WebSocket messages received.
    messages_received: Counter, "ringcast_messages_received_total";

    /// Bytes read from sockets.
    bytes_received: Counter, "ringcast_received_bytes_total";

    /// WebSocket messages queued for sending, publications included.
    messages_sent: Counter, "ringcast_messages_sent_total";

    /// Upgrades that negotiated compression.
    compression_agreed: Counter, "ringcast_compression_agreed_total";

    /// Compressed messages received.
    messages_inflated: Counter, "ringcast_inflated_messages_total";

    /// Bytes of received compressed messages, as they were sent.
    inflate_bytes_before: Counter, "ringcast_inflate_before_bytes_total";

    /// Bytes of received compressed messages, decompressed.
    inflate_bytes_after: Counter, "ringcast_inflate_after_bytes_total";

    /// Messages compressed; a publication counts once for all clients of a core that share a window size.
    messages_deflated: Counter, "ringcast_deflated_messages_total";

    /// Bytes of messages before they were compressed.
    deflate_bytes_before: Counter, "ringcast_deflate_before_bytes_total";

    /// Bytes of messages after they were compressed.
    deflate_bytes_after: Counter, "ringcast_deflate_after_bytes_total";

    /// Bytes written to sockets; under TLS the encrypted bytes.
    bytes_sent: Counter, "ringcast_sent_bytes_total";

    /// Patterns with services that this core owns.
    service_patterns: Gauge, "ringcast_service_patterns";

    /// Services of the patterns that this core owns.
    service_members: Gauge, "ringcast_service_members";

    /// Bytes of the open calls of this core's clients to services.
    service_call_bytes: Gauge, "ringcast_service_call_bytes";

    /// Answers of services, or failures, that came after their call had ended: the caller had disconnected, or had got
    /// a `TimeoutError`.
    service_answers_late: Counter, "ringcast_service_answers_late_total";

    /// Members of the channels with presence that this core owns.
    presence_members: Gauge, "ringcast_presence_members";

    /// Channels with presence that this core owns and that have members.
    presence_channels: Gauge, "ringcast_presence_channels";

    /// Members that have joined a channel.
    presence_joins: Counter, "ringcast_presence_joins_total";

    /// Members that have left a channel.
    presence_leaves: Counter, "ringcast_presence_leaves_total";

    /// Members whose changes cancelled each other before an event told them.
    presence_coalesced: Counter, "ringcast_presence_coalesced_total";

    /// Events about members that were published.
    presence_events: Counter, "ringcast_presence_events_total";

    /// Publications put into the ring.
    publications: Counter, "ringcast_publications_total";

    /// Publications queued for a subscriber; each subscriber counts.
    deliveries: Counter, "ringcast_deliveries_total";

    /// Publications that the application has withheld from a subscriber; each subscriber counts.
    publications_withheld: Counter, "ringcast_publications_withheld_total";

    /// Turns that ended before a publication had reached all its subscribers; it goes on in the next turn, so that
    /// other work is not held up.
    deliveries_paused: Counter, "ringcast_deliveries_paused_total";

    /// Publications not delivered to a subscriber because its outbox was full.
    publications_skipped: Counter, "ringcast_publications_skipped_total";

    /// Publications that a newer one of their channel replaced while they waited for a subscriber whose outbox was
    /// full.
    publications_conflated: Counter, "ringcast_publications_conflated_total";

    /// Subscriptions of MQTT sessions, connected or not.
    mqtt_subscriptions: Gauge, "ringcast_mqtt_subscriptions";

    /// MQTT sessions, connected or not.
    mqtt_sessions: Gauge, "ringcast_mqtt_sessions";

    /// MQTT sessions whose client is connected.
    mqtt_sessions_connected: Gauge, "ringcast_mqtt_sessions_connected";

    /// MQTT sessions that ended because their client did not come back in time.
    mqtt_sessions_expired: Counter, "ringcast_mqtt_sessions_expired_total";

    /// MQTT sessions that a client came back to.
    mqtt_sessions_resumed: Counter, "ringcast_mqtt_sessions_resumed_total";

    /// MQTT connections that lost their session to a newer one with the same client id.
    mqtt_take_overs: Counter, "ringcast_mqtt_take_overs_total";

    /// Bytes of publications that are kept for MQTT sessions, waiting or not acknowledged.
    mqtt_kept_bytes: Gauge, "ringcast_mqtt_kept_bytes";

    /// Publications that an MQTT client does not get although its session has a subscription for them, by cause.
    mqtt_publications_dropped: Counters by "cause" of MqttDrop, "ringcast_mqtt_publications_dropped_total";

    /// Retained publications of the topics that the core owns, measured once a second.
    mqtt_retained: Gauge, "ringcast_mqtt_retained";

    /// Bytes of memory that these retained publications take, measured once a second.
    mqtt_retained_bytes: Gauge, "ringcast_mqtt_retained_bytes";

    /// Retained publications that expired.
    mqtt_retained_expired: Counter, "ringcast_mqtt_retained_expired_total";

    /// Retained publications that were sent to new subscribers.
    mqtt_retained_sent: Counter, "ringcast_mqtt_retained_sent_total";

    /// Publications on channels whose names are no MQTT topics, and which MQTT clients therefore miss: the publication
    /// matches a filter of this core, or was to be retained.
    publications_invisible: Counter, "ringcast_mqtt_publications_invisible_total";

    /// Groups of shared MQTT subscriptions, each on the core that owns it.
    mqtt_groups: Gauge, "ringcast_mqtt_groups";

    /// Publications of shared MQTT subscriptions that went to another member, since the session of the first had ended
    /// without them.
    mqtt_shared_redispatched: Counter, "ringcast_mqtt_shared_redispatched_total";

    /// Questions of subscribers about the past of their channel, and last values sent without a question, by outcome.
    recoveries: Counters by "outcome" of RecoveryOutcome, "ringcast_recoveries_total";

    /// Subscriptions that are not live yet, because their subscribers wait for a part of the channel's past.
    recoveries_waiting: Gauge, "ringcast_recoveries_waiting";

    /// Bytes of histories that are being sent to subscribers. They stay in memory until they are sent, also if their
    /// channels have lost them meanwhile.
    recovery_bytes: Gauge, "ringcast_recovery_bytes";

    /// Subscriptions whose subscribers read too slowly and get the missed publications from the history of the channel
    /// later, with `slow_consumer` `skip` or `conflate`.
    catch_ups: Counter, "ringcast_catch_ups_total";

    /// Publications that were sent to a new subscriber from the history or last value of a channel.
    publications_replayed: Counter, "ringcast_publications_replayed_total";

    /// Subscriptions held now.
    subscriptions: Gauge, "ringcast_subscriptions";

    /// Publications in the ring that the core has not yet taken.
    ring_depth: Gauge, "ringcast_ring_depth";

    /// Memory in bytes of the core's publications that some core has yet to take, measured once a second.
    ring_bytes: Gauge, "ringcast_ring_bytes";

    /// Memory in bytes that the core keeps for its next publications, measured once a second: the most that it ever had
    /// in the ring at one time.
    ring_kept_bytes: Gauge, "ringcast_ring_kept_bytes";

    /// Memory in bytes of the tables of connections, channels and subscriptions, measured once a second.
    table_bytes: Gauge, "ringcast_table_bytes";

    /// Publishes that had to wait because the ring was full, or because others already waited for room in it.
    ring_stalls: Counter, "ringcast_ring_stalls_total";

    /// Sleeping cores that this core has woken.
    wakes: Counter, "ringcast_wakes_total";

    /// Letters (messages between cores) that the core has handled, including letters of the core to itself.
    letters: Counter, "ringcast_letters_total";

    /// Letters that the core keeps until there is room in the box of their receiver.
    letters_kept: Gauge, "ringcast_letters_kept";
    /// Publications that the core remembers of the channels that it owns, measured once a second.
    history_publications: Gauge, "ringcast_history_publications";

    /// Channels of which the core remembers publications, or has lately, measured once a second.
    history_channels: Gauge, "ringcast_history_channels";

    /// Bytes that these publications and channels count for, measured once a second.
    history_bytes: Gauge, "ringcast_history_bytes";

    /// Remembered publications that were forgotten, by reason.
    history_evicted: Counters by "reason" of Eviction, "ringcast_history_evicted_total";

    /// Readings of histories that the core has answered as the owner of a channel.
    history_readings: Counter, "ringcast_history_readings_total";

    /// Bytes that wait to be sent, in outboxes and in the publications that they share.
    outbox_bytes: Gauge, "ringcast_outbox_bytes";

    /// Memory in bytes that connections hold, by kind; all kinds together are bounded by outbox_bytes_total_max.
    held_bytes: Gauges by "kind" of HeldKind, "ringcast_held_bytes";

    /// Wills that connected clients have left.
    wills: Gauge, "ringcast_wills";

    /// Wills whose connections have ended and whose delays have not passed, at the core that will publish them.
    wills_waiting: Gauge, "ringcast_wills_waiting";

    /// Wills published.
    wills_published: Counter, "ringcast_wills_published_total";

    /// Wills that were dropped because their session came back in time, or because the user's token was revoked while
    /// they waited.
    wills_cancelled: Counter, "ringcast_wills_cancelled_total";

    /// Turns of the event loop.
    turns: Counter, "ringcast_turns_total";

    /// Turns that began without a sleep, because busy polling had found work.
    busy_poll_hits: Counter, "ringcast_busy_poll_hits_total";

    /// Duration of turns in seconds, without the time that the core slept.
    turn_seconds: Histogram, "ringcast_turn_seconds";

    /// Seconds from a publish to the end of the turn that wrote it to a subscriber or found the subscriber's socket
    /// full, per delivery. The messages of one read are published together: for all of them the time of the first
    /// counts.
    publish_to_write_seconds: Histogram, "ringcast_publish_to_write_seconds";

    /// Closed connections, by reason.
    closes: Counters by "reason" of CloseReason, "ringcast_closes_total";

    /// Actions that `[[rules]]` have refused, by action.
    rules_denied: Counters by "action" of Action, "ringcast_rules_denied_total";

    /// Actions that were carried out and that `[[shadow_rules]]` would refuse, by action.
    rules_would_deny: Counters by "action" of Action, "ringcast_rules_would_deny_total";

    /// Actions that `[[rules]]` have refused and that `[[shadow_rules]]` would allow, by action.
    rules_would_allow: Counters by "action" of Action, "ringcast_rules_would_allow_total";

    /// Subscriptions ended because changed `[[rules]]` no longer allow them.
    rules_kick_outs: Counter, "ringcast_rules_kick_outs_total";

    /// Publications of MQTT clients that were refused and dropped: by rules, by the application, or since the topic or
    /// the payload is not accepted. Clients of 3.1.1 get no error.
    mqtt_publications_refused: Counter, "ringcast_mqtt_publications_refused_total";

    /// Lines left out of the audit trail because more came than limits.audit_lines_per_second_max, by event.
    audit_left_out: Counters by "event" of Event, "ringcast_audit_left_out_total";

    /// Limits reached, by limit. Limits that hold new connections back (connections, connections_per_core,
    /// accepts_per_second, memory_bytes) count once each time they begin to, not for each connection.
    limit_hits: Counters by "limit" of Limit, "ringcast_limit_hits_total";
}

impl CoreMetrics {
    /// Counts a limit that was reached.
    pub fn limit_hit(&self, limit: Limit) {
        self.limit_hits[limit.index()].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_two_cores_share_no_cache_line() {
        assert_eq!(align_of::<CoreMetrics>() % 128, 0);
    }
}
