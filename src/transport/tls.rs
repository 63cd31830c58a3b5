//! TLS for one connection, without I/O of its own (rustls's unbuffered interface).
//!
//! Records are read into a buffer of the core and written from one. A connection keeps only the bytes of an
//! incomplete received record, and of records that the socket has not accepted completely. An idle connection
//! keeps none.
//!
//! ```text
//!   socket ──► records ──process──► room (plaintext)          bytes ──encrypt──► records ──► socket
//!                 └─ rest ─► incoming                                       └─ rest ─► outgoing
//! ```
//!
//! Invariants
//! 1. [`TlsStream::write`] counts bytes as written once the socket has accepted all of their records. Bytes
//!    that are encrypted but not accepted yet are `held`: the next call must pass the same bytes first, and
//!    does not encrypt them again. So an outbox still counts them as waiting, and the end of the connection
//!    comes after them.
//! 2. Records leave in the order in which they were encrypted: nothing is encrypted into another buffer while
//!    `outgoing` is not empty.
//! 3. rustls always gets the unprocessed bytes of earlier reads at the same address, followed by the new
//!    ones, since it keeps positions in them.
//! 4. `incoming` is bounded by [`INCOMING_BYTES_MAX`], `outgoing` by one chunk of plaintext and the messages
//!    of a handshake.
//!
//! Not here: certificates and settings (`policy/tls`), budgets of time (`cores/turn.rs`).

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{Error, HandshakeKind, InvalidMessage, ServerConfig};
use tracing::debug;

use super::stream::{Arrival, Taken};

/// The TLS state of one connection.
pub(crate) struct TlsStream {
    connection: UnbufferedServerConnection,
    /// The bytes of an incomplete record.
    incoming: Vec<u8>,
    /// Records, of which the socket has accepted `sent` bytes.
    outgoing: Vec<u8>,
    sent: usize,
    /// Bytes that the socket has accepted since the last `take_written`.
    written: usize,
    /// How many bytes of plaintext the last records in `outgoing` are made of.
    held: usize,
    handshake: Handshake,
    state: PeerState,
    close_notify_sent: bool,
}

/// The state of the handshake, and whether its end has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    InProgress,
    Done,
    Reported,
}

/// Whether data from the peer can still be decrypted.
#[derive(Debug)]
enum PeerState {
    Alive,
    /// The peer has sent `close_notify`.
    PeerClosed,
    /// The peer has sent invalid data. This is reported after the data before it.
    Broken(Box<Error>),
    /// The error has been reported; further data is discarded.
    Reported,
}

/// Why TLS fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) failure: Failure,
    /// True if the handshake was in progress.
    pub(crate) in_handshake: bool,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No common version, suite, group or signature scheme.
    Incompatible,
    /// The peer supports none of the application protocols of this server.
    Protocol,
    /// The peer's certificate is missing or not valid.
    Certificate,
    /// The peer has sent an alert that ends the connection.
    Refused,
    /// It is not TLS, or violates its rules.
    Malformed,
}

/// How a handshake was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// With a signature by this server.
    Full,
    /// With a ticket that this server issued earlier.
    Resumed,
}

/// Writes plaintext through TLS to a socket.
#[derive(Debug)]
pub(crate) struct Writer<'a, S> {
    tls: &'a mut TlsStream,
    socket: &'a mut S,
    records: &'a mut Vec<u8>,
}

impl TlsStream {
    /// The server's end of a connection.
    pub(crate) fn accept(config: Arc<ServerConfig>) -> Result<TlsStream, Error> {
        Ok(TlsStream {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            written: 0,
            held: 0,
            handshake: Handshake::InProgress,
            state: PeerState::Alive,
            close_notify_sent: false,
        })
    }

    /// Processes the first bytes, which were read before they were known to be TLS. Returns the failure if
    /// TLS ends at once.
    pub(crate) fn process_first(&mut self, bytes: &[u8]) -> Option<Broken> {
        let mut records = bytes.to_vec();
        // Neither side can encrypt yet: a handshake needs at least one message of this server.
        self.decrypt(&mut records, &mut []);
        self.take_failure()
    }

