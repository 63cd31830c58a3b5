//! Services over the wire: the real binary on 1, 2 and 8 cores, services that behave and services that do not, callers
//! that stay and callers that go.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use ringcast::internals::auth::Tokens;
use serde_json::{Value, json};
use support::folder::Folder;
use support::process::Process;
use support::{Client, Received, TEXT, eventually, frame};

const KEY: &str = "a key for the tests of services";

/// Everybody may call, and each user may serve procedures with its own name.
const RULES: &str = r#"
[[rules]]
allow = ["subscribe", "publish"]
channels = ["**"]
[[rules]]
allow = "invoke"
procedures = ["**"]
[[rules]]
deny = ["serve"]
procedures = ["math.secret"]
to = { claim = "sub", is = "guest" }
[[rules]]
allow = ["serve"]
procedures = ["**"]
to = "authenticated"
"#;

struct Scene {
    process: Process,
    folder: Folder,
}

impl Scene {
    fn new(cores: u32, config: &str, settings: &[(&str, &str)]) -> Scene {
        let folder = Folder::new();
        let file = folder.write("ringcast.toml", &format!("{RULES}{config}"));
        let cores = cores.to_string();
        let mut all = vec![
            ("RINGCAST_CONFIG", file.to_str().unwrap()),
            ("RINGCAST_AUTH_KEY", KEY),
            ("RINGCAST_CORES", &cores),
            ("RINGCAST_SERVICE_CALLS_PER_CONNECTION_MAX", "4096"),
        ];
        all.retain(|(name, _)| settings.iter().all(|(other, _)| other != name));
        all.extend(settings);
        Scene {
            process: Process::start(&all),
            folder,
        }
    }

    fn reload(&self, config: &str) {
        self.process.reload(&self.folder.file("ringcast.toml"), config);
    }

    fn client(&self) -> Peer {
        let mut client = self.process.connect();
        client.upgrade();
        client.handshake();
        Peer {
            client,
            kept: Vec::new(),
            calls: 100,
        }
    }

    fn user(&self, user: &str) -> Peer {
        let mut peer = self.client();
        let answer = peer.call("#authenticate", &json!(token(&json!({"sub": user, "role": "x"}))));
        assert_eq!(answer.unwrap()["isAuthenticated"], true);
        peer
    }

    /// A service with this pattern.
    fn service(&self, pattern: &str, window: u32) -> Peer {
        let mut service = self.user("server");
        service
            .call("$serve", &json!({"procedure": pattern, "window": window}))
            .unwrap();
        service
    }

    /// A metric with these labels, over all cores.
    fn metric(&self, name: &str) -> u64 {
        self.process.admin().metric(name)
    }

    /// Nothing is open, and nothing waits.
    fn is_at_rest(&self) {
        eventually("all calls have ended", || {
            let (_, text) = self.process.admin().get("/metrics");
            let sum = |name: &str| -> u64 {
                let lines = text.lines().filter(|line| line.starts_with(name));
                lines
                    .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
                    .sum()
            };
            sum("ringcast_service_calls_open{") + sum("ringcast_service_calls_waiting{") == 0
        });
    }
}

/// A client that keeps messages that come while it waits for another one.
struct Peer {
    client: Client,
    kept: Vec<Value>,
    calls: u64,
}

/// A call as a service gets it.
struct Asked {
    event: String,
    cid: Option<u64>,
    data: Value,
}

impl Peer {
    /// Begins a call, and returns its id.
    fn begin(&mut self, event: &str, data: &Value) -> u64 {
        self.calls += 1;
        let cid = self.calls;
        self.client
            .send_text(&json!({"event": event, "data": data, "cid": cid}).to_string());
        cid
    }

    fn transmit(&mut self, event: &str, data: &Value) {
        self.client
            .send_text(&json!({"event": event, "data": data}).to_string());
    }

    /// The first message that `wanted` wants.
    #[track_caller]
    fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        loop {
            let message: Value = serde_json::from_str(&self.client.message()).unwrap();
            if wanted(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }

    /// The end of a call.
    #[track_caller]
    fn end(&mut self, cid: u64) -> Result<Value, Value> {
        let message = self.find(|message| message["rid"] == cid);
        match message.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(message["data"].clone()),
        }
    }

    #[track_caller]
    fn call(&mut self, event: &str, data: &Value) -> Result<Value, Value> {
        let cid = self.begin(event, data);
        self.end(cid)
    }

    /// The name of the error of a call.
    #[track_caller]
    fn error(&mut self, cid: u64) -> String {
        self.end(cid).unwrap_err()["name"].as_str().unwrap().to_owned()
    }

    /// The next call or event that the client gets as a service.
    #[track_caller]
    fn asked(&mut self) -> Asked {
        let message = self.find(|message| {
            let event = message["event"].as_str();
            event.is_some_and(|event| !event.starts_with(['#', '$']))
        });
        Asked {
            event: message["event"].as_str().unwrap().to_owned(),
            cid: message["cid"].as_u64(),
            data: message["data"].clone(),
        }
    }

    fn answer(&mut self, asked: &Asked, data: &Value) {
        let rid = asked.cid.unwrap();
        self.client
            .send_text(&json!({"rid": rid, "data": data}).to_string());
    }

