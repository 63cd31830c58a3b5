use super::*;
use crate::config::webhooks::WebhookSpec;
use crate::webhooks::compiled::tests::{compile, hook};
use crate::webhooks::event::MembershipEvent;
use crate::webhooks::hook::{BACKOFF_FIRST, BACKOFF_MAX, backoff};

fn at(ms: u64) -> Now {
    Now {
        uptime: Uptime::from_ms(ms),
        unix_ms: 1_000_000 + ms,
    }
}

struct Fixture {
    webhooks: Arc<Webhooks>,
    current: Arc<ArcSwap<Webhooks>>,
    dispatcher: Dispatcher,
}

impl Fixture {
    fn new(specs: &[WebhookSpec], directory: Option<PathBuf>) -> Fixture {
        let webhooks = compile(specs, None);
        let intake = Arc::clone(webhooks.intake().unwrap());
        let current = Arc::new(ArcSwap::new(Arc::clone(&webhooks)));
        let dispatcher = Dispatcher::new(&current, &intake, Duration::from_secs(1), directory, at(0));
        Fixture {
            webhooks,
            current,
            dispatcher,
        }
    }

    fn tell(&self, event: Event, ms: u64) {
        let told = DatedEvent {
            unix_ms: at(ms).unix_ms,
            core: 0,
            event,
        };
        assert!(self.webhooks.intake().unwrap().put(told).is_ok());
    }

    fn occupy(&self, name: &str, is_occupied: bool, ms: u64) {
        let change = Occupied {
            channel: name.as_bytes().into(),
            by: SubscriberKind::SocketCluster,
            is_occupied,
        };
        self.tell(Event::Occupancy(vec![change]), ms);
    }

    fn member(&self, name: &str, ms: u64) {
        self.tell(
            Event::Member(MembershipEvent {
                channel: name.as_bytes().into(),
                user: Some("u".into()),
                connection: None,
                is_there: true,
                count: 1,
            }),
            ms,
        );
    }

    /// One pass of the thread. Returns the requests: webhook, attempt, and the channels of the events.
    fn pass(&mut self, ms: u64) -> Vec<(u64, String, u64, Vec<String>)> {
        while self.dispatcher.take_in(at(ms)).is_some() {}
        self.dispatcher.tick(at(ms));
        let requests = self.dispatcher.requests(at(ms));
        let told = requests.into_iter().map(|request| {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let events = body["events"].as_array().unwrap().iter().map(|event| {
                let mut text = format!(
                    "{} {}",
                    event["event"].as_str().unwrap(),
                    event["channel"].as_str().unwrap_or("-")
                );
                if let Some(dropped) = event["dropped_before"].as_u64() {
                    text = format!("{text} after {dropped}");
                }
                text
            });
            (
                request.key,
                body["webhook"].as_str().unwrap().to_owned(),
                body["attempt"].as_u64().unwrap(),
                events.collect(),
            )
        });
        told.collect()
    }

    fn done(&mut self, key: u64, is_delivered: bool, ms: u64) {
        let outcome = match is_delivered {
            true => Ok(()),
            false => Err(Failure {
                answer: WebhookAnswer::Status,
                cause: "500".to_owned(),
                said: String::new(),
            }),
        };
        self.dispatcher.done(key, outcome, 1000, u32::MAX, at(ms));
    }
}

fn of(events: &[WebhookEvent]) -> WebhookSpec {
    hook("a", events, &[])
}

#[test]
fn events_wait_for_others_and_a_full_request_goes_at_once() {
    let mut spec = of(&[WebhookEvent::MemberJoined]);
    spec.batch_events = 3;
    let mut fixture = Fixture::new(&[spec], None);
    fixture.member("x", 0);
    assert!(fixture.pass(0).is_empty() && fixture.pass(99).is_empty());
    fixture.member("y", 99);
    let requests = fixture.pass(100);
    assert_eq!(requests[0].3, ["member_joined x", "member_joined y"]);
    for name in ["1", "2", "3", "4"] {
        fixture.member(name, 100);
    }
    assert!(fixture.pass(300).is_empty(), "one request at a time");
    fixture.done(1, true, 300);
    assert_eq!(
        fixture.pass(300)[0].3,
        ["member_joined 1", "member_joined 2", "member_joined 3"]
    );
    fixture.done(1, true, 310);
    assert!(fixture.pass(409).is_empty());
    assert_eq!(fixture.pass(410)[0].3, ["member_joined 4"]);
    fixture.done(1, true, 420);
    assert!(fixture.pass(100_000).is_empty());
    assert_eq!(fixture.dispatcher.hooks[0].metrics.delivered.value(), 6);
}

