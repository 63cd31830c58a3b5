//! Tests of one outbox against a socket that takes as many bytes as a test allows.

use super::*;
use crate::websocket::deflate::Compression;
use crate::websocket::frame;
use crate::websocket::frame::OpCode;

/// Takes `room` bytes, then blocks.
struct Socket {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = bytes.len().min(self.room);
        if written == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= written;
        self.taken.extend_from_slice(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FRAMING: Framing = Framing::WebSocket(Compression::Off);

/// An unmasked text frame with a short payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, u8::try_from(payload.len()).unwrap()];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn a_sealed_outbox_sends_what_it_has_and_takes_no_publication() {
    let (mut pool, mut socket) = (
        FramePool::default(),
        Socket {
            taken: Vec::new(),
            room: usize::MAX,
        },
    );
    let publication = pool.shared.write(1, &frame(b"news")).expect("the pool is empty");
    for waits in ["nothing", "a publication", "a reply"] {
        let mut outbox = Outbox::default();
        match waits {
            "a publication" => outbox.push_shared(&mut pool, publication),
            "a reply" => outbox.push(&mut pool, |bytes| bytes.extend(frame(b"reply"))),
            _ => {}
        }
        let waiting = outbox.len();
        outbox.stop_publications(&mut pool);
        for is_sent in [false, true] {
            assert!(
                outbox.takes_no_publications() && !outbox.takes(1, usize::MAX),
                "{waits}"
            );
            assert!(
                !outbox.try_share(&mut pool.shared, publication, usize::MAX),
                "{waits}"
            );
            if !is_sent {
                outbox.push(&mut pool, |bytes| bytes.extend(frame(b"bye")));
                assert_eq!(outbox.len(), waiting + frame(b"bye").len());
                outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
                assert!(outbox.is_empty());
            }
        }
        outbox.resume_publications();
        assert!(outbox.is_empty() && outbox.takes(1, usize::MAX));
    }
    let mut wanted = Vec::new();
    for payload in [&b"bye"[..], b"news", b"bye", b"reply", b"bye"] {
        wanted.extend(frame(payload));
    }
    assert_eq!(socket.taken, wanted);
    pool.shared.finish(publication);
}

#[test]
fn bytes_leave_in_order_however_little_the_socket_takes() {
    for step in 1..20 {
        let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
        let mut wanted = Vec::new();
        let mut socket = Socket {
            taken: Vec::new(),
            room: 0,
        };
        for payload in [&b"one"[..], b"", b"three"] {
            wanted.extend(frame(payload));
            outbox.push(&mut pool, |bytes| bytes.extend(frame(payload)));
            socket.room = step;
            outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
        }
        while !outbox.is_empty() {
            assert!(outbox.is_blocked());
            outbox.unblock();
            socket.room = step;
            outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
        }
        assert_eq!(socket.taken, wanted);
    }
}

thread_local! {
    /// Bytes that outboxes of this thread have moved within memory.
    pub(super) static MOVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Queued bytes may be moved once. Writes do not move the backlog of a reader that takes little at a time:
/// when they did, 16 MB cost 20 times as much as 4 MB.
#[test]
fn the_bytes_moved_while_a_backlog_drains_grow_no_faster_than_the_backlog() {
    for frame_bytes in [100, 5000, 70_000] {
        for queued in [300_000, 1_200_000, 4_800_000] {
            for room in [5000, 64 * 1024, 300_000] {
                let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
                let payload = vec![b'x'; frame_bytes];
                let mut socket = Socket {
                    taken: Vec::new(),
                    room: 0,
                };
                MOVED.set(0);
                let mut pushed = 0;
                while pushed < queued {
                    let before = outbox.len();
                    outbox.push(&mut pool, |bytes| frame::write(bytes, OpCode::Text, &payload));
                    pushed += outbox.len() - before;
                }
                while !outbox.is_empty() {
                    outbox.unblock();
                    socket.room = room;
                    outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
                }
                assert_eq!(socket.taken.len(), pushed);
                let moved = MOVED.get();
                assert!(
                    moved <= 2 * pushed,
                    "{moved} bytes moved for {pushed} in frames of {frame_bytes}, {room} at a time"
                );
            }
        }
    }
}

#[test]
fn what_is_shared_leaves_in_order_with_what_is_not_and_nothing_stays_held() {
    // p and q are publications of two channels, l is a long one, r a reply, f a flush.
    for kinds in [
        "p",
        "pp",
        "ppp",
        "pr",
        "rp",
        "prp",
        "pq",
        "pqp",
        "ppqr",
        "pfp",
        "ppfpqf",
        "prfpp",
        "l",
        "ll",
        "pl",
        "lp",
        "rl",
        "lr",
        "lrl",
        "lfl",
        "plfrlfp",
        "llfrplffffl",
    ] {
        for step in [1, 3, 7, 1000, 5000] {
            if step < 100 && kinds.contains('l') {
                continue;
            }
            let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
            let mut socket = Socket {
                taken: Vec::new(),
                room: 0,
            };
            let mut wanted = Vec::new();
            for (index, kind) in kinds.bytes().enumerate() {
                let mut bytes = frame(format!("{}{index}", char::from(kind)).as_bytes());
                if kind == b'l' {
                    bytes.clear();
                    frame::write(
                        &mut bytes,
                        OpCode::Text,
                        &[b'0' + u8::try_from(index).unwrap(); 6000],
                    );
                }
                match kind {
                    b'f' => {
                        outbox.unblock();
                        socket.room = step;
                        outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
                        continue;
                    }
                    b'r' => outbox.push(&mut pool, |out| out.extend_from_slice(&bytes)),
                    _ => {
                        let span = pool.shared.write(u32::from(kind), &bytes).unwrap();
                        outbox.push_shared(&mut pool, span);
                        pool.shared.finish(span);
                    }
                }
                wanted.extend_from_slice(&bytes);
                assert_eq!(socket.taken.len() + outbox.len(), wanted.len());
            }
            while !outbox.is_empty() {
                outbox.unblock();
                socket.room = step;
                outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
            }
            assert_eq!(socket.taken, wanted, "{kinds}, {step} bytes at a time");
            assert_eq!((pool.shared.held(), pool.shared.lent_bytes()), (0, 0));
        }
    }
}

#[test]
fn what_is_discarded_of_a_long_outbox_is_let_go_and_a_frame_that_has_begun_is_kept() {
    for sent in [0, 1, 6003, 6004, 6005, 6009, 6010, 12_000, 12_013] {
        let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
        let mut long = Vec::new();
        frame::write(&mut long, OpCode::Text, &[b'l'; 6000]);
        assert_eq!(long.len(), 6004);
        let span = pool.shared.write(1, &long).unwrap();
        outbox.push_shared(&mut pool, span);
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"four")));
        outbox.push_shared(&mut pool, span);
        pool.shared.finish(span);
        let mut socket = Socket {
            taken: Vec::new(),
            room: sent,
        };
        outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
        outbox.discard_unsent_frames(&mut pool);
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"end")));
        outbox.unblock();
        socket.room = usize::MAX;
        assert_eq!(
            outbox.flush(FRAMING, &mut socket, &mut pool).unwrap().1,
            Flush::Empty
        );
        let all = [&long[..], &frame(b"four"), &long].concat();
        let ends = [0, 6004, 6010, 12_014];
        let begun = ends.into_iter().find(|&end| end >= sent).unwrap();
        assert_eq!(socket.taken, [&all[..begun], &frame(b"end")].concat(), "{sent}");
        assert_eq!((pool.shared.held(), pool.shared.alone_bytes()), (0, 0));
    }
}