    /// The id of the call that nobody waits for any more.
    #[track_caller]
    fn cancelled(&mut self) -> u64 {
        let message = self.find(|message| message["event"] == "$cancel");
        message["data"]["rid"].as_u64().unwrap()
    }

    /// Everything that was sent to the client before has come.
    #[track_caller]
    fn has_all(&mut self) {
        self.call("ping", &Value::Null).unwrap();
    }

    /// How many calls the client has got as a service and not looked at.
    fn calls_kept(&self) -> usize {
        self.kept.iter().filter(|message| message["cid"].is_u64()).count()
    }
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was signed")]
fn token(claims: &Value) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let unix_ms = u64::try_from(since.as_millis()).unwrap();
    let tokens = Tokens::from_secret(KEY.as_bytes(), None).unwrap();
    tokens.sign(&claims.to_string(), Some(3600), unix_ms).unwrap()
}

#[test]
fn a_call_reaches_its_service_from_any_core_and_the_answer_comes_back_unchanged() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut service = scene.service("math.*", 64);
        for at in 0..24 {
            let mut caller = if at % 2 == 0 {
                scene.client()
            } else {
                scene.user("ann")
            };
            let cid = caller.begin("math.add", &json!([at, 2]));
            let asked = service.asked();
            assert_eq!(
                (asked.event.as_str(), &asked.data["data"]),
                ("math.add", &json!([at, 2]))
            );
            let expected = if at % 2 == 0 {
                json!({"id": caller.client.id})
            } else {
                json!({"id": caller.client.id, "user": "ann", "claims": asked.data["caller"]["claims"]})
            };
            assert_eq!(asked.data["caller"], expected);
            if at % 2 == 1 {
                assert_eq!(asked.data["caller"]["claims"]["role"], "x");
            }
            if at % 3 == 0 {
                let error = json!({"name": "MathError", "message": "odd", "extra": [1]});
                let rid = asked.cid.unwrap();
                service
                    .client
                    .send_text(&json!({"rid": rid, "error": error}).to_string());
                assert_eq!(caller.end(cid), Err(error));
            } else {
                let answer = json!({"sum": at + 2, "text": "ü\u{2028}"});
                service.answer(&asked, &answer);
                assert_eq!(caller.end(cid), Ok(answer));
            }
        }
        // A call without data, and an answer without data.
        let mut caller = scene.client();
        caller.client.send_text(r#"{"event":"math.none","cid":7}"#);
        let asked = service.asked();
        assert!(asked.data.get("data").is_none());
        let rid = asked.cid.unwrap();
        service.client.send_text(&format!("{{\"rid\":{rid}}}"));
        assert_eq!(caller.find(|message| message["rid"] == 7), json!({"rid": 7}));
        // The server's own procedures come first, and no service gets names that belong to the protocol.
        let mut all = scene.service("*", 1);
        assert!(caller.call("ping", &Value::Null).unwrap()["count"].is_u64());
        caller
            .client
            .send_text(r##"{"event":"#disconnect","data":{"code":1}}"##);
        caller.client.send_text(r#"{"event":"other","data":1}"#);
        assert_eq!(all.asked().event, "other");
        scene.is_at_rest();
    }
}

#[test]
fn a_client_serves_only_procedures_that_a_rule_with_the_action_serve_allows() {
    let scene = Scene::new(2, "", &[]);
    let mut stranger = scene.client();
    for pattern in ["math.add", "math.*", "*"] {
        let refused = stranger
            .call("$serve", &json!({"procedure": pattern}))
            .unwrap_err();
        assert_eq!(refused["name"], "SilentMiddlewareBlockedError");
    }
    let mut guest = scene.user("guest");
    for (pattern, allowed) in [
        ("math.secret", false),
        ("math.*", false),
        ("math.sec*", false),
        ("*", false),
        ("math.open", true),
        ("music.*", true),
    ] {
        assert_eq!(
            guest.call("$serve", &json!({"procedure": pattern})).is_ok(),
            allowed,
            "{pattern}"
        );
    }
    let mut ann = scene.user("ann");
    for data in [
        json!({}),
        json!({"procedure": "a*b"}),
        json!({"procedure": "$history"}),
        json!(5),
    ] {
        let refused = ann.call("$serve", &data).unwrap_err();
        assert_eq!(refused["name"], "InvalidActionError", "{data}");
    }
    let served = ann.call("$serve", &json!({"procedure": "a", "window": 1e6, "weight": 3}));
    assert_eq!(
        served.unwrap(),
        json!({"procedure": "a", "weight": 3, "window": 1024})
    );

    // Rules without the action leave the name to the application, which knows no such procedure.
    let plain = Scene::new(1, "", &[]);
    let mut server = plain.service("a", 4);
    plain.reload("[[rules]]\nallow = \"*\"\nprocedures = [\"**\"]\n");
    assert_eq!(
        server.find(|message| message["event"] == "$unserved")["data"],
        json!({"procedure": "a"})
    );
    server.begin("$serve", &json!({"procedure": "a"}));
    server.has_all();
    assert!(server.kept.is_empty(), "{:?}", server.kept);
}

#[test]
fn claims_that_go_take_the_patterns_along() {
    let scene = Scene::new(2, "[[services]]\npattern = \"a\"\n", &[]);
    let mut service = scene.service("a", 4);
    let mut caller = scene.client();
    let open = caller.begin("a", &json!(1));
    let asked = service.asked();
    service.client.send_text(r##"{"event":"#removeAuthToken"}"##);
    service.find(|message| message["event"] == "$unserved");
    // The call that it has may still be answered; it gets no other.
    service.answer(&asked, &json!("late"));
    assert_eq!(caller.end(open), Ok(json!("late")));
    eventually("the service is gone", || {
        let cid = caller.begin("a", &json!(2));
        caller.error(cid) == "NoServiceError"
    });
}

/// The rights of the client go in the same write as `$serve`, or a moment later, when some cores know the pattern.
#[test]
fn a_pattern_is_not_served_by_a_client_whose_rights_go_while_it_is_registered() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut service = scene.user("server");
        for round in 0..60 {
            let remove = frame(TEXT, br##"{"event":"#removeAuthToken"}"##);
            let cid = 1000 + round;
            let serve = json!({"event": "$serve", "cid": cid, "data": {"procedure": format!("a{round}")}});
            let mut bytes = frame(TEXT, serve.to_string().as_bytes());
            if round % 2 == 0 {
                bytes.extend(remove);
                service.client.send_bytes(&bytes);
            } else {
                service.client.send_bytes(&bytes);
                service.client.send_bytes(&remove);
            }
            if let Err(refused) = service.end(cid) {
                assert_eq!(refused["name"], "SilentMiddlewareBlockedError");
            } else {
                service.find(|message| message["event"] == "$unserved");
            }
            let token = json!(token(&json!({"sub": "server"})));
            service.call("#authenticate", &token).unwrap();
        }
        eventually("nothing is served", || {
            scene.metric("ringcast_service_members") == 0
        });
    }
}

#[test]
fn a_service_that_vanishes_fails_its_calls_at_once_and_no_others() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut good = scene.service("work.*", 8);
        let mut callers: Vec<Peer> = (0..16).map(|_| scene.client()).collect();
        let mut bad = scene.service("work.*", 8);
        let cids: Vec<u64> = callers
            .iter_mut()
            .map(|caller| caller.begin("work.do", &json!(1)))
            .collect();
        let mut asked: Vec<Asked> = (0..8).map(|_| good.asked()).collect();
        for _ in 0..8 {
            bad.asked();
        }
        bad.client.reset();
        for asked in asked.drain(..) {
            good.answer(&asked, &json!("done"));
        }
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for (caller, cid) in callers.iter_mut().zip(cids) {
            let end = match caller.end(cid) {
                Ok(data) => data.as_str().unwrap().to_owned(),
                Err(error) => error["name"].as_str().unwrap().to_owned(),
            };
            *ends.entry(end).or_default() += 1;
        }
        let expected = [("ServiceGoneError".to_owned(), 8), ("done".to_owned(), 8)];
        assert_eq!(ends, BTreeMap::from(expected), "on {cores} cores");
        // From now on the other one gets all.
        let mut caller = scene.client();
        let cid = caller.begin("work.do", &json!(2));
        let asked = good.asked();
        good.answer(&asked, &json!("again"));
        assert_eq!(caller.end(cid), Ok(json!("again")));
        scene.is_at_rest();
    }
}