#[test]
fn a_request_that_fails_is_repeated_later_and_later_before_any_other() {
    let mut fixture = Fixture::new(&[of(&[WebhookEvent::MemberJoined])], None);
    fixture.member("x", 0);
    fixture.pass(0);
    let mut now = 100;
    let mut waits = Vec::new();
    for attempt in 1..=12 {
        let requests = fixture.pass(now);
        assert_eq!((requests[0].2, &*requests[0].3[0]), (attempt, "member_joined x"));
        fixture.member("y", now);
        fixture.done(1, false, now);
        assert!(fixture.pass(now).is_empty());
        let next = fixture.dispatcher.hooks[0].next_due().as_ms();
        waits.push(next - now);
        now = next;
    }
    assert_eq!(waits[..4], [500, 1000, 2000, 4000]);
    assert_eq!(waits[11], 60_000);
    let requests = fixture.pass(now);
    assert_eq!(requests[0].3.len(), 13);
    fixture.done(1, true, now);
    fixture.member("z", now);
    fixture.pass(now);
    assert_eq!(
        fixture.pass(now + 100)[0].2,
        1,
        "the count of attempts begins anew"
    );
}

#[test]
fn the_wait_after_a_failure_is_random_within_a_half() {
    for failures in 0..20 {
        let (least, most) = (backoff(failures, 0), backoff(failures, u32::MAX));
        assert_eq!(least * 2, most, "{failures}");
        assert!(most <= BACKOFF_MAX && least >= BACKOFF_FIRST / 2);
        assert!((least..most).contains(&backoff(failures, u32::MAX / 2)));
    }
}

#[test]
fn each_webhook_has_its_own_events_and_a_failing_one_does_not_hold_the_others() {
    let events = [WebhookEvent::MemberJoined];
    let mut fixture = Fixture::new(
        &[hook("a", &events, &["x", "z"]), hook("b", &events, &["y", "z"])],
        None,
    );
    for name in ["x", "y", "z"] {
        fixture.member(name, 0);
    }
    fixture.pass(0);
    let requests = fixture.pass(100);
    assert_eq!(requests[0].3, ["member_joined x", "member_joined z"]);
    assert_eq!(requests[1].3, ["member_joined y", "member_joined z"]);
    fixture.done(1, false, 100);
    fixture.done(2, true, 100);
    fixture.member("y", 100);
    fixture.pass(100);
    let requests = fixture.pass(200);
    assert_eq!((requests.len(), &*requests[0].1), (1, "b"));
}

#[test]
fn a_channel_is_told_of_as_occupied_at_once_and_as_vacated_after_the_delay() {
    let events = [WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated];
    let mut spec = of(&events);
    spec.interval = Duration::ZERO;
    let mut fixture = Fixture::new(&[spec, hook("b", &events[..1], &["other"])], None);
    fixture.occupy("x", true, 0);
    assert_eq!(fixture.pass(0)[0].3, ["channel_occupied x"]);
    fixture.done(1, true, 1);
    fixture.occupy("x", false, 10);
    fixture.occupy("x", true, 20);
    fixture.occupy("x", false, 30);
    assert!(fixture.pass(1000).is_empty());
    let due = fixture.dispatcher.next_due();
    assert!(due <= Uptime::from_ms(2000), "{due:?}");
    assert_eq!(fixture.pass(2001)[0].3, ["channel_vacated x"]);
}

/// The thread waits for a disk, say, and then finds all that has happened meanwhile.
#[test]
fn a_thread_that_is_late_tells_no_channel_as_vacated_that_had_a_subscriber_in_time() {
    let events = [WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated];
    let mut spec = of(&events);
    spec.interval = Duration::ZERO;
    let mut fixture = Fixture::new(&[spec], None);
    fixture.occupy("x", true, 0);
    fixture.occupy("y", true, 0);
    fixture.occupy("x", false, 10);
    fixture.occupy("y", false, 10);
    assert_eq!(
        fixture.pass(10)[0].3,
        ["channel_occupied x", "channel_occupied y"]
    );
    fixture.done(1, true, 11);
    fixture.occupy("x", true, 900);
    fixture.occupy("y", true, 1100);
    assert_eq!(
        fixture.pass(5000)[0].3,
        ["channel_vacated y", "channel_occupied y"]
    );
}