#[test]
fn of_a_long_publication_slow_readers_keep_one_copy() {
    let mut pool = FramePool::default();
    let mut outboxes: Vec<_> = (0..100).map(|_| Outbox::default()).collect();
    let mut long = Vec::new();
    frame::write(&mut long, OpCode::Text, &[b'l'; 16_000]);
    for _ in 0..10 {
        let span = pool.shared.write(1, &long).unwrap();
        for outbox in &mut outboxes {
            outbox.push_shared(&mut pool, span);
            let mut socket = Socket {
                taken: Vec::new(),
                room: 10,
            };
            outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
        }
        pool.shared.finish(span);
    }
    let waiting: usize = outboxes.iter().map(Outbox::len).sum();
    assert_eq!(
        (waiting, pool.shared.lent_bytes()),
        (100 * 10 * (16_004 - 10), waiting)
    );
    assert_eq!(pool.shared.alone_bytes(), 10 * 16_004);
    let own = |outbox: &Outbox| outbox.queued().map_or(0, |queued| queued.bytes.len());
    assert_eq!(outboxes.iter().map(own).sum::<usize>(), 0);
    outboxes.iter_mut().for_each(|outbox| outbox.release(&mut pool));
    assert_eq!(pool.shared.alone_bytes(), 0);
}