#[test]
fn a_frozen_service_gets_cancels_and_half_of_its_window_until_it_answers() {
    let scene = Scene::new(
        2,
        "[[services]]\npattern = \"slow\"\ntimeout_ms = 300\nqueue_calls = 100\n",
        &[],
    );
    let mut service = scene.service("slow", 4);
    let mut caller = scene.client();
    let cids: Vec<u64> = (0..4).map(|at| caller.begin("slow", &json!(at))).collect();
    let asked: Vec<Asked> = (0..4).map(|_| service.asked()).collect();
    for cid in cids {
        assert_eq!(caller.error(cid), "TimeoutError");
    }
    let cancelled: BTreeSet<u64> = (0..4).map(|_| service.cancelled()).collect();
    assert_eq!(cancelled, asked.iter().filter_map(|asked| asked.cid).collect());
    // Late answers reach nobody.
    for asked in &asked {
        service.answer(asked, &json!("late"));
    }
    service.has_all();
    caller.has_all();
    assert!(caller.kept.is_empty(), "{:?}", caller.kept);
    // A late answer is none: the window is two until one comes in time.
    let cids: Vec<u64> = (0..6).map(|at| caller.begin("slow", &json!(at))).collect();
    let (first, second) = (service.asked(), service.asked());
    caller.has_all();
    service.has_all();
    assert_eq!(service.calls_kept(), 0, "two of four");
    service.answer(&first, &json!(0));
    let more: Vec<Asked> = (0..3).map(|_| service.asked()).collect();
    service.answer(&second, &json!(0));
    for asked in &more {
        service.answer(asked, &json!(0));
    }
    let last = service.asked();
    service.answer(&last, &json!(0));
    for cid in cids {
        let _ = caller.end(cid);
    }
    scene.is_at_rest();
}

