//! The bounds that can be reached, as `ringcast_limit_hits_total{limit="NAME"}` counts them.
//!
//! The values of most bounds are settings (`config/limits.rs`; those of MQTT `config/mqtt.rs`). A bound has the name of
//! its setting without `_max`, and with `_time` in the place of `_timeout_ms`; rows that do not keep to this name their
//! setting in their documentation.
//!
//! To count one: a core with `CoreMetrics::limit_hit`; a session with `Scratch::hit` (`session/scratch.rs`), which the core
//! adds to its metrics after the message (`cores/input/session_counts.rs`). If a connection is closed for it, the reason names the
//! bound (`CloseReason::limit`, a column of `close_reason.rs`), and the end of the connection counts it
//! (`cores/lifecycle/ending.rs`): not a second time elsewhere. The documentation of a row is its line in `docs/metrics.md`.

use crate::labels::labels;

labels! {
    /// A bound that can be reached, with what happens then.
    pub enum Limit {
        /// A message over `message_bytes_max`: the connection is closed with 1009.
        MessageBytes = "message_bytes",
        /// A message in more than `fragments_max` fragments: the connection is closed with 1008.
        Fragments = "fragments",
        /// A request head over `request_head_bytes_max`: answered 431.
        RequestHeadBytes = "request_head_bytes",
        /// No request head within `request_timeout_ms`: the TCP connection is closed.
        RequestTime = "request_time",
        /// No handshake within `handshake_timeout_ms`: the connection is closed with 4005.
        HandshakeTime = "handshake_time",
        /// No answer to our close frame within `close_timeout_ms`: the TCP connection is closed.
        CloseTime = "close_time",
        /// Nothing from the client within `ping_timeout_ms`: the connection is closed with 4001.
        PongTime = "pong_time",
        /// `connections_max`: further connections wait in the backlog until there is room, or are answered 503, by
        /// `accept_excess`.
        Connections = "connections",
        /// `connections_per_core_max` on every core: further connections wait in the backlog until there is room, or
        /// are answered 503, by `accept_excess`.
        ConnectionsPerCore = "connections_per_core",
        /// `connections_per_address_max`: the connection is answered 429.
        ConnectionsPerAddress = "connections_per_address",
        /// `accepts_per_second_max`: further connections wait in the backlog, or are answered 503, by `accept_excess`.
        AcceptRate = "accepts_per_second",
        /// `memory_bytes_max`: new connections are answered 503, until less than 95 % of it is in use.
        Memory = "memory_bytes",
        /// The system refused a descriptor or a socket: the core stops accepting for a moment, and new connections wait
        /// in the backlog.
        Descriptors = "descriptors",
        /// `channels_per_connection_max`: the subscribe is answered with a `BrokerError`.
        ChannelsPerConnection = "channels_per_connection",
        /// `channel_names_bytes_max`: the subscribe is answered with a `BrokerError`.
        ChannelNamesBytes = "channel_names_bytes",
        /// `outbox_bytes_max`, reached by a publication: the connection is closed, or the publication is skipped or
        /// conflated for it, by `slow_consumer`.
        OutboxBytes = "outbox_bytes",
        /// `outbox_bytes_max`, reached by replies: the connection is not read until its outbox has drained.
        OutboxReplies = "outbox_replies",
        /// `ring_slots` or `ring_bytes_max`: the publishing connections are not read until there is room.
        Ring = "ring",
        /// `calls_per_connection_max`: the application's call is refused.
        CallsPerConnection = "calls_per_connection",
        /// `timers_per_connection_max`: the application's timer is not set.
        Timers = "timers",
        /// No answer to a call from the server within `ack_timeout_ms`: the application is told.
        AckTime = "ack_time",
        /// No decision of the application within `decision_timeout_ms`: the client is refused.
        DecisionTime = "decision_time",
        /// `waiting_max` or `waiting_bytes_max` of a hook: `when_away` decides.
        HookQuestions = "hook_questions",
        /// More answers for a core than it has taken yet: the thread that sent the answer gets it back.
        LateAnswers = "late_answers",
        /// More letters of other cores for a core than it has taken yet: the sending core keeps further ones, and tries
        /// again in its next turns.
        Letters = "letters",
        /// JSON nested deeper than the scanner's limit: the packet is ignored, as text that cannot be parsed is.
        JsonDepth = "json_depth",
        /// `messages_per_second_max`: the connection is not read until it is below its rate.
        MessagesPerSecond = "messages_per_second",
        /// `bytes_per_second_max`: the connection is not read until it is below its rate.
        BytesPerSecond = "bytes_per_second",
        /// Over a rate for `rate_grace_ms`: the connection is closed with 4029.
        RateGrace = "rate_grace",
        /// No message within `idle_timeout_ms`: the connection is closed with 4030.
        IdleTime = "idle_time",
        /// `channel_name_bytes_max`: the subscribe or publish is answered with an `InvalidActionError`.
        ChannelNameBytes = "channel_name_bytes",
        /// `client_calls_max`: the call is answered with an `InvalidActionError`.
        ClientCalls = "client_calls",
        /// A frame over `frame_bytes_max`: the connection is closed with 1009.
        FrameBytes = "frame_bytes",
        /// A packet from an unauthenticated client while `allow_anonymous` is off: the packet is refused.
        Anonymous = "anonymous",
        /// Not authenticated within `authentication_timeout_ms` while `allow_anonymous` is off: the connection is
        /// closed with 4031.
        AuthenticationTime = "authentication_time",
        /// A login with a body over `login_body_bytes_max`: answered 413, or with an `InvalidArgumentsError`.
        LoginBodyBytes = "login_body_bytes",
        /// A login while another of the same connection is open: answered with an `InvalidActionError`.
        LoginsPerConnection = "logins_per_connection",
        /// A compressed message that inflates to more than `message_bytes_max`: the connection is closed with 1009.
        InflatedBytes = "inflated_bytes",
        /// `abandoned_bytes_max`: a publication whose client disconnected while it waited for space in the ring, before
        /// it was acknowledged, is dropped.
        AbandonedBytes = "abandoned_bytes",
        /// `outbox_bytes_total_max`: the connections that hold most are closed with 4010, or publications are skipped
        /// or conflated for connections that do not read.
        OutboxBytesTotal = "outbox_bytes_total",
        /// `history_bytes_max`: the oldest remembered publications of all channels are forgotten.
        HistoryBytes = "history_bytes",
        /// `history_channels_max`: the publications of the channel that was quiet for the longest time are forgotten.
        HistoryChannels = "history_channels",
        /// The queue of a subscriber of the program that embeds the server (`subscriber_queue_bytes_max`, or
        /// the capacity that the program chose): a publication is left out, and the program is told how many
        /// were.
        SubscriberQueue = "subscriber_queue",
        /// `store_queue_bytes_max` with `store_mode` `strict`: a publisher to a remembered channel waits for a commit.
        StoreQueueBytes = "store_queue_bytes",
        /// `store_bytes_max` with `store_mode` `strict`: a publication that the disk would have to keep is
        /// refused, since the rest of the space is reserved for writes that make room.
        StoreBytes = "store_bytes",
        /// `presence_members_max`: the client is subscribed, but is no member of the channel; or its info is refused.
        PresenceMembers = "presence_members",
        /// An info over `presence_info_bytes_max`: answered with an `InvalidArgumentsError`.
        PresenceInfoBytes = "presence_info_bytes",
        /// `presence_calls_per_connection_max` or `presence_calls_per_core_max`: the call about presence is
        /// answered with a `BusyError`.
        PresenceCalls = "presence_calls",
        /// A call about presence that the core that owns the channel did not answer in 5 s: answered with a
        /// `TimeoutError`.
        PresenceTime = "presence_time",
        /// A subscriber has missed more than `recovery_publications_max`: it gets none of them, or the newest
        /// since a moment, and its answer says so.
        RecoveryPublications = "recovery_publications",
        /// `recovery_bytes_max`: a subscriber gets the beginning of a long history first, and the rest is
        /// read once that beginning has been sent.
        RecoveryBytes = "recovery_bytes",
        /// `history_calls_per_connection_max` or `history_calls_per_core_max`: the call of `$history` is
        /// answered with an `InvalidActionError`.
        HistoryCalls = "history_calls",
        /// A call of `$history` that the core that owns the channel did not answer in 5 s: answered with a
        /// `TimeoutError`.
        HistoryTime = "history_time",
        /// `webhook_events_waiting_max`, or `webhook_bytes_max` before an event is sorted by webhook: a core drops the
        /// event.
        WebhookEventsWaiting = "webhook_events_waiting",
        /// No byte taken for `write_timeout_ms`: the connection is closed with 4033.
        WriteTime = "write_time",
        /// `wills_bytes_max`: a client's will is refused with a `WillsFullError`, or a will is published
        /// before its delay has passed.
        WillsBytes = "wills_bytes",
        /// `mqtt_queue_messages_max` or `mqtt_queue_bytes_max`: a publication for the session is dropped, by
        /// `mqtt_queue_full`.
        MqttQueue = "mqtt_queue",
        /// `mqtt_queues_bytes_max`: a publication for a session is dropped, by `mqtt_queue_full`.
        MqttQueues = "mqtt_queues_bytes",
        /// `mqtt_retained_count_max`: a publication is delivered, and not retained.
        MqttRetainedCount = "mqtt_retained_count",
        /// `mqtt_retained_bytes_max`: a publication is delivered, and not retained.
        MqttRetainedBytes = "mqtt_retained_bytes",
        /// `mqtt_retained_per_subscribe_max`: the subscriber gets no more retained publications for its filter.
        MqttRetainedPerSubscribe = "mqtt_retained_per_subscribe",
        /// `mqtt_sessions_max`: the client is refused.
        MqttSessions = "mqtt_sessions",
        /// More publications with QoS 1 and 2 of an MQTT client in flight than `mqtt_receive_max`: the
        /// connection is closed with reason code 0x93, or they are taken all the same, by
        /// `mqtt_receive_excess`.
        MqttReceiveMaximum = "mqtt_receive",
        /// More User Properties in a packet of an MQTT client than `mqtt_user_properties_max`: the connection
        /// is closed with reason code 0x97.
        MqttUserProperties = "mqtt_user_properties",
        /// A topic filter with more levels than `mqtt_levels_max`: refused with reason code 0x8F.
        MqttLevels = "mqtt_levels",
        /// SUBSCRIBE packets of 4,096 clients of one core wait for the owners of shared subscriptions: the
        /// next is refused.
        MqttJoins = "mqtt_joins",
        /// A will over `will_bytes_max`: refused with an `InvalidArgumentsError`, and an MQTT client with 0x97.
        WillBytes = "will_bytes",
        /// A will with a delay over `will_delay_max_ms`: refused with an `InvalidArgumentsError`; the will of
        /// an MQTT client is published after that time.
        WillDelay = "will_delay",
        /// `service_patterns_max` or `services_per_connection_max`: `$serve` is answered with a `LimitError`.
        ServicePatterns = "service_patterns",
        /// `service_members_max`: `$serve` is answered with a `LimitError`.
        ServiceMembers = "service_members",
        /// `service_calls_per_connection_max` or `service_calls_per_core_max`: the call of a service is answered with a
        /// `ServiceBusyError`.
        ServiceCalls = "service_calls",
        /// `service_call_bytes_per_core_max`: the call of a service is answered with a `ServiceBusyError`.
        ServiceCallBytes = "service_call_bytes",
        /// No service has room for a call, and `queue_calls` or `queue_bytes` of its `[[services]]` wait:
        /// answered with a `ServiceBusyError`; or no service has room for a one-way event, which is dropped.
        ServiceQueue = "service_queue",
        /// A call that a service did not answer within the `timeout_ms` of its `[[services]]`: answered with a
        /// `TimeoutError`.
        ServiceTime = "service_time",
        /// `service_cancel_ms`: a service has not answered a call after `$cancel`, and its window is free for
        /// another one.
        ServiceCancelTime = "service_cancel_time",
    }
}