#[test]
fn publications_of_one_channel_that_wait_need_no_buffer_of_their_own() {
    let (mut outboxes, mut pool) = ([(); 3].map(|()| Outbox::default()), FramePool::default());
    for payload in [b"one", b"two"] {
        let span = pool.shared.write(5, &frame(payload)).unwrap();
        for outbox in &mut outboxes {
            outbox.push_shared(&mut pool, span);
        }
        pool.shared.finish(span);
    }
    assert!(outboxes.iter().all(|outbox| matches!(outbox, Outbox::Shared(_))));
    assert_eq!(pool.shared.held(), 3);
    let mut socket = Socket {
        taken: Vec::new(),
        room: 1000,
    };
    outboxes[0].discard_unsent_frames(&mut pool);
    outboxes[1].release(&mut pool);
    assert_eq!(
        outboxes[2].flush(FRAMING, &mut socket, &mut pool).unwrap(),
        (10, Flush::Empty)
    );
    assert_eq!(socket.taken, [frame(b"one"), frame(b"two")].concat());
    assert_eq!(pool.shared.held(), 0);
}

#[test]
fn discarding_keeps_the_rest_of_a_frame_that_has_begun_to_leave() {
    for sent in 0..12 {
        let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"def")));
        let mut socket = Socket {
            taken: Vec::new(),
            room: sent,
        };
        let all = outbox.flush(FRAMING, &mut socket, &mut pool).unwrap().1 == Flush::Empty;
        assert_eq!(all, sent >= 10);
        outbox.discard_unsent_frames(&mut pool);
        outbox.push(&mut pool, |bytes| bytes.extend(frame(b"end")));
        socket.room = usize::MAX;
        outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
        let whole = |count| [frame(b"abc"), frame(b"def")].concat()[..count].to_vec();
        let begun = if sent == 0 {
            0
        } else if sent <= 5 {
            5
        } else {
            10
        };
        assert_eq!(
            socket.taken,
            [whole(begun), frame(b"end")].concat(),
            "{sent} bytes sent"
        );
    }
}

#[test]
fn a_response_head_is_never_discarded_in_part() {
    let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
    outbox.push_head(&mut pool, |bytes| bytes.extend(b"HTTP/1.1 101\r\n\r\n"));
    outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
    let mut socket = Socket {
        taken: Vec::new(),
        room: 4,
    };
    outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
    outbox.discard_unsent_frames(&mut pool);
    socket.room = 100;
    outbox.flush(FRAMING, &mut socket, &mut pool).unwrap();
    assert_eq!(socket.taken, b"HTTP/1.1 101\r\n\r\n");
}

#[test]
fn an_empty_outbox_owns_no_buffer_and_the_pool_lends_it_again() {
    let (mut outbox, mut pool) = (Outbox::default(), FramePool::default());
    outbox.push(&mut pool, |bytes| bytes.extend(frame(b"abc")));
    let mut socket = Socket {
        taken: Vec::new(),
        room: 100,
    };
    assert_eq!(
        outbox.flush(FRAMING, &mut socket, &mut pool).unwrap(),
        (5, Flush::Empty)
    );
    assert!(outbox.is_empty());
    assert_eq!((size_of::<Outbox>(), pool.free.len()), (16, 1));
}