#[test]
fn a_reload_keeps_the_queue_of_a_webhook_that_stays_and_drops_that_of_one_that_goes() {
    let events = [WebhookEvent::MemberJoined, WebhookEvent::ChannelOccupied];
    let mut fixture = Fixture::new(&[hook("a", &events, &["**"]), hook("b", &events, &["**"])], None);
    fixture.member("x", 0);
    fixture.occupy("y", true, 0);
    fixture.pass(0);
    let metrics = Arc::clone(&fixture.dispatcher.hooks[1].metrics);
    let mut changed = hook("a", &events, &["**"]);
    changed.timeout = Duration::from_secs(1);
    let next = compile(&[hook("c", &events, &["**"]), changed], Some(&fixture.webhooks));
    fixture.webhooks = next;
    fixture.current.store(Arc::clone(&fixture.webhooks));
    fixture.dispatcher.tick(at(50));
    assert_eq!(metrics.dropped[WebhookDrop::Removed.index()].value(), 2);
    let requests = fixture.pass(200);
    assert_eq!(
        requests[0].3,
        ["channel_occupied y"],
        "c is told what is occupied"
    );
    assert_eq!(requests[1].3, ["member_joined x", "channel_occupied y"]);
    let names: Vec<_> = fixture
        .webhooks
        .intake()
        .unwrap()
        .metrics
        .hooks()
        .iter()
        .map(|hook| hook.name.clone())
        .collect();
    assert_eq!(names, ["c".into(), "a".into(), "b".into()]);
}

#[test]
fn what_cores_have_dropped_is_told_with_the_next_event() {
    let mut fixture = Fixture::new(&[of(&[WebhookEvent::MemberJoined])], None);
    let intake = Arc::clone(fixture.webhooks.intake().unwrap());
    for _ in 0..7 {
        intake.lose(WebhookEvent::MemberJoined);
        intake.lose(WebhookEvent::Publication);
    }
    fixture.member("x", 0);
    fixture.pass(0);
    assert_eq!(fixture.pass(100)[0].3, ["member_joined x after 7"]);
}