    /// As [`super::stream::Stream::read`].
    pub(crate) fn read(
        &mut self,
        socket: &mut impl Read,
        wire_max: usize,
        room: &mut [u8],
        records: &mut Vec<u8>,
    ) -> io::Result<Arrival> {
        if let Some(broken) = self.take_failure() {
            return Ok(Arrival::Broken(broken));
        }
        match self.state {
            PeerState::Alive | PeerState::Broken(_) => {}
            PeerState::PeerClosed => return Ok(Arrival::End),
            PeerState::Reported => return discard(socket, wire_max, room),
        }
        let before = self.incoming.len();
        let wire_max = wire_max
            .saturating_sub(before)
            .max(RECORD_BYTES_MAX)
            .min(room.len() - before);
        if records.len() < before + wire_max {
            records.resize(before + wire_max, 0);
        }
        records[..before].copy_from_slice(&self.incoming);
        let wire = socket.read(&mut records[before..before + wire_max])?;
        if wire == 0 {
            return Ok(Arrival::End);
        }
        let count = self.decrypt(&mut records[..before + wire], room);
        Ok(Arrival::Bytes(Taken {
            count,
            wire,
            more: wire == wire_max || !matches!(self.state, PeerState::Alive),
            has_tls_work: !self.outgoing.is_empty() || self.handshake == Handshake::Done,
        }))
    }