#[test]
fn a_service_that_answers_twice_late_or_for_calls_of_others_harms_no_client() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut honest = scene.service("honest", 8);
        let mut faulty = scene.service("faulty", 8);
        let mut caller = scene.client();
        let to_honest = caller.begin("honest", &json!(1));
        let asked = honest.asked();
        let to_faulty = caller.begin("faulty", &json!(2));
        let asked_faulty = faulty.asked();
        let own = asked_faulty.cid.unwrap();
        // Ids that are not its own, and some that are nobody's.
        for rid in (0..200).filter(|rid| *rid != own) {
            faulty
                .client
                .send_text(&json!({"rid": rid, "data": "wrong"}).to_string());
        }
        for rid in ["-1", "1.5", "1e300", "null", "\"1\""] {
            faulty
                .client
                .send_text(&format!("{{\"rid\":{rid},\"data\":\"wrong\"}}"));
        }
        for data in ["first", "second"] {
            faulty.answer(&asked_faulty, &json!(data));
        }
        assert_eq!(caller.end(to_faulty), Ok(json!("first")));
        honest.answer(&asked, &json!("honest"));
        assert_eq!(caller.end(to_honest), Ok(json!("honest")));
        faulty.has_all();
        caller.has_all();
        assert!(caller.kept.is_empty(), "{:?}", caller.kept);
        scene.is_at_rest();
    }
}

#[test]
fn a_window_is_kept_to_and_callers_wait_in_order_until_too_many_do() {
    for cores in [1, 8] {
        let scene = Scene::new(cores, "[[services]]\npattern = \"q*\"\nqueue_calls = 5\n", &[]);
        let mut service = scene.service("q", 3);
        let mut caller = scene.client();
        let cids: Vec<u64> = (0..10).map(|at| caller.begin("q", &json!(at))).collect();
        for refused in &cids[8..] {
            assert_eq!(caller.error(*refused), "ServiceBusyError");
        }
        let mut asked: Vec<Asked> = (0..3).map(|_| service.asked()).collect();
        service.has_all();
        assert_eq!(service.calls_kept(), 0, "no more than its window");
        assert_eq!(scene.metric("ringcast_service_calls_waiting"), 5);
        for (at, &cid) in cids[..8].iter().enumerate() {
            let one = asked.remove(0);
            assert_eq!(one.data["data"], at, "in order");
            service.answer(&one, &json!(at));
            assert_eq!(caller.end(cid), Ok(json!(at)));
            if at < 5 {
                asked.push(service.asked());
            }
        }
        scene.is_at_rest();
    }
}

#[test]
fn calls_go_to_the_service_with_the_fewest_for_its_weight() {
    let scene = Scene::new(8, "", &[]);
    let mut services: Vec<Peer> = (0..4).map(|_| scene.user("server")).collect();
    for (service, weight) in services.iter_mut().zip([1, 1, 2, 4]) {
        let offer = json!({"procedure": "w", "weight": weight, "window": 100});
        service.call("$serve", &offer).unwrap();
    }
    let mut callers: Vec<Peer> = (0..8).map(|_| scene.client()).collect();
    for caller in &mut callers {
        for at in 0..10 {
            caller.begin("w", &json!(at));
        }
    }
    eventually("all calls are given", || {
        services.iter_mut().for_each(Peer::has_all);
        services.iter().map(Peer::calls_kept).sum::<usize>() == 80
    });
    let counts: Vec<usize> = services.iter().map(Peer::calls_kept).collect();
    assert_eq!(counts, [10, 10, 20, 40]);
}

#[test]
fn the_calls_of_a_client_go_to_one_service_if_the_pattern_is_sticky() {
    let scene = Scene::new(8, "[[services]]\npattern = \"s\"\nsticky = true\n", &[]);
    let mut services: Vec<Peer> = (0..4).map(|_| scene.service("s", 100)).collect();
    let mut callers: Vec<Peer> = (0..12).map(|_| scene.client()).collect();
    for caller in &mut callers {
        for at in 0..5 {
            caller.begin("s", &json!(at));
        }
    }
    eventually("all calls are given", || {
        services.iter_mut().for_each(Peer::has_all);
        services.iter().map(Peer::calls_kept).sum::<usize>() == 60
    });
    let mut seen: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (at, service) in services.iter().enumerate() {
        for message in service.kept.iter().filter(|message| message["cid"].is_u64()) {
            let id = message["data"]["caller"]["id"].as_str().unwrap().to_owned();
            seen.entry(id).or_default().insert(at);
        }
    }
    assert_eq!(seen.len(), 12);
    assert!(seen.values().all(|services| services.len() == 1), "{seen:?}");
    assert!(
        seen.values().flatten().collect::<BTreeSet<_>>().len() > 1,
        "{seen:?}"
    );
}

