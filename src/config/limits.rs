//! Every limit that an operator may change: one row for each, with its default and the outcome when it is reached.
//!
//! [`Limit`](crate::decision::Limit) names each bound that can be reached, for
//! `ringcast_limit_hits_total{limit="NAME"}`. Logins are not checked on a core: `ringcast_logins_total{outcome="NAME"}`
//! counts the logins that reach a bound.

use std::time::Duration;

use super::form::{Form, Kind, milliseconds, number, whole_number};
use super::settings::settings;

settings! {
        /// Every limit that an operator may change. Names of rows are the keys of the table `[limits]` of the
        /// configuration
    /// file.
    #[derive(PartialEq, Eq)]
    limits: Limits in table "limits" {
        /// Largest WebSocket message in bytes. A larger one closes its connection with 1009. A core handles a single
        /// packet in one turn: one of 1 MiB of JSON takes 1 to 4 ms of CPU, a smaller one less in proportion; meanwhile
        /// the other clients of its core wait.
        message_bytes_max: u32 = 1024 * 1024, "message_bytes_max", number!(1 to 1073741824);

        /// Largest WebSocket frame in bytes of payload. A larger one closes its connection with 1009. 0 allows frames
        /// as large as messages.
        frame_bytes_max: u32 = 0, "frame_bytes_max", number!(0 to 1073741824);

        /// Most fragments of one message. More of them close the connection with 1008.
        fragments_max: u32 = 16_384, "fragments_max", number!(1 to 4294967295);

        /// Largest HTTP request head in bytes. A larger one is answered 431.
        request_head_bytes_max: u32 = 16 * 1024 + 256, "request_head_bytes_max", number!(256 to 1048576);

        /// Milliseconds from the accept to a complete request head; then the TCP connection is closed.
        request_timeout: Duration = Duration::from_secs(60), "request_timeout_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds from the upgrade to the SocketCluster handshake; then the connection is closed with 4005.
        handshake_timeout: Duration = Duration::from_secs(10), "handshake_timeout_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds for the application to decide about a packet whose decision it has deferred; then the client is
        /// refused with a `TimeoutError`, or with the reason code 0x88 (in CONNACK) or 0x80 if it speaks MQTT.
        decision_timeout: Duration = Duration::from_secs(10), "decision_timeout_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds for a client to authenticate where unauthenticated clients are not served (`allow_anonymous`),
        /// from the handshake or from the end of its last token; then the connection is closed with 4031. 0 sets no
        /// time.
        authentication_timeout: Duration = Duration::from_secs(60), "authentication_timeout_ms",
            milliseconds!(0 to 2147483647);

        /// Largest body of a login in bytes. A larger one is answered 413, or with an `InvalidArgumentsError` if it is
        /// a call.
        login_body_bytes_max: u32 = 4096, "login_body_bytes_max", number!(64 to 65536);

        /// Milliseconds for a client to answer a close frame; then the TCP connection is closed.
        close_timeout: Duration = Duration::from_secs(30), "close_timeout_ms", milliseconds!(1 to 2147483647);

        /// Most connections of the whole server; `accept_excess` says what happens to more. 0 sets no limit beside that
        /// of its cores.
        connections_max: u32 = 0, "connections_max", number!(0 to 4294967295);

        /// Most connections of one client address. An IPv6 network of 64 bits counts as one address, and an IPv4 client
        /// that comes by NAT64, 6to4 or Teredo counts as its IPv4 address. More are answered 429. Connections from
        /// `trusted_proxies` count for the client that the proxy names. 0 sets no limit.
        connections_per_address_max: u32 = 0, "connections_per_address_max", number!(0 to 4294967295);

        /// Most connections accepted in a second, in equal shares for each core, a tenth of them at once;
        /// `accept_excess` says what happens to more. 0 sets no limit.
        accepts_per_second_max: u32 = 0, "accepts_per_second_max", number!(0 to 4294967295);

        /// Bytes of memory in use from which on new connections are answered 503, until use is below 95 % of this. It
        /// counts the memory of the process, TCP buffers, and 4600 bytes for each socket. `auto` is 90 % of the control
        /// group's limit or of the machine's memory; in a control group with a limit, such as a container, `auto`
        /// counts the memory that is charged to the group. `off` sets no limit.
        memory_bytes_max: MemoryMax = MemoryMax::Auto, "memory_bytes_max", MEMORY;

        /// Most connections of one core; `accept_excess` says what happens to more. 0 takes what the limit on open
        /// files allows.
        connections_per_core_max: u32 = 0, "connections_per_core_max", number!(0 to 4294967295);

        /// Most channels of one connection. A further subscribe is answered with a `BrokerError`.
        channels_per_connection_max: u32 = 10_000, "channels_per_connection_max", number!(0 to 4294967295);

        /// Most bytes that the names of one connection's channels take together. A further subscribe is answered with a
        /// `BrokerError`.
        channel_names_bytes_max: u32 = 1024 * 1024, "channel_names_bytes_max", number!(1 to 4294967295);

        /// Most calls from the server that one connection may leave unanswered. A further call is refused, and the
        /// application is told.
        calls_per_connection_max: u32 = 1000, "calls_per_connection_max", number!(0 to 4294967295);

        /// Most timers that the application may have set for one connection. A further one is refused.
        timers_per_connection_max: u32 = 100, "timers_per_connection_max", number!(0 to 1000000);

        /// Most bytes that wait to be sent to one connection; `slow_consumer` says what happens to more. An empty
        /// outbox takes any one message. The default leaves room for a burst of 20,000 messages of 500 bytes.
        outbox_bytes_max: u32 = 16 * 1024 * 1024, "outbox_bytes_max", number!(1 to 1073741824);

        /// Most bytes that all connections together may hold, in equal shares for each core: bytes that wait to be
        /// sent, counted once where connections share them, incomplete messages, and input and decisions that wait.
        /// When it is reached, the connections that hold most are closed with 4010; with `slow_consumer` `skip` or
        /// `conflate`, publications for clients that do not read are skipped or conflated first. `auto` is a quarter of
        /// the control group's limit or of the machine's memory. `off` sets no limit.
        outbox_bytes_total_max: MemoryMax = MemoryMax::Auto, "outbox_bytes_total_max", MEMORY;

        /// Most publications that a client gets from the history of a channel at once. If it has missed more since its
        /// position, it gets none, and the answer to its subscribe says `too many`. If it asks for all since a moment,
        /// it gets the newest of them with that answer. If it asks for the newest, it gets at most so many.
        recovery_publications_max: u32 = 10_000, "recovery_publications_max", number!(1 to 4294967295);

        /// Most bytes of histories that are being sent to subscribers, in equal shares for each core and for 64
        /// subscribers of it, with one publication each at least. They stay in memory until they are sent, even if
        /// their channels have dropped them meanwhile. A subscriber to a longer history gets the beginning first; the
        /// server reads the rest when the beginning has been sent.
        recovery_bytes_max: u64 = 64 * 1024 * 1024, "recovery_bytes_max", number!(65536 to 1099511627776);

        /// Most calls of `$history` that one client may leave open. A further call is answered with an
        /// `InvalidActionError`.
        history_calls_per_connection_max: u32 = 16, "history_calls_per_connection_max", number!(1 to 65536);

        /// Most open calls of `$history` of all clients of one core. With several cores, at most three quarters of them
        /// may be about channels of one core. A further call is answered with an `InvalidActionError`.
        history_calls_per_core_max: u32 = 1024, "history_calls_per_core_max", number!(1 to 65536);

        /// Most patterns that services may register, for each core. A further `$serve` is answered with a `LimitError`.
        service_patterns_max: u32 = 1000, "service_patterns_max", number!(0 to 1000000);

        /// Most services for one pattern. A further `$serve` is answered with a `LimitError`. A call looks at all
        /// services of its pattern.
        service_members_max: u32 = 256, "service_members_max", number!(1 to 65536);

        /// Most patterns that one client may register. A further `$serve` is answered with a `LimitError`.
        services_per_connection_max: u32 = 64, "services_per_connection_max", number!(1 to 65536);

        /// Most calls in flight of one service for a pattern. A service that offers a larger window gets this one.
        service_window_max: u32 = 1024, "service_window_max", number!(1 to 65536);

        /// Milliseconds for which a call still counts in the window of its service after `$cancel`, if the service does
        /// not answer it. Until then the service gets no other call in its place.
        service_cancel_time: Duration = Duration::from_secs(1), "service_cancel_ms", milliseconds!(0 to 60000);

        /// Most calls to services that one client may leave open. A further one is answered with a `ServiceBusyError`.
        service_calls_per_connection_max: u32 = 256, "service_calls_per_connection_max", number!(1 to 65536);

        /// Most open calls to services of all clients of one core. A further one is answered with a `ServiceBusyError`.
        service_calls_per_core_max: u32 = 65_536, "service_calls_per_core_max", number!(1 to 4294967295);

        /// Most bytes of the open calls to services of all clients of one core: names, data and claims. A further call
        /// is answered with a `ServiceBusyError`. If no call is open, a call of any size has room.
        service_call_bytes_per_core_max: u32 = 256 * 1024 * 1024, "service_call_bytes_per_core_max", number!(1 to 4294967295);

        /// Milliseconds for which a client may take none of the bytes that wait for it, even if it answers pings; then
        /// the connection is closed with 4033. A client that reads slowly is not closed. 0 sets no time.
        write_timeout: Duration = Duration::from_secs(60), "write_timeout_ms", milliseconds!(0 to 2147483647);

        /// Most messages a second from one connection in the long run. Control frames count, and each packet of an
        /// array counts once more. A connection over its rate is not read until it is below it again. 0 sets no limit.
        messages_per_second_max: u32 = 0, "messages_per_second_max", number!(0 to 1000000000);

        /// Most bytes a second from one connection in the long run, as they are read from its socket. A connection over
        /// its rate is not read until it is below it again. 0 sets no limit.
        bytes_per_second_max: u64 = 0, "bytes_per_second_max", number!(0 to 1000000000000);

        /// Size of a burst in milliseconds: a connection that was silent may send at once what its rates allow in this
        /// time, and at least one message.
        rate_burst: Duration = Duration::from_secs(1), "rate_burst_ms", milliseconds!(1 to 3600000);

        /// Milliseconds by which the time that a connection was paused for its rates may exceed the time that it was
        /// not; then it is closed with 4029. 0 never closes it.
        rate_grace: Duration = Duration::from_secs(10), "rate_grace_ms", milliseconds!(0 to 2147483647);

        /// Milliseconds without a message in either direction, heartbeats aside; then the connection is closed with
        /// 4030. 0 sets no time.
        idle_timeout: Duration = Duration::ZERO, "idle_timeout_ms", milliseconds!(0 to 2147483647);

        /// Longest name in bytes of a channel that a client subscribes or publishes to. A longer one is answered with
        /// an `InvalidActionError`. MQTT knows no names over 65535 bytes.
        channel_name_bytes_max: u32 = 65_535, "channel_name_bytes_max", number!(1 to 4294967295);

        /// Most calls of one client that the application may leave unanswered. A further call is answered with an
        /// `InvalidActionError`.
        client_calls_max: u32 = 10_000, "client_calls_max", number!(1 to 4294967295);

        /// Most logins that wait for their password to be checked. When another arrives, one login of the network with
        /// most of them is refused: as `busy` if it is the new one, as `displaced` if it waited already.
        logins_waiting_max: u32 = 64, "logins_waiting_max", number!(1 to 4096);

        /// Failed logins of one user from one address that have no consequence. Further logins are refused as
        /// `too_soon`: for 1 s, then for twice as long each time. One address (with any users) may fail 4 times as
        /// often, one user (from any addresses) 20 times as often.
        login_failures_max: u32 = 5, "login_failures_max", number!(1 to 1000000);

        /// Longest time in milliseconds for which logins are refused as `too_soon`.
        login_backoff_max: Duration = Duration::from_secs(900), "login_backoff_ms_max", milliseconds!(1 to 86400000);

        /// Most addresses, and most users, whose failed logins are remembered. The oldest are forgotten first, and
        /// `ringcast_login_accounts_forgotten_total` counts them.
        login_accounts_max: u32 = 65_536, "login_accounts_max", number!(2 to 16777216);

        /// Most log lines a second about refusals (`ringcast::audit`) in the long run, and half as many of one kind.
        /// The rest is counted in `ringcast_audit_left_out_total`. 0 sets no limit.
        audit_lines_per_second_max: u32 = 10, "audit_lines_per_second_max", number!(0 to 1000000);

        /// Most revocations of tokens in force at the same time. A further one is refused, and counted in
        /// `ringcast_revocations_refused_total`.
        revocations_max: u32 = 100_000, "revocations_max", number!(1 to 1000000);

        /// Largest body of a request to the HTTP API in bytes. A larger one is answered 413.
        api_body_bytes_max: u32 = 1024 * 1024, "api_body_bytes_max", number!(1024 to 67108864);

        /// Most publications, channels or other items of one request to the HTTP API, and of one page of an answer.
        /// More in a request are answered 413.
        api_items_max: u32 = 1000, "api_items_max", number!(1 to 100000);

        /// Most idempotency keys that the HTTP API remembers. While it remembers as many, a request with another key is
        /// answered 503.
        api_idempotency_keys_max: u32 = 100_000, "api_idempotency_keys_max", number!(1 to 10000000);

        /// Milliseconds for which the HTTP API remembers an idempotency key.
        api_idempotency: Duration = Duration::from_secs(600), "api_idempotency_ms", milliseconds!(1000 to 86400000);

        /// Most members of the channels with presence, for each core. A further connection of a member counts as one
        /// more, and so do each further 256 bytes of its name and info. A further client is subscribed, but is no
        /// member; a further info is refused.
        presence_members_max: u32 = 250_000, "presence_members_max", number!(1 to 4294967295);

        /// Most bytes of the info that a client sets about itself as a member of a channel. A larger one is answered
        /// with an `InvalidArgumentsError`.
        presence_info_bytes_max: u32 = 1024, "presence_info_bytes_max", number!(0 to 65536);

        /// Most calls about presence that one client may leave open. A further call is answered with a `BusyError`.
        presence_calls_per_connection_max: u32 = 32, "presence_calls_per_connection_max", number!(1 to 65536);

        /// Most open calls about presence of all clients of one core. With several cores, at most three quarters of
        /// them may be about channels of one core. A further call is answered with a `BusyError`.
        presence_calls_per_core_max: u32 = 4096, "presence_calls_per_core_max", number!(1 to 65536);

        /// Milliseconds for which a user remains a member of a channel after the last connection has ended. A user that
        /// comes back in that time has neither left nor joined.
        presence_grace: Duration = Duration::from_secs(5), "presence_grace_ms", milliseconds!(0 to 86400000);

        /// Milliseconds from a change of the members of a channel to the event about it. All changes within this time
        /// make one event.
        presence_tick: Duration = Duration::from_millis(500), "presence_tick_ms", milliseconds!(10 to 3600000);

        /// Number of members of a channel above which its events may leave out some of the members that have joined or
        /// left.
        presence_sampled_over: u32 = 1000, "presence_sampled_over", number!(1 to 65536);

        /// Publications that the ring holds, rounded up to a power of two. While it is full, publishers wait.
        ring_slots: u32 = 65_536, "ring_slots", number!(2 to 16777216);

        /// Most bytes of publications in the ring, in equal shares for each core. While a core's share is full, its
        /// publishers wait.
        ring_bytes_max: u64 = 64 * 1024 * 1024, "ring_bytes_max", number!(65536 to 1099511627776);

        /// Most bytes in the ring of publications by the HTTP API and by the program that embeds the server. They may
        /// take half of `ring_slots` at most. A publication that finds no room within a second is refused, and counted
        /// in `ringcast_outside_publications_refused_total`.
        outside_bytes_max: u64 = 16 * 1024 * 1024, "outside_bytes_max", number!(65536 to 1099511627776);

        /// Most subscribers of the program that embeds the server (`Handle::subscribe`). A further one is refused with
        /// `HandleError::Busy`. Each publication for one of them costs time in proportion to their number.
        program_subscribers_max: u32 = 1024, "program_subscribers_max", number!(0 to 65536);

        /// Most bytes of publications that wait for one subscriber of the program. Further ones are left out, and the
        /// program is told how many.
        subscriber_queue_bytes_max: u64 = 16 * 1024 * 1024, "subscriber_queue_bytes_max", number!(1 to 1099511627776);

        /// Most bytes of remembered publications of all channels with a history or a last value (`[[channels]]`), in
        /// equal shares for each core. 48 bytes for each publication and 512 for each channel count, too. When it is
        /// reached, the oldest publications of all channels are dropped first, and `ringcast_history_evicted_total`
        /// counts them.
        history_bytes_max: u64 = 256 * 1024 * 1024, "history_bytes_max", number!(65536 to 1099511627776);

        /// Most channels whose publications are remembered, in equal shares for each core. When it is reached, the
        /// server forgets the channel that has had no publication for the longest time, and
        /// `ringcast_history_evicted_total` counts its publications.
        history_channels_max: u32 = 100_000, "history_channels_max", number!(1 to 4294967295);

        /// Largest size in bytes of the file in `data_dir`. Its content may take two fifths of that, because removing
        /// entries needs room, too. When little room is left, `store_mode` `strict` refuses publications that it would
        /// have to store; removing entries is always possible. 0 sets no limit.
        store_bytes_max: u64 = 0, "store_bytes_max", number!(0 to 1099511627776);

        /// Most bytes of changes that wait to be committed to `data_dir`, in equal shares for each core. While a share
        /// is full, `store_mode` `relaxed` keeps further publications in memory only, and `strict` lets their
        /// publishers wait.
        store_queue_bytes_max: u64 = 64 * 1024 * 1024, "store_queue_bytes_max", number!(65536 to 1099511627776);

        /// Most events for webhooks that wait to be sorted by webhook, from all cores together. Further ones are
        /// dropped, and counted in `ringcast_webhook_lost_total`.
        webhook_events_waiting_max: u32 = 65_536, "webhook_events_waiting_max", number!(1 to 16777216);

        /// Most bytes of events in memory for all webhooks together. Further ones are dropped, and counted in
        /// `ringcast_webhook_lost_total` or `ringcast_webhook_dropped_total`.
        webhook_bytes_max: u64 = 64 * 1024 * 1024, "webhook_bytes_max", number!(65536 to 1099511627776);

        /// Milliseconds from the end of the last subscription to a channel to the event `channel_vacated` for webhooks.
        /// If the channel gets a subscriber within this time, there is no event. 0 sends it at once.
        webhook_vacated_delay: Duration = Duration::from_secs(1), "webhook_vacated_delay_ms", milliseconds!(0 to 3600000);

        /// Most bytes, for each core, of publications that wait for space in the ring after their publisher has
        /// disconnected without an acknowledgement. Further ones are dropped.
        abandoned_bytes_max: u32 = 16 * 1024 * 1024, "abandoned_bytes_max", number!(0 to 4294967295);

        /// Most bytes, for each core, of the wills of its connections, and of the wills that wait there for their
        /// delays. A further will is refused with a `WillsFullError`; a further will that would wait is published at
        /// once. 0 switches wills off: `$will` goes to the application.
        wills_bytes_max: u32 = 16 * 1024 * 1024, "wills_bytes_max", number!(0 to 4294967295);

        /// Most bytes of the channel and the data of one will, or of the topic, the payload and the properties of the
        /// will of an MQTT client. A longer one is refused with an `InvalidArgumentsError`, and an MQTT client with
        /// 0x97.
        will_bytes_max: u32 = 64 * 1024, "will_bytes_max", number!(1 to 4294967295);

        /// Longest delay of a will in milliseconds. A longer one is refused with an `InvalidArgumentsError`.
        will_delay_max: Duration = Duration::from_secs(86_400), "will_delay_max_ms", milliseconds!(0 to 2147483647);
    }
}

const MEMORY: Form<MemoryMax> = Form {
    kind: Kind::TextOrNumber,
    expects: "off, auto, or a whole number of bytes from 1048576 to 1099511627776",
    parse: |text| {
        Some(match text {
            "off" => MemoryMax::Off,
            "auto" => MemoryMax::Auto,
            bytes => MemoryMax::Bytes(whole_number(bytes, 1_048_576, 1_099_511_627_776)?),
        })
    },
    show: |max| match max {
        MemoryMax::Off => "off".to_owned(),
        MemoryMax::Auto => "auto".to_owned(),
        MemoryMax::Bytes(bytes) => bytes.to_string(),
    },
};

/// A limit on memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryMax {
    /// No limit.
    Off,
    /// A part of the memory that this process may have, which is its control group's limit or the machine's memory: 90
    /// % for `memory_bytes_max`, a quarter for `outbox_bytes_total_max`.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(u64),
}
