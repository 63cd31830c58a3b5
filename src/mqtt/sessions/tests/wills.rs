//! Wills: published after their delays or at the end of their sessions, and cancelled by clients that resume
//! their sessions.

use super::*;

#[test]
fn a_will_is_published_after_its_delay_or_with_the_end_of_the_session() {
    // Traps 5 and 6, and MQTT-3.1.3-9.
    for (expiry_s, delay_s, at) in [
        (0, 0, 0),
        (0, 30, 0),
        (5, 30, 5),
        (30, 5, 5),
        (NEVER, 5, 5),
        (5, 5, 5),
        (5, NEVER, 5),
    ] {
        let mut sessions = sessions(BOUNDS);
        let connect = Connect {
            expiry_s,
            will: will(delay_s),
            ..by("c", 1)
        };
        let session = connected(&mut sessions, connect, 10);
        sessions.disconnect(session, 1, End::Lost, now(10));
        if at > 0 {
            assert_eq!(sessions.next_due(), now(10 + at).uptime);
            sessions.end_due(now(10 + at - 1).uptime);
            assert!(due(&mut sessions).is_empty());
        }
        sessions.end_due(now(10 + at).uptime);
        assert_eq!(due(&mut sessions), [delay_s]);
        assert_eq!(sessions.is_empty(), at == u64::from(expiry_s));
        if expiry_s == 30 {
            assert_eq!(sessions.next_due(), now(40).uptime);
            sessions.end_due(now(40).uptime);
            assert!(sessions.is_empty() && due(&mut sessions).is_empty());
        }
        assert_eq!(sessions.wills_bytes, 0);
    }
}

#[test]
fn a_client_that_comes_back_in_time_cancels_its_will_and_a_disconnect_deletes_it() {
    let mut sessions = sessions(BOUNDS);
    let connect = Connect {
        will: will(10),
        ..by("c", 1)
    };
    let session = connected(&mut sessions, connect, 0);
    sessions.disconnect(session, 1, End::Lost, now(1));
    assert!(sessions.connect(by("c", 2), now(5)).unwrap().is_present);
    sessions.end_due(now(50).uptime);
    assert!(due(&mut sessions).is_empty());
    // A core that is late gets the connection first; the delay has passed nevertheless.
    let connect = Connect {
        will: will(10),
        ..by("c", 6)
    };
    let session = connected(&mut sessions, connect, 10);
    sessions.disconnect(session, 6, End::Lost, now(11));
    assert!(sessions.connect(by("c", 7), now(21)).unwrap().is_present);
    assert_eq!(due(&mut sessions), [10]);
    // Traps 7 and 8: only a DISCONNECT without 0x04 deletes it.
    for with_will in [false, true] {
        let connect = Connect {
            will: will(0),
            ..by("c", 3)
        };
        let session = connected(&mut sessions, connect, 50);
        let end = End::Orderly {
            with_will,
            expiry_s: None,
        };
        sessions.disconnect(session, 3, end, now(51));
        assert_eq!(due(&mut sessions).len(), usize::from(with_will));
    }
    // A clean start ends the session that waits, and so publishes its will.
    let connect = Connect {
        will: will(10),
        ..by("c", 4)
    };
    let session = connected(&mut sessions, connect, 60);
    sessions.disconnect(session, 4, End::Lost, now(60));
    let connect = Connect {
        clean_start: true,
        ..by("c", 5)
    };
    assert!(!sessions.connect(connect, now(61)).unwrap().is_present);
    assert_eq!(due(&mut sessions), [10]);
}