#[test]
fn a_caller_that_disconnects_cancels_its_calls_also_waiting_ones() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut service = scene.service("c", 1);
        let mut caller = scene.client();
        caller.begin("c", &json!("given"));
        caller.begin("c", &json!("waits"));
        let asked = service.asked();
        caller.client.reset();
        assert_eq!(service.cancelled(), asked.cid.unwrap());
        let mut other = scene.client();
        let cid = other.begin("c", &json!("other"));
        let asked = service.asked();
        assert_eq!(asked.data["data"], "other", "the one that waited is gone");
        service.answer(&asked, &json!(1));
        assert_eq!(other.end(cid), Ok(json!(1)));
        scene.is_at_rest();
    }
}

/// The service has the time of the test for its answer, or none: its window is free with the answer in the one case,
/// and without it in the other.
#[test]
fn a_cancelled_call_counts_in_its_window_until_it_is_answered_or_has_had_its_time() {
    for (cores, cancel_ms) in [(1, "60000"), (2, "60000"), (8, "60000"), (1, "0"), (8, "0")] {
        let scene = Scene::new(
            cores,
            "[[services]]\npattern = \"late\"\ntimeout_ms = 100\n",
            &[("RINGCAST_SERVICE_CANCEL_MS", cancel_ms)],
        );
        let mut late = scene.service("late", 1);
        let mut service = scene.service("c", 2);
        let (mut caller, mut other) = (scene.client(), scene.client());
        let timed_out = caller.begin("late", &json!(0));
        for at in 0..2 {
            caller.begin("c", &json!(at));
        }
        let asked: Vec<Asked> = (0..2).map(|_| service.asked()).collect();
        assert_eq!(caller.error(timed_out), "TimeoutError");
        assert_eq!(late.cancelled(), late.asked().cid.unwrap());
        caller.client.reset();
        let cancelled = [service.cancelled(), service.cancelled()];
        assert!(asked.iter().all(|asked| cancelled.contains(&asked.cid.unwrap())));
        let cids: Vec<u64> = (2..4).map(|at| other.begin("c", &json!(at))).collect();
        let hits = |scene: &Scene| scene.metric("ringcast_limit_hits_total{limit=\"service_cancel_time\"}");
        if cancel_ms == "0" {
            eventually("the windows are free", || hits(&scene) == 3);
        } else {
            eventually("both wait", || {
                scene.metric("ringcast_service_calls_waiting") == 2
            });
            service.has_all();
            assert_eq!(service.calls_kept(), 0, "it may be at work on both");
            // One answer makes room for one call.
            service.answer(&asked[1], &json!("too late"));
            eventually("one waits", || {
                scene.metric("ringcast_service_calls_waiting") == 1
            });
            // The call no longer waits from the moment on in which it goes to the core of the service.
            eventually("the service has it", || {
                service.has_all();
                service.calls_kept() == 1
            });
            service.answer(&asked[0], &json!("too late"));
            eventually("none waits", || {
                scene.metric("ringcast_service_calls_waiting") == 0
            });
            assert_eq!(scene.metric("ringcast_service_answers_late_total"), 2);
            assert_eq!(hits(&scene), 0);
        }
        for (cid, at) in cids.into_iter().zip(2..) {
            let asked = service.asked();
            assert_eq!(asked.data["data"], at, "in order");
            service.answer(&asked, &json!(at));
            assert_eq!(other.end(cid), Ok(json!(at)));
        }
        scene.is_at_rest();
    }
}

#[test]
fn one_way_events_reach_one_service_each() {
    for cores in [1, 8] {
        let scene = Scene::new(cores, "", &[]);
        let mut services: Vec<Peer> = (0..2).map(|_| scene.service("note.*", 1)).collect();
        let mut caller = scene.client();
        for at in 0..10 {
            caller.transmit("note.this", &json!(at));
        }
        let mut got = BTreeSet::new();
        for service in &mut services {
            for _ in 0..5 {
                let asked = service.asked();
                assert_eq!((asked.event.as_str(), asked.cid), ("note.this", None));
                assert_eq!(asked.data["caller"]["id"], json!(caller.client.id));
                got.insert(asked.data["data"].as_u64().unwrap());
            }
        }
        assert_eq!(got, (0..10).collect());
        scene.is_at_rest();
    }
}

/// Sends events to a service that does not read, until it gets no more. Returns how many were sent.
fn fill(scene: &Scene, caller: &mut Peer, event: &str) -> u64 {
    let dropped = "ringcast_service_events_total{pattern=\"\",result=\"dropped\"}";
    let mut sent = 0;
    while scene.metric(dropped) == 0 {
        for _ in 0..8 {
            caller.transmit(event, &json!("x".repeat(60_000)));
            sent += 1;
        }
        caller.has_all();
    }
    sent
}