    /// Processes records. Plaintext is written to the beginning of `room`, and incomplete records are kept.
    /// Returns the number of bytes of plaintext.
    fn decrypt(&mut self, records: &mut [u8], room: &mut [u8]) -> usize {
        let (mut at, mut filled) = (0, 0);
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut records[at..]);
            let mut is_over = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        let end = filled + record.payload.len();
                        // Plaintext is shorter than its records, and the room is as long as those.
                        debug_assert!(end <= room.len(), "{end} bytes in a room of {}", room.len());
                        if let Some(place) = room.get_mut(filled..end) {
                            place.copy_from_slice(record.payload);
                            filled = end;
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.state = PeerState::PeerClosed;
                    // Data after it is ignored (RFC 8446 section 6.1).
                    at = records.len();
                    break;
                }
                // Needs more data. (Early data is off, and there are no other states.)
                Ok(_) => is_over = true,
                Err(error) => {
                    self.fail(error, &mut records[at + discard..]);
                    return filled;
                }
            }
            at += discard;
            if is_over {
                break;
            }
        }
        if self.handshake == Handshake::InProgress && !self.connection.is_handshaking() {
            self.handshake = Handshake::Done;
        }
        let rest = &mut records[at..];
        if rest.len() > INCOMING_BYTES_MAX {
            let too_large = InvalidMessage::HandshakePayloadTooLarge;
            self.fail(Error::InvalidMessage(too_large), rest);
        } else if !rest.is_empty() {
            self.incoming = rest.to_vec();
        } else if !self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        filled
    }

    /// The failure, returned only once.
    fn take_failure(&mut self) -> Option<Broken> {
        let PeerState::Broken(error) = &self.state else {
            return None;
        };
        debug!("TLS ends: {error}");
        let broken = Broken {
            failure: Failure::of(error),
            in_handshake: self.connection.is_handshaking(),
        };
        self.state = PeerState::Reported;
        Some(broken)
    }

    /// Data from the peer can no longer be decrypted: collects the alert to send.
    fn fail(&mut self, error: Error, rest: &mut [u8]) {
        self.incoming = Vec::new();
        self.state = PeerState::Broken(Box::new(error));
        self.close_notify_sent = true;
        // rustls ignores received data as long as there is something to write.
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = self.connection.process_tls_records(rest).state
        {
            encode(data, &mut self.outgoing);
        }
    }

    /// Writes plaintext: see invariant 1. Without bytes it writes only waiting records. One system call for
    /// each [`CHUNK_BYTES`].
    fn write(&mut self, socket: &mut impl Write, bytes: &[u8], records: &mut Vec<u8>) -> io::Result<usize> {
        if self.held > 0 || bytes.is_empty() {
            self.flush_outgoing(socket)?;
        }
        if !self.can_decrypt() {
            // After the alert nothing may be sent.
            self.held = 0;
            self.flush_outgoing(socket)?;
            return Ok(bytes.len());
        }
        let mut written = std::mem::take(&mut self.held);
        while written < bytes.len() {
            let chunk = &bytes[written..bytes.len().min(written + CHUNK_BYTES)];
            match self.encrypt_and_send(chunk, records, socket) {
                Ok(()) => written += chunk.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.held = chunk.len();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if written == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(written)
    }

    /// Encrypts and sends a chunk; `WouldBlock` if the socket has not accepted all of it.
    fn encrypt_and_send(
        &mut self,
        chunk: &[u8],
        records: &mut Vec<u8>,
        socket: &mut impl Write,
    ) -> io::Result<()> {
        let encrypted = loop {
            match process(&mut self.connection, &mut self.incoming) {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    if records.len() < CHUNK_RECORDS_BYTES_MAX {
                        records.resize(CHUNK_RECORDS_BYTES_MAX, 0);
                    }
                    break match traffic.encrypt(chunk, records) {
                        Ok(count) => count,
                        Err(EncryptError::InsufficientSize(missing)) => {
                            records.resize(missing.required_size, 0);
                            continue;
                        }
                        Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
                    };
                }
                // The handshake is not complete, or this end has sent `close_notify`.
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        if self.outgoing.is_empty() {
            // The usual case: nothing was waiting, and the socket accepts everything.
            let sent = write_once(socket, &records[..encrypted])?;
            self.written += sent;
            self.outgoing.extend_from_slice(&records[sent..encrypted]);
            return blocked_unless(sent == encrypted);
        }
        self.outgoing.extend_from_slice(&records[..encrypted]);
        self.flush_outgoing(socket)
    }

    /// Sends waiting records; `WouldBlock` if the socket has not accepted all of them.
    fn flush_outgoing(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let sent = write_once(socket, &self.outgoing[self.sent..])?;
        self.written += sent;
        self.sent += sent;
        if self.sent == self.outgoing.len() {
            (self.outgoing, self.sent) = (Vec::new(), 0);
        }
        blocked_unless(self.outgoing.is_empty())
    }

    /// Sends `close_notify` once, after the waiting records; `WouldBlock` if the socket has not accepted all
    /// of it.
    pub(super) fn send_close_notify(&mut self, socket: &mut impl Write) -> io::Result<()> {
        if !self.close_notify_sent && !self.is_handshaking() {
            self.close_notify_sent = true;
            while let Ok(state) = process(&mut self.connection, &mut self.incoming) {
                match state {
                    ConnectionState::EncodeTlsData(data) => encode(data, &mut self.outgoing),
                    ConnectionState::TransmitTlsData(data) => data.done(),
                    ConnectionState::WriteTraffic(mut traffic) => {
                        let mut alert = [0; ALERT_BYTES_MAX];
                        // A buffer of this size is never too small.
                        let count = traffic.queue_close_notify(&mut alert).unwrap_or(0);
                        self.outgoing.extend_from_slice(&alert[..count]);
                        break;
                    }
                    _ => break,
                }
            }
        }
        self.flush_outgoing(socket)
    }

    /// A writer of plaintext. `records` is the core's buffer for encrypted data.
    pub(crate) fn writer<'a, S: Write>(
        &'a mut self,
        socket: &'a mut S,
        records: &'a mut Vec<u8>,
    ) -> Writer<'a, S> {
        Writer {
            tls: self,
            socket,
            records,
        }
    }

    /// Bytes of plaintext that must be passed again: see invariant 1.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Bytes that the socket has accepted since the last call: those of records, and of a handshake.
    pub(crate) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }

    /// Bytes of incomplete received records, and of records that the socket has not accepted.
    pub(super) fn kept_bytes(&self) -> usize {
        self.incoming.len() + self.outgoing.len() - self.sent
    }

    /// True if records wait that contain no plaintext of the application.
    pub(crate) fn has_own_records(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// True while the handshake is in progress.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.can_decrypt() && self.connection.is_handshaking()
    }

    fn can_decrypt(&self) -> bool {
        matches!(self.state, PeerState::Alive | PeerState::PeerClosed)
    }

    /// How the handshake was completed. Returned only once, by the first call after its end.
    pub(crate) fn take_completed(&mut self) -> Option<Completed> {
        if self.handshake != Handshake::Done {
            return None;
        }
        self.handshake = Handshake::Reported;
        Some(match self.connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Completed::Resumed,
            Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => Completed::Full,
        })
    }

    /// The verified certificates of the peer, its own first.
    pub(crate) fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }
}

