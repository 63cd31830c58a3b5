//! One request about publications of several clients: which questions share a request, the assignment of answers, and
//! the answers that are none.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringcast::config::hooks::{CacheBy, HookAction, HookSpec, WhenAway};
use serde_json::{Value, json};

use crate::support::backend::{Asked, Backend};
use crate::support::folder::Folder;
use crate::support::mqtt::{MqttServer, publish};
use crate::support::process::Process;
use crate::support::{Client, PATIENCE, eventually};
use crate::{asking, backend_that, hook, parsed, with_hook};

use HookAction::{Publish, Subscribe};

/// The questions of a request, which is one with several.
fn questions(asked: &Asked) -> &[Value] {
    asked.json.as_array().expect("an array of questions")
}

/// A backend that answers each question of each request about publications.
fn backend_that_answers_each(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Backend {
    backend_that(move |asked| questions(asked).iter().map(&answer).collect())
}

/// Batches of so many publications, for which the first waits longer than a test takes.
fn of(count: u32) -> impl FnOnce(&mut HookSpec) {
    move |hook| {
        hook.batch_max = count;
        hook.batch_wait = PATIENCE * 10;
        hook.timeout = PATIENCE * 20;
    }
}

/// A publication that waits for the answer of the backend.
fn begin_publish(client: &mut Client, channel: &str, data: &str) -> u64 {
    client.begin_call("#publish", &format!(r#"{{"channel":"{channel}","data":{data}}}"#))
}

#[test]
fn publications_of_several_clients_share_a_request_and_each_gets_its_own_answer() {
    let backend = backend_that_answers_each(|question| match question["data"].as_u64() {
        Some(number) if number % 2 == 0 => json!({"allow": true, "data": {"even": number}}),
        Some(number) => json!({"error": format!("{number} is odd")}),
        // The payload of a device.
        None => json!({"allow": question["payload"] == "//4="}),
    });
    let mut hook = hook(&backend.url(), &[Publish]);
    of(10)(&mut hook);
    let server = MqttServer::start(|config| {
        with_hook(config, hook);
        config.limits.decision_timeout = PATIENCE * 30;
    });
    let mut reader = server.server.client();
    reader.subscribe("a");
    let mut clients: Vec<(Client, u64)> = (0..8)
        .map(|number| {
            let mut client = server.server.client();
            let call = begin_publish(&mut client, "a", &number.to_string());
            (client, call)
        })
        .collect();
    let mut lamps = [&b"\xff\xfe"[..], b"\xff"].map(|payload| {
        let mut lamp = server.connect(5, &format!("lamp{}", payload.len()));
        lamp.send(&publish(5, 2, "lamps", 7, &[], payload));
        lamp
    });
    for (number, (client, call)) in clients.iter_mut().enumerate() {
        let expected = match number % 2 {
            0 => format!(r#"{{"rid":{call}}}"#),
            _ => format!(r#"{{"rid":{call},"error":"{number} is odd"}}"#),
        };
        assert_eq!(client.message(), expected);
    }
    let pubacks = lamps.each_mut().map(|lamp| lamp.packet());
    assert!(pubacks[0].len() == 4 || pubacks[0][4] < 0x80, "{pubacks:?}");
    assert_eq!(pubacks[1][4], 0x87, "{pubacks:?}");
    let mut received: Vec<u64> = (0..4)
        .map(|_| parsed(&reader.publication("a"))["even"].as_u64().unwrap())
        .collect();
    received.sort_unstable();
    assert_eq!(received, [0, 2, 4, 6]);
    assert_eq!(backend.asked(), 1);
}

#[test]
fn each_connection_keeps_the_order_of_its_publications_and_a_question_alone_is_asked_after_its_wait() {
    let backend = backend_that_answers_each(|_| json!({"allow": true}));
    let server = asking(&backend, &[Publish], |hook| {
        (hook.batch_max, hook.batch_wait) = (3, Duration::from_millis(1));
    });
    let mut reader = server.client();
    reader.subscribe("a");
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for number in 0..25 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.publish("a", &(index * 1000 + number).to_string());
        }
    }
    let mut next = BTreeMap::new();
    for _ in 0..100 {
        let number: usize = reader.publication("a").parse().unwrap();
        let expected = next.entry(number / 1000).or_insert(0);
        assert_eq!(number % 1000, *expected, "client {}", number / 1000);
        *expected += 1;
    }
    // Nobody else publishes: a batch of one.
    let before = backend.asked();
    begin_publish(&mut clients[0], "a", "99");
    assert_eq!(reader.publication("a"), "99");
    assert_eq!(backend.asked(), before + 1);
}

#[test]
fn only_publications_are_asked_about_in_batches_and_a_cached_answer_needs_none() {
    let backend = backend_that(|asked| match asked.text("/action") {
        "subscribe" => json!({"allow": true}),
        _ => questions(asked).iter().map(|_| json!({"allow": true})).collect(),
    });
    let server = asking(&backend, &[Publish, Subscribe], |hook| {
        (hook.batch_max, hook.batch_wait) = (2, Duration::from_millis(1));
        (hook.cache, hook.cache_by) = (PATIENCE * 10, vec![CacheBy::Data]);
    });
    let mut client = server.client();
    client.subscribe("a");
    for _ in 0..3 {
        client.publish("a", "1");
        assert_eq!(client.publication("a"), "1");
    }
    assert_eq!(backend.asked(), 2);
}

/// Publishes by three clients at the same time, and returns the names of their errors, in their order.
fn publish_by_three(backend: &Backend, change: impl FnOnce(&mut HookSpec)) -> Vec<Value> {
    let server = asking(backend, &[Publish], |hook| {
        of(3)(hook);
        hook.failures_max = 0;
        change(hook);
    });
    let mut clients: Vec<Client> = (0..3)
        .map(|number| {
            let mut client = server.client();
            begin_publish(&mut client, "a", &number.to_string());
            client
        })
        .collect();
    let answers = clients.iter_mut().map(|client| parsed(&client.message()));
    answers.map(|answer| answer["error"]["name"].clone()).collect()
}

#[test]
fn an_answer_that_is_no_array_of_the_same_length_decides_none_of_the_questions() {
    let allow = json!({"allow": true});
    for answer in [
        allow.clone(),
        json!([]),
        json!([allow, allow]),
        json!([allow, allow, allow, allow]),
        json!({"0": allow, "1": allow, "2": allow}),
        json!([{}, {"alow": true}, [allow]]),
        json!("no"),
    ] {
        let said = answer.clone();
        let backend = Backend::start(move |_| said.clone());
        let errors = publish_by_three(&backend, |_| {});
        assert_eq!(errors, ["HookUnavailableError"; 3], "{answer}");
        let errors = publish_by_three(&backend, |hook| hook.when_away = WhenAway::Allow);
        assert_eq!(errors, [Value::Null, Value::Null, Value::Null], "{answer}");
    }
}

#[test]
fn one_wrong_answer_among_right_ones_is_the_end_of_its_question_alone() {
    let backend = Backend::start(|asked| {
        let answer = |question: &Value| match question["data"].as_u64() {
            Some(0) => json!({"alow": true}),
            Some(1) => json!({"answer": "to a publication"}),
            _ => json!({"allow": true}),
        };
        questions(asked).iter().map(answer).collect()
    });
    let errors = publish_by_three(&backend, |_| {});
    assert_eq!(
        errors,
        [
            json!("HookUnavailableError"),
            json!("HookUnavailableError"),
            Value::Null
        ]
    );
}

#[test]
fn a_request_that_fails_is_one_failure_of_the_target_whatever_it_asks() {
    let backend = Backend::start(|_| json!({"error": "not an array"}));
    let server = asking(&backend, &[Publish], |hook| {
        of(3)(hook);
        hook.failures_max = 2;
    });
    let publish_by_three = || {
        let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        for client in &mut clients {
            begin_publish(client, "a", "1");
        }
        for client in &mut clients {
            assert_eq!(parsed(&client.message())["error"]["name"], "HookUnavailableError");
        }
    };
    publish_by_three();
    publish_by_three();
    assert_eq!(backend.asked(), 2, "three failures would have been too many");
    publish_by_three();
    // One more on a machine that is so slow that the pause is over.
    assert!(backend.asked() <= 3, "{}", backend.asked());
}

#[test]
fn a_target_that_hangs_is_away_for_each_question_of_a_batch() {
    let backend = Backend::raw(|_, _| true);
    let errors = publish_by_three(&backend, |hook| {
        (hook.timeout, hook.batch_wait) = (Duration::from_millis(200), Duration::from_millis(1));
    });
    assert_eq!(errors, ["HookUnavailableError"; 3]);
}

/// The answers of a backend that wait for the test, and how many questions each request had.
type Held = (
    Backend,
    std::sync::mpsc::Receiver<usize>,
    std::sync::mpsc::SyncSender<()>,
);

fn held() -> Held {
    let (tell, told) = sync_channel(100);
    let (go_on, going_on) = sync_channel(100);
    let going_on = Arc::new(Mutex::new(going_on));
    let backend = backend_that(move |asked| {
        tell.send(questions(asked).len()).unwrap();
        going_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        questions(asked)
            .iter()
            .map(|question| json!({"error": question["channel"]}))
            .collect()
    });
    (backend, told, go_on)
}

/// A configuration with batches of at most ten publications.
fn gate(backend: &Backend, more: &str) -> String {
    format!(
        "[[hooks]]\nname = \"gate\"\nactions = \"publish\"\nchannels = \"**\"\nbatch_max = 10\nurl = \"{}\"\n\
         timeout_ms = 9000\n{more}",
        backend.url()
    )
}

fn gathered(process: &Process, count: u64) {
    let mut admin = process.admin();
    eventually("the questions are open", || {
        admin.metric("ringcast_hook_open{hook=\"gate\"}") == count
    });
}

#[test]
fn questions_that_wait_for_their_turn_are_asked_together() {
    let (backend, told, go_on) = held();
    let folder = Folder::new();
    let file = folder.write(
        "ringcast.toml",
        &gate(&backend, "concurrency = 1\nbatch_wait_ms = 0\n"),
    );
    let process = Process::start(&[("RINGCAST_CONFIG", file.to_str().unwrap())]);
    let mut clients: Vec<Client> = (0..14).map(|_| process.client()).collect();
    begin_publish(&mut clients[0], "0", "1");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), 1);
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        begin_publish(client, &number.to_string(), "1");
    }
    gathered(&process, 14);
    for count in [10, 3] {
        go_on.send(()).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), count);
    }
    go_on.send(()).unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(parsed(&client.message())["error"], json!(number.to_string()));
    }
    let requests = process
        .admin()
        .metric("ringcast_hook_requests_total{hook=\"gate\"}");
    assert_eq!((requests, backend.asked()), (3, 3));
}

#[test]
fn a_batch_that_gathers_is_asked_by_its_hook_whatever_a_reload_has_done() {
    let (backend, told, go_on) = held();
    let folder = Folder::new();
    let file = folder.write("ringcast.toml", &gate(&backend, "batch_wait_ms = 3000\n"));
    let process = Process::start(&[("RINGCAST_CONFIG", file.to_str().unwrap())]);
    let mut clients: Vec<Client> = (0..9).map(|_| process.client()).collect();
    for client in &mut clients {
        begin_publish(client, "a", "1");
    }
    gathered(&process, 9);
    process.reload(&file, "");
    // On a machine that is so slow that the wait is over, there are several requests.
    (0..clients.len()).for_each(|_| go_on.send(()).unwrap());
    for client in &mut clients {
        assert_eq!(parsed(&client.message())["error"], "a");
    }
    assert!(told.iter().take(1).eq([9]) || backend.asked() > 1);
}