#[test]
fn the_calls_of_a_service_that_does_not_read_wait_until_it_reads() {
    for cores in [1, 2] {
        let scene = Scene::new(
            cores,
            "[[services]]\npattern = \"work\"\nqueue_calls = 3000\n",
            &[("RINGCAST_OUTBOX_BYTES_MAX", "500000")],
        );
        let mut service = scene.service("work", 1);
        service.call("$serve", &json!({"procedure": "note"})).unwrap();
        let mut caller = scene.client();
        let first = caller.begin("work", &json!(0));
        let asked = service.asked();
        let transmitted = fill(&scene, &mut caller, "note");
        let cids: Vec<u64> = (0..2500).map(|at| caller.begin("work", &json!(at))).collect();
        caller.has_all();
        // All of them wait for this answer. The service has room for none of them.
        service.answer(&asked, &json!(0));
        caller.end(first).unwrap();
        caller.has_all();
        assert!(caller.kept.is_empty(), "{:?}", caller.kept);
        let mut events = 0;
        for (at, cid) in cids.into_iter().enumerate() {
            let asked = loop {
                let asked = service.asked();
                if asked.cid.is_some() {
                    break asked;
                }
                events += 1;
            };
            assert_eq!(asked.data["data"], at, "in order");
            service.answer(&asked, &json!(at));
            assert_eq!(caller.end(cid), Ok(json!(at)));
        }
        let counted = |result: &str| {
            scene.metric(&format!(
                "ringcast_service_events_total{{pattern=\"\",result=\"{result}\"}}"
            ))
        };
        assert_eq!(counted("sent"), events);
        assert_eq!(counted("sent") + counted("dropped"), transmitted);
        scene.is_at_rest();
    }
}

#[test]
fn the_calls_of_a_service_that_does_not_read_go_to_another_one() {
    for cores in [1, 8] {
        let scene = Scene::new(cores, "", &[("RINGCAST_OUTBOX_BYTES_MAX", "500000")]);
        let mut stalled = scene.service("note", 64);
        stalled
            .call("$serve", &json!({"procedure": "work", "window": 64}))
            .unwrap();
        let mut caller = scene.client();
        fill(&scene, &mut caller, "note");
        let mut healthy = scene.service("work", 64);
        for at in 0..50 {
            let cid = caller.begin("work", &json!(at));
            let asked = healthy.asked();
            assert_eq!(asked.data["data"], at);
            healthy.answer(&asked, &json!(at));
            assert_eq!(caller.end(cid), Ok(json!(at)));
        }
        scene.is_at_rest();
    }
}

#[test]
fn without_a_service_the_configuration_says_error_or_silence() {
    let config =
        "[[services]]\npattern = \"loud.*\"\n[[services]]\npattern = \"still.*\"\nabsent = \"silent\"\n";
    let scene = Scene::new(2, config, &[]);
    let mut caller = scene.client();
    let cid = caller.begin("loud.x", &Value::Null);
    assert_eq!(caller.error(cid), "NoServiceError");
    caller.begin("still.x", &Value::Null);
    caller.begin("unknown", &Value::Null);
    caller.has_all();
    assert!(caller.kept.is_empty(), "{:?}", caller.kept);
    // With a service, and after it.
    let mut service = scene.service("still.*", 2);
    let cid = caller.begin("still.x", &json!(1));
    let asked = service.asked();
    service.answer(&asked, &json!(2));
    assert_eq!(caller.end(cid), Ok(json!(2)));
    service
        .call("$unserve", &json!({"procedure": "still.*"}))
        .unwrap();
    // After a reload, calls without a service get an error instead of silence.
    scene.reload(&format!("{RULES}[[services]]\npattern = \"still.*\"\n"));
    eventually("the reload is in force", || {
        let cid = caller.begin("still.x", &Value::Null);
        caller.has_all();
        caller.kept.iter().any(|message| message["rid"] == cid)
    });
}

#[test]
fn a_call_that_waits_goes_on_to_a_service_of_a_prefix_when_the_last_of_its_name_goes() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "[[services]]\npattern = \"math.add\"\n", &[]);
        let named = scene.service("math.add", 1);
        let mut prefix = scene.service("math.*", 8);
        let mut caller = scene.client();
        let first = caller.begin("math.add", &json!(1));
        let waiting = caller.begin("math.add", &json!(2));
        let mut named = named;
        assert_eq!(named.asked().data["data"], 1);
        named.client.reset();
        assert_eq!(caller.error(first), "ServiceGoneError");
        let asked = prefix.asked();
        assert_eq!(
            (asked.event.as_str(), &asked.data["data"]),
            ("math.add", &json!(2))
        );
        prefix.answer(&asked, &json!("done"));
        assert_eq!(caller.end(waiting), Ok(json!("done")));
        scene.is_at_rest();
    }
}

/// The application answers `ping` and handles the event: a service of everything gets neither.
#[test]
fn an_event_that_the_application_has_handled_reaches_no_service() {
    let scene = Scene::new(2, "", &[]);
    let mut all = scene.service("*", 8);
    let mut caller = scene.client();
    caller.transmit("ping", &json!(1));
    caller.find(|message| message["event"] == "pong");
    caller.transmit("other", &json!(2));
    assert_eq!(all.asked().event, "other");
    assert!(all.kept.is_empty(), "{:?}", all.kept);
}