impl Failure {
    fn of(error: &Error) -> Failure {
        match error {
            Error::PeerIncompatible(_) => Failure::Incompatible,
            Error::NoApplicationProtocol => Failure::Protocol,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Failure::Certificate,
            Error::AlertReceived(_) => Failure::Refused,
            _ => Failure::Malformed,
        }
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("handshake", &self.handshake)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl<S: Write> Write for Writer<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tls.write(self.socket, bytes, self.records)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Continues without new data. `incoming` holds less than one complete message, and rustls remembers its
/// position in it, so it must get the same bytes again.
fn process<'c>(
    connection: &'c mut UnbufferedServerConnection,
    incoming: &'c mut [u8],
) -> Result<ConnectionState<'c, 'c, ServerConnectionData>, Error> {
    let UnbufferedStatus { discard, state, .. } = connection.process_tls_records(incoming);
    debug_assert_eq!(discard, 0, "all complete records have been processed");
    state
}

/// Appends a handshake message or an alert.
fn encode<T>(mut data: EncodeTlsData<'_, T>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    // The first attempt, without a buffer, returns the needed size.
    if let Err(EncodeError::InsufficientSize(missing)) = data.encode(&mut []) {
        outgoing.resize(start + missing.required_size, 0);
        let encoded = data.encode(&mut outgoing[start..]).unwrap_or(0);
        outgoing.truncate(start + encoded);
    }
}

/// Writes with one call; returns how many bytes the socket has accepted, possibly none.
fn write_once(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn blocked_unless(all_left: bool) -> io::Result<()> {
    if all_left {
        Ok(())
    } else {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Reads and discards data that can no longer be decrypted.
fn discard(socket: &mut impl Read, wire_max: usize, room: &mut [u8]) -> io::Result<Arrival> {
    let wire = socket.read(&mut room[..wire_max])?;
    if wire == 0 {
        return Ok(Arrival::End);
    }
    Ok(Arrival::Bytes(Taken {
        count: 0,
        wire,
        more: wire == wire_max,
        has_tls_work: false,
    }))
}

/// The longest record (RFC 8446 section 5.2, RFC 5246 section 6.2.3): its header, and 2^14 bytes with the
/// overhead of encryption.
const RECORD_BYTES_MAX: usize = 5 + 16_384 + 2048;
/// Most bytes that are kept of an incomplete record or handshake message. A handshake with client
/// certificates takes some kilobytes.
const INCOMING_BYTES_MAX: usize = 32 * 1024;
/// A read needs room for the kept bytes and one more record.
pub(crate) const ROOM_BYTES_MIN: usize = INCOMING_BYTES_MAX + RECORD_BYTES_MAX;
/// Most plaintext that is encrypted before the socket accepts it: what a slow reader may cost in addition to
/// its outbox.
const CHUNK_BYTES: usize = 32 * 1024;
/// A chunk in records, and other messages of rustls.
const CHUNK_RECORDS_BYTES_MAX: usize = CHUNK_BYTES + 1024;
/// An alert in a record.
const ALERT_BYTES_MAX: usize = 256;