#[test]
fn limits_are_told_with_the_hits_since_the_last_time() {
    let mut fixture = Fixture::new(&[of(&[WebhookEvent::LimitHit])], None);
    let mut hits = [5; Limit::COUNT];
    fixture.dispatcher.note_limits(hits, at(0));
    hits[Limit::OutboxBytes.index()] += 3;
    fixture.dispatcher.note_limits(hits, at(1000));
    fixture.dispatcher.note_limits(hits, at(2000));
    fixture.dispatcher.tick(at(2000));
    let requests = fixture.dispatcher.requests(at(2000));
    let body: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(body["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&body["events"][0]["limit"], &body["events"][0]["hits"]),
        (&"outbox_bytes".into(), &3.into())
    );
}

#[test]
fn events_that_were_not_delivered_before_the_end_are_sent_after_the_next_start_in_order() {
    let folder = std::env::temp_dir().join(format!("ringcast-webhook-dispatcher-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let spec = of(&[WebhookEvent::MemberJoined]);
    let mut first = Fixture::new(std::slice::from_ref(&spec), Some(folder.clone()));
    first.member("before", 0);
    first.pass(0);
    first.member("x", 1);
    assert_eq!(first.pass(101)[0].3, ["member_joined before", "member_joined x"]);
    first.done(1, false, 102);
    // As after a crash: what was committed is there, and nothing is closed in order.
    first.dispatcher.tick(at(300));
    let mut second = Fixture::new(std::slice::from_ref(&spec), Some(folder.clone()));
    second.member("y", 0);
    assert!(
        second.pass(0).is_empty() && second.pass(200).is_empty(),
        "the first process has the file"
    );
    assert!(
        second.dispatcher.next_due() > Uptime::from_ms(200),
        "nothing is tried all the time"
    );
    drop(first);
    assert_eq!(
        second.pass(300)[0].3,
        ["member_joined before", "member_joined x", "member_joined y"]
    );
    second.done(1, true, 401);
    second.dispatcher.end(at(402));
    assert!(second.dispatcher.has_ended());
    second.dispatcher.close(at(402));
    drop(second);
    let mut third = Fixture::new(&[spec], Some(folder.clone()));
    third.pass(0);
    assert!(third.pass(1000).is_empty(), "all was delivered");
    drop(third);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn at_the_end_all_channels_are_vacated_and_webhooks_that_waited_try_once_more() {
    let events = [WebhookEvent::ChannelOccupied, WebhookEvent::ChannelVacated];
    let mut fixture = Fixture::new(&[of(&events)], None);
    fixture.occupy("x", true, 0);
    fixture.pass(0);
    fixture.pass(100);
    fixture.done(1, false, 100);
    fixture.dispatcher.end(at(101));
    let requests = fixture.dispatcher.last_requests(at(101));
    let body: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    let words: Vec<_> = body["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["channel_occupied", "channel_vacated"]);
    assert!(!fixture.dispatcher.has_ended());
    fixture.done(1, false, 102);
    assert!(fixture.dispatcher.has_ended(), "no second try");
    fixture.dispatcher.close(at(103));
    let dropped = &fixture.dispatcher.hooks[0].metrics.dropped;
    assert_eq!(dropped[WebhookDrop::Stopped.index()].value(), 2);
}

/// A receiver gets one request at a time, also of a webhook that was removed and named again meanwhile.
#[test]
fn a_webhook_that_is_named_again_waits_for_the_request_of_the_one_before() {
    for is_delivered in [true, false] {
        let spec = of(&[WebhookEvent::MemberJoined]);
        let mut fixture = Fixture::new(std::slice::from_ref(&spec), None);
        fixture.member("x", 0);
        assert!(fixture.pass(0).is_empty());
        let first = fixture.pass(100);
        let key = first[0].0;
        for specs in [
            &[][..],
            std::slice::from_ref(&spec),
            &[],
            std::slice::from_ref(&spec),
        ] {
            fixture.webhooks = compile(specs, Some(&fixture.webhooks));
            fixture.current.store(Arc::clone(&fixture.webhooks));
            fixture.pass(150);
        }
        fixture.member("y", 200);
        assert!(fixture.pass(200).is_empty());
        assert!(fixture.pass(1000).is_empty(), "the first request is under way");
        assert!(!fixture.dispatcher.has_ended());
        fixture.done(key, is_delivered, 1000);
        let second = fixture.pass(1000);
        assert_eq!(second[0].3, ["member_joined y"], "its attempt is the first one");
        assert_eq!(second[0].2, 1);
        let counted = &fixture.dispatcher.hooks[0].metrics;
        assert_eq!(counted.requests[WebhookAnswer::Delivered.index()].value(), 0);
        fixture.done(second[0].0, true, 1000);
        assert_eq!(fixture.dispatcher.hooks[0].metrics.delivered.value(), 1);
        assert!(fixture.dispatcher.leaving.is_empty());
    }
}

/// A webhook that gets another name is a new one, with the same receiver.
#[test]
fn a_webhook_that_a_reload_renames_waits_for_the_request_of_the_one_before() {
    let spec = of(&[WebhookEvent::MemberJoined]);
    let renamed = WebhookSpec {
        name: "renamed".to_owned(),
        ..spec.clone()
    };
    let mut fixture = Fixture::new(std::slice::from_ref(&spec), None);
    fixture.member("x", 0);
    assert!(fixture.pass(0).is_empty());
    let first = fixture.pass(100);
    fixture.webhooks = compile(std::slice::from_ref(&renamed), Some(&fixture.webhooks));
    fixture.current.store(Arc::clone(&fixture.webhooks));
    fixture.member("y", 200);
    assert!(fixture.pass(200).is_empty());
    assert!(fixture.pass(1000).is_empty(), "the first request is under way");
    // Another reload, while the renamed one waits: it is removed, and a third one has the URL.
    let third = WebhookSpec {
        name: "third".to_owned(),
        ..spec
    };
    fixture.webhooks = compile(&[third], Some(&fixture.webhooks));
    fixture.current.store(Arc::clone(&fixture.webhooks));
    fixture.member("z", 1000);
    assert!(fixture.pass(2000).is_empty());
    fixture.done(first[0].0, true, 2000);
    assert_eq!(fixture.pass(3000)[0].3, ["member_joined z"]);
    assert!(fixture.dispatcher.leaving.is_empty());
}