/// Registers and gives up the same patterns in one write, as often as a turn reads, and ends with one that is served or
/// with none: the last word counts, each call is answered, and the owner keeps no member that the client does not know
/// of.
#[test]
fn patterns_that_are_registered_and_given_up_in_alternation_end_as_the_client_said_last() {
    for cores in [1, 2, 8] {
        let scene = Scene::new(cores, "", &[("RINGCAST_SERVICE_MEMBERS_MAX", "1")]);
        let mut caller = scene.client();
        for round in 0..10 {
            let mut clients: Vec<Peer> = (0..2).map(|_| scene.user("server")).collect();
            let mut last = Vec::new();
            for client in &mut clients {
                let mut bytes = Vec::new();
                for at in 0..101_u64 {
                    let event = if at % 2 == 0 || at % 7 == 1 {
                        "$serve"
                    } else {
                        "$unserve"
                    };
                    let data = json!({"procedure": "p", "window": 1 + at});
                    let call = json!({"event": event, "data": data, "cid": 1000 + at}).to_string();
                    bytes.extend(frame(TEXT, call.as_bytes()));
                }
                client.client.send_bytes(&bytes);
            }
            for client in &mut clients {
                let ends: Vec<_> = (0..101).map(|at| client.end(1000 + at)).collect();
                last.push(ends[100].clone());
            }
            let serving = last.iter().filter(|end| end.is_ok()).count();
            assert_eq!(serving, 1, "round {round} on {cores} cores: {last:?}");
            assert_eq!(scene.metric("ringcast_service_members"), 1);
            let at = last.iter().position(Result::is_ok).unwrap();
            assert_eq!(last[at].as_ref().unwrap()["window"], 101);
            let cid = caller.begin("p", &json!(round));
            let asked = clients[at].asked();
            clients[at].answer(&asked, &json!(round));
            assert_eq!(caller.end(cid), Ok(json!(round)));
            drop(clients);
            eventually("nothing is served", || {
                scene.metric("ringcast_service_members") == 0
            });
        }
    }
}

#[test]
fn requests_beyond_a_limit_are_refused() {
    let scene = Scene::new(
        2,
        "",
        &[
            ("RINGCAST_SERVICES_PER_CONNECTION_MAX", "2"),
            ("RINGCAST_SERVICE_MEMBERS_MAX", "2"),
            ("RINGCAST_SERVICE_CALLS_PER_CONNECTION_MAX", "3"),
            ("RINGCAST_SERVICE_WINDOW_MAX", "2"),
        ],
    );
    let mut first = scene.service("a", 9);
    first.call("$serve", &json!({"procedure": "b"})).unwrap();
    let refused = first.call("$serve", &json!({"procedure": "c"})).unwrap_err();
    assert_eq!(refused["name"], "LimitError");
    let _second = scene.service("a", 2);
    let mut third = scene.user("server");
    let refused = third.call("$serve", &json!({"procedure": "a"})).unwrap_err();
    assert_eq!(refused["name"], "LimitError");
    let mut caller = scene.client();
    let cids: Vec<u64> = (0..4).map(|at| caller.begin("b", &json!(at))).collect();
    assert_eq!(caller.error(cids[3]), "ServiceBusyError");
    first.asked();
    first.asked();
    first.has_all();
    assert_eq!(first.calls_kept(), 0, "its window was cut to two");
    for limit in ["service_patterns", "service_members", "service_calls"] {
        let hits = scene.metric(&format!("ringcast_limit_hits_total{{limit=\"{limit}\"}}"));
        assert_eq!(hits, 1, "{limit}");
    }
}

#[test]
fn the_open_calls_of_a_core_have_so_many_bytes_together() {
    let scene = Scene::new(1, "", &[("RINGCAST_SERVICE_CALL_BYTES_PER_CORE_MAX", "50000")]);
    let mut service = scene.service("a", 64);
    let mut caller = scene.client();
    let cids: Vec<u64> = (0..3)
        .map(|_| caller.begin("a", &json!("x".repeat(20_000))))
        .collect();
    assert_eq!(caller.error(cids[2]), "ServiceBusyError");
    let hits = scene.metric("ringcast_limit_hits_total{limit=\"service_call_bytes\"}");
    assert_eq!(hits, 1);
    assert!(scene.metric("ringcast_service_call_bytes") > 40_000);
    for cid in &cids[..2] {
        let asked = service.asked();
        service.answer(&asked, &json!(1));
        assert_eq!(caller.end(*cid), Ok(json!(1)));
    }
    // Any one call has room.
    let cid = caller.begin("a", &json!("x".repeat(60_000)));
    let asked = service.asked();
    service.answer(&asked, &json!(1));
    assert_eq!(caller.end(cid), Ok(json!(1)));
    assert_eq!(scene.metric("ringcast_service_call_bytes"), 0);
}

