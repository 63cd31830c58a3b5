//! Tests of the table over real sockets: the order in which bytes are sent, the bounds on queued bytes, slow peers.

use std::io::Read;
use std::net::{TcpListener, TcpStream as Peer};

use super::flushing::FLUSHES_BETWEEN_LOOKS;
use super::publications::UNFLUSHED_BYTES_MAX;
use super::*;
use crate::cores::outgoing::forms::tests::with_publication;
use crate::protocols::Content;
use crate::transport::port::Port;
use crate::websocket::frame::{self, OpCode};

/// This many connections, and their peers.
fn connected(count: u32) -> (Connections, Vec<Peer>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bounds = Bounds {
        batches: None,
        outbox_bytes_max: 1 << 20,
        held_bytes_max: usize::MAX,
        write_timeout: Duration::ZERO,
    };
    let mut connections = Connections::new(
        &bounds,
        SlowConsumer::Close,
        None,
        None,
        Arc::new(CoreMetrics::default()),
    );
    let peers = (0..count).map(|_| {
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let phase = Phase::Request {
            deadline: Uptime::NEVER,
            port: Port::Main,
            sent_continue: false,
        };
        connections
            .insert(
                TcpStream::from_std(socket),
                ClientAddress::UNKNOWN,
                phase,
                |_, _| Ok(()),
            )
            .unwrap();
        peer
    });
    let peers = peers.collect();
    (connections, peers)
}

/// Delivers one publication, always in the same channel.
fn deliver(connections: &mut Connections, subscribers: &[u32], frame: &[u8]) -> u64 {
    let taken = with_publication(frame, |publication| {
        connections.deliver(subscribers, 0, publication)
    });
    connections.end_publication();
    taken
}

/// The bytes that a peer has been sent.
fn sent(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    peer.set_nonblocking(true).unwrap();
    let count = peer.read(&mut bytes).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

#[test]
fn replies_leave_before_publications_and_those_that_wait_leave_together() {
    let count = 20;
    let (mut connections, mut peers) = connected(count);
    let all: Vec<u32> = (0..count).collect();
    let first = frame_of(b"one");
    assert_eq!(deliver(&mut connections, &all, &first), u64::from(count));
    let end_of_first = connections.end_of_bulk();
    let last = connections.slab[19].id;
    connections.send(last, Content::Text, b"reply");
    connections.flush(|| true);
    let flushed = FLUSHES_BETWEEN_LOOKS;
    for peer in &mut peers[..flushed] {
        assert_eq!(sent(peer), first);
    }
    assert_eq!(sent(&mut peers[19]), [first.clone(), frame_of(b"reply")].concat());
    for peer in &mut peers[flushed..19] {
        assert!(sent(peer).is_empty());
    }
    assert!(connections.has_unflushed() && !connections.has_flushed(end_of_first));

    // The second publication joins the first in outboxes where the first has not left; the place of the reply
    // counts no more.
    let second = frame_of(b"two");
    deliver(&mut connections, &all[..19], &second);
    connections.flush(|| false);
    for peer in &mut peers[flushed..19] {
        assert_eq!(sent(peer), [first.clone(), second.clone()].concat());
    }
    assert_eq!(sent(&mut peers[0]), second);
    assert!(sent(&mut peers[19]).is_empty());
    assert!(!connections.has_unflushed() && connections.has_flushed(end_of_first));
    assert_eq!((connections.queued_bytes, connections.unflushed_bytes), (0, 0));
}

#[test]
fn what_waits_is_bounded_in_bytes_and_the_bound_leaves_room_for_one_of_any_size() {
    let (mut connections, _peers) = connected(2);
    let large = vec![0; UNFLUSHED_BYTES_MAX + 1];
    assert_eq!(connections.room(large.len()), 1);
    assert_eq!(connections.room(UNFLUSHED_BYTES_MAX / 4), 4);
    deliver(&mut connections, &[0], &large);
    assert_eq!(connections.room(1), 0);
    // Bytes that the socket does not take wait for the poll, not for a flush.
    connections.flush(|| false);
    assert!(connections.queued_bytes > 0);
    assert_eq!(connections.room(large.len()), 1);
    // The connection ends once its bytes are sent.
    connections.writable(connections.slab[0].id);
    assert_eq!(connections.unflushed_bytes, connections.queued_bytes);
    connections.remove(connections.slab[0].id);
    assert_eq!((connections.queued_bytes, connections.unflushed_bytes), (0, 0));
}

/// A table with this write timeout, one connection in it whose socket is full, and its peer.
fn blocked(timeout: Duration) -> (Connections, ConnectionId, Peer) {
    let (mut connections, mut peers) = connected(1);
    connections.write_timeout = timeout;
    connections.now = Uptime::from_ms(10_000);
    let id = connections.slab[0].id;
    let large = vec![0; 64 * 1024];
    while connections.blocked.is_empty() {
        connections.send(id, Content::Binary, &large);
        connections.flush(|| false);
    }
    assert_eq!(connections.blocked, [id]);
    (connections, id, peers.remove(0))
}

#[test]
fn a_peer_that_takes_nothing_is_told_from_one_that_reads_slowly() {
    let (mut connections, id, mut peer) = blocked(Duration::from_secs(60));
    let at = |seconds: u64| Uptime::from_ms(10_000 + seconds * 1000);
    let long_ago = Uptime::from_ms(0);
    let deadline = |connections: &Connections| connections.slab[0].outbox.taken_by();
    assert_eq!(deadline(&connections), at(60));
    connections.now = at(59);
    assert!(!connections.takes_nothing(id, long_ago));
    connections.now = at(60);
    assert!(connections.takes_nothing(id, long_ago));
    // This core stood still for a part of that time.
    assert!(!connections.takes_nothing(id, at(5)));
    assert_eq!(deadline(&connections), at(65));
    // The peer reads some bytes, far too few for the socket to report room.
    connections.now = at(65);
    let full = connections.slab[0].stream.unacknowledged_bytes().unwrap();
    let mut room = [0; 1024];
    while connections.slab[0].stream.unacknowledged_bytes().unwrap() == full {
        peer.read_exact(&mut room).unwrap();
    }
    assert!(!connections.takes_nothing(id, long_ago));
    assert_eq!(deadline(&connections), at(125));
    // The system has room again and takes some bytes.
    while connections.slab[0].stream.unacknowledged_bytes().unwrap() > full / 4 {
        peer.read_exact(&mut room).unwrap();
    }
    connections.now = at(100);
    connections.writable(id);
    assert_eq!(
        deadline(&connections),
        Uptime::NEVER,
        "nobody has asked the socket yet"
    );
    while !connections.slab[0].outbox.is_blocked() {
        connections.send(id, Content::Binary, &[0; 64 * 1024]);
        connections.flush(|| false);
    }
    assert_eq!(deadline(&connections), at(160));
    connections.now = at(160);
    assert!(connections.takes_nothing(id, long_ago));
}

fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, OpCode::Text, payload);
    bytes
}