/// Random numbers that a seed replays.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Answers, refuses, answers twice, lies about ids, forgets, gives up its pattern and comes back, or dies.
fn misbehave(mut service: Peer, mut random: Random) {
    let mut left = 20 + random.below(200);
    while left > 0 {
        left -= 1;
        let Received::Text(text) = service.client.event() else {
            return;
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        let Some(cid) = message["cid"].as_u64() else {
            continue;
        };
        let data = &message["data"]["data"];
        let answer = match random.below(20) {
            0..14 => json!({"rid": cid, "data": data}),
            14 | 15 => json!({"rid": cid, "error": {"name": "Refused", "message": "no"}}),
            16 => json!({"rid": cid + 1_000_000, "data": "wrong"}),
            17 => json!({"event": "$unserve", "data": {"procedure": "work.*"}, "cid": left}),
            18 => json!({"event": "$serve", "data": {"procedure": "work.*", "window": 7}, "cid": left}),
            _ => continue,
        };
        for _ in 0..1 + random.below(2) {
            if service
                .client
                .try_send_bytes(&support::frame::frame(0x81, answer.to_string().as_bytes()))
                .is_err()
            {
                return;
            }
        }
    }
    service.client.reset();
}

#[test]
fn each_call_of_a_thousand_callers_has_one_end_whatever_services_do() {
    for (cores, seed) in [(1, 11_u64), (2, 12), (8, 13)] {
        println!("seed {seed} on {cores} cores");
        let config = "[[services]]\npattern = \"work.*\"\ntimeout_ms = 1500\nqueue_calls = 300\n";
        let scene = Scene::new(cores, config, &[("RINGCAST_PINGS", "off")]);
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut bystander = scene.client();
        let mut callers: Vec<Peer> = (0..1000).map(|_| scene.client()).collect();
        let services: Vec<_> = (0..12)
            .map(|_| {
                let service = scene.service("work.*", 1 + u32::try_from(random.below(12)).unwrap());
                let random = Random(1 + random.below(u64::MAX - 1));
                std::thread::spawn(move || misbehave(service, random))
            })
            .collect();
        let mut cids: Vec<Vec<u64>> = Vec::new();
        for (at, caller) in callers.iter_mut().enumerate() {
            let calls = 1 + random.below(3);
            cids.push(
                (0..calls)
                    .map(|call| caller.begin("work.do", &json!([at, call])))
                    .collect(),
            );
            bystander.has_all();
        }
        // Some go without waiting for their answers.
        for gone in [10, 500, 900] {
            callers.remove(gone).client.reset();
            cids.remove(gone);
        }
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for (caller, cids) in callers.iter_mut().zip(&cids) {
            for cid in cids {
                let end = match caller.end(*cid) {
                    Ok(data) => {
                        assert!(data.is_array(), "its own data, not {data}");
                        "answered".to_owned()
                    }
                    Err(error) => error["name"].as_str().unwrap().to_owned(),
                };
                *ends.entry(end).or_default() += 1;
            }
        }
        scene.is_at_rest();
        for caller in &mut callers {
            caller.has_all();
            assert!(caller.kept.is_empty(), "a second end: {:?}", caller.kept);
        }
        println!("{ends:?}");
        assert!(ends["answered"] > 100, "{ends:?}");
        assert!(bystander.kept.is_empty());
        // The services that are left end with the server.
        drop(scene);
        for service in services {
            service.join().unwrap();
        }
    }
}

/// Sends the packets of the page, and expects the packets that the page says. A string that ends with `…` is any
/// string.
#[test]
fn the_page_about_services_shows_the_packets_of_the_server() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/services.md")).unwrap();
    let blocks = |kind: &str| -> Vec<&str> {
        let begin = format!("```{kind}\n");
        let parts = page.split(begin.as_str()).skip(1);
        parts.map(|part| part.split("```").next().unwrap()).collect()
    };
    let config = blocks("toml").concat();
    let folder = Folder::new();
    let file = folder.write("ringcast.toml", &config);
    let process = Process::start(&[
        ("RINGCAST_CONFIG", file.to_str().unwrap()),
        ("RINGCAST_AUTH_KEY", KEY),
        ("RINGCAST_CORES", "2"),
    ]);
    let mut peers: BTreeMap<&str, Peer> = BTreeMap::new();
    let mut steps = 0;
    for line in blocks("text").concat().lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let (direction, packet) = rest.trim_start().split_once(' ').unwrap();
        let peer = peers.entry(name).or_insert_with(|| {
            let mut client = process.connect();
            client.upgrade();
            client.handshake();
            let mut peer = Peer {
                client,
                kept: Vec::new(),
                calls: 100,
            };
            let claims = match name {
                "service" => json!({"sub": "server", "role": "service"}),
                _ => json!({"sub": "ann"}),
            };
            peer.call("#authenticate", &json!(token(&claims))).unwrap();
            peer
        });
        let said: Value = serde_json::from_str(packet).unwrap_or_else(|error| panic!("{error}: {packet}"));
        match direction {
            "→" => peer.client.send_text(packet),
            "←" => {
                let found: Value = serde_json::from_str(&peer.client.message()).unwrap();
                assert!(
                    is_as_said(&said, &found),
                    "the page says {said}, and it is {found}"
                );
            }
            other => panic!("{other}"),
        }
        steps += 1;
    }
    assert!(steps > 8, "{steps}");
}

fn is_as_said(said: &Value, found: &Value) -> bool {
    match (said, found) {
        (Value::String(said), Value::String(_)) if said.ends_with('…') => true,
        (Value::Object(said), Value::Object(found)) => {
            let mut members = said.iter().filter(|(key, _)| *key != "…");
            let is_whole = said.contains_key("…") || said.len() == found.len();
            is_whole && members.all(|(key, said)| found.get(key).is_some_and(|found| is_as_said(said, found)))
        }
        (said, found) => said == found,
    }
}
