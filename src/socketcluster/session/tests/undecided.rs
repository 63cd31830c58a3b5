//! Packets about which the application decides later.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::app::DeferredDecision;
use crate::decision::Limit;

/// Keeps late answers for the test, which takes the place of the core.
struct Way(SyncSender<LateAnswer>);

impl LateAnswerSender for Way {
    fn send(&self, answer: LateAnswer) -> Result<(), Returned> {
        self.0.send(answer).map_err(|_| Returned::Gone)
    }
}

/// Defers every decision, and gives its peer an order each time.
#[derive(Default)]
struct DeferringApp {
    asked: Vec<(&'static str, DeferredDecision)>,
    connected: u32,
}

impl DeferringApp {
    fn later(&mut self, what: &'static str, peer: &mut Peer<'_>) -> Refusal {
        peer.transmit("asked", what);
        let (refusal, decision) = peer.defer_decision();
        self.asked.push((what, decision));
        refusal
    }
}

impl App for DeferringApp {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Err(self.later("handshake", peer))
    }

    fn authenticate(&mut self, _claims: &Claims, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        Err(self.later("authenticate", peer))
    }

    fn subscribe(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        Err(self.later("subscribe", peer))
    }

    fn publish(
        &mut self,
        _channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        Err(self.later("publish", peer))
    }

    fn invoke(&mut self, _call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        peer.reply_empty()
    }

    fn connected(&mut self, _peer: &mut Peer<'_>) {
        self.connected += 1;
    }
}

/// A client whose handshake has come, and the decisions on their way to it.
struct UndecidedClient {
    client: Client<DeferringApp>,
    late: Receiver<LateAnswer>,
}

impl UndecidedClient {
    fn new() -> UndecidedClient {
        let (sender, late) = sync_channel(16);
        let mut client = Client::new(DeferringApp::default());
        client.scratch = session::Scratch::of_core(Arc::new(Way(sender)), 2);
        UndecidedClient { client, late }
    }

    fn open() -> UndecidedClient {
        let mut undecided = UndecidedClient::new();
        let handshake = r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##;
        assert_eq!(undecided.client.text(handshake), NOTHING);
        let expected = undecided.client.handshake_response("1", "");
        assert_eq!(
            undecided.decide("handshake", |decision| decision.allow()),
            [expected.as_str(), r#"{"event":"asked","data":"handshake"}"#]
        );
        undecided
    }

    /// The application makes its oldest pending decision.
    fn decide(
        &mut self,
        what: &str,
        decide: impl FnOnce(DeferredDecision) -> Result<(), Undelivered>,
    ) -> Outcome {
        assert!(self.client.session.is_waiting() && self.client.session.has_more());
        let (asked, decision) = self.client.app.asked.remove(0);
        assert_eq!(asked, what);
        decide(decision).unwrap();
        self.come()
    }

    /// A decision reaches the session.
    fn come(&mut self) -> Outcome {
        let late = self.late.try_recv().unwrap();
        self.client
            .run(|session, env, decisions| session.answer_late(late, env, decisions))
    }
}

fn asked(what: &str) -> String {
    format!(r#"{{"event":"asked","data":"{what}"}}"#)
}

#[test]
fn a_handshake_is_answered_when_all_about_it_is_decided_and_the_token_counts_from_then_on() {
    let mut undecided = UndecidedClient::new();
    assert_eq!(undecided.client.text(&good()), NOTHING);
    assert!(undecided.client.session.claims().is_none() && !undecided.client.session.is_open());
    assert_eq!(undecided.decide("handshake", DeferredDecision::allow), NOTHING);
    assert!(undecided.client.session.claims().is_none() && !undecided.client.session.is_open());
    let lines = undecided.decide("authenticate", DeferredDecision::allow).0;
    assert!(lines[0].starts_with(r#"{"rid":1,"data":{"id":""#), "{lines:?}");
    assert!(lines[0].ends_with(r#""isAuthenticated":true}}"#), "{lines:?}");
    assert_eq!(lines[1..], [asked("handshake"), asked("authenticate")]);
    assert!(undecided.client.session.is_open() && !undecided.client.session.is_waiting());
    assert_eq!(
        (
            undecided.client.app.connected,
            undecided.client.session.kept_bytes()
        ),
        (1, 0)
    );

    let mut undecided = UndecidedClient::new();
    undecided.client.text(&good());
    let refusal = AppError::new("closed").named("Closed");
    let lines = undecided
        .decide("handshake", |decision| decision.refuse(refusal))
        .0;
    assert!(
        lines[0].contains("Closed") && lines[1] == "close 4008",
        "{lines:?}"
    );
}

#[test]
fn a_refused_token_leaves_the_client_in_and_a_later_one_takes_the_place_of_the_former_user() {
    let mut undecided = UndecidedClient::open();
    assert_eq!(undecided.client.text(&authenticate(r#"{"sub":"ann"}"#)), NOTHING);
    let lines = undecided.decide("authenticate", DeferredDecision::allow).0;
    assert_eq!(
        lines,
        [
            r#"{"rid":2,"data":{"isAuthenticated":true,"authError":null}}"#,
            &asked("authenticate")
        ]
    );
    assert_eq!(undecided.client.text(&authenticate(r#"{"sub":"bob"}"#)), NOTHING);
    // Until then the client remains the former user.
    assert!(undecided.client.session.claims().unwrap().json().contains("ann"));
    let refusal = AppError::new("banned");
    let lines = undecided
        .decide("authenticate", |decision| decision.refuse(refusal))
        .0;
    assert!(lines[0].contains("banned"), "{lines:?}");
    assert!(undecided.client.session.claims().is_none());
}

#[test]
fn what_follows_in_an_array_waits_and_keeps_its_order() {
    let mut undecided = UndecidedClient::open();
    let array = r##"[{"event":"first","cid":2},
        {"event":"#subscribe","data":{"channel":"a","data":{"x":[1, 2.0]}},"cid":3},
        {"event":"#publish","data":{"channel":"b","data":"sent"},"cid":4},{"event":"last","cid":5}]"##;
    assert_eq!(undecided.client.text(array), [r#"{"rid":2}"#]);
    assert!(undecided.client.session.kept_bytes() > array.len());
    assert_eq!(
        undecided.decide("subscribe", DeferredDecision::allow),
        ["subscribe a 3", &asked("subscribe")]
    );
    assert!(undecided.client.session.has_more() && !undecided.client.session.is_waiting());
    assert_eq!(undecided.client.more(), NOTHING);
    let outcome = undecided.decide("publish", |decision| {
        decision.decide(|peer| Ok(peer.rewrite("changed")))
    });
    let publication = r##"publish b {"event":"#publish","data":{"channel":"b","data":"changed"}}"##;
    assert_eq!(outcome, [publication, r#"{"rid":4}"#, &asked("publish")]);
    assert_eq!(undecided.client.more(), [r#"{"rid":5}"#]);
    assert_eq!(
        (
            undecided.client.session.has_more(),
            undecided.client.session.kept_bytes()
        ),
        (false, 0)
    );
}

#[test]
fn a_decision_that_does_not_come_in_time_is_a_refusal_and_counts_no_more_when_it_comes() {
    let mut undecided = UndecidedClient::open();
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##;
    assert_eq!(undecided.client.text(subscribe), NOTHING);
    let deadline = undecided.client.now.uptime.as_ms() + 10_000;
    assert!(undecided.client.deadline_ms() <= deadline);
    undecided.client.wait_ms(9_999);
    assert!(!undecided.client.tick().0.iter().any(|line| line.contains("rid")));
    assert_eq!(undecided.client.deadline_ms(), deadline);
    undecided.client.wait_ms(1);
    assert_eq!(
        undecided.client.tick(),
        [
            r#"{"rid":2,"error":{"message":"The application did not decide in time","name":"TimeoutError"}}"#,
            &asked("subscribe")
        ]
    );
    assert!(!undecided.client.session.is_waiting());
    assert_eq!(undecided.client.scratch.take_hits().of(Limit::DecisionTime), 1);
    let (_, decision) = undecided.client.app.asked.pop().unwrap();
    decision.allow().unwrap();
    assert_eq!(undecided.come(), NOTHING);
}

#[test]
fn a_handshake_that_is_being_decided_does_not_time_out_by_itself() {
    let mut undecided = UndecidedClient::new();
    undecided.client.common.handshake_timeout = Duration::from_secs(2);
    undecided.client.text(&good());
    undecided.client.wait_ms(5_000);
    assert_eq!(undecided.client.tick(), NOTHING);
    undecided.client.wait_ms(5_000);
    let lines = undecided.client.tick().0;
    assert!(
        lines[0].contains("TimeoutError") && lines[1] == "close 4008",
        "{lines:?}"
    );
}

#[test]
fn a_decision_that_is_dropped_refuses_and_one_about_an_ended_session_does_nothing() {
    let mut undecided = UndecidedClient::open();
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##;
    undecided.client.text(subscribe);
    let outcome = undecided.decide("subscribe", |decision| {
        drop(decision);
        Ok(())
    });
    assert!(outcome.0[0].contains("UndecidedError"), "{outcome:?}");
    undecided.client.text(subscribe);
    undecided.client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerVanished);
        Ok(())
    });
    let (_, decision) = undecided.client.app.asked.pop().unwrap();
    decision.allow().unwrap();
    assert_eq!(undecided.come(), NOTHING);
}

#[test]
fn rules_and_tokens_are_those_of_the_moment_of_the_decision() {
    let mut undecided = UndecidedClient::open();
    undecided
        .client
        .text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##);
    undecided.client.policy.rules = Rules::compile(
        &[RuleSpec {
            effect: Effect::Deny,
            actions: vec![Action::Subscribe],
            channels: Some(vec!["**".into()]),
            ..RuleSpec::default()
        }],
        &[],
        '/',
        None,
    )
    .unwrap();
    let outcome = undecided.decide("subscribe", DeferredDecision::allow);
    assert!(
        outcome.0[0].contains("SilentMiddlewareBlockedError"),
        "{outcome:?}"
    );
}

#[test]
fn a_login_waits_for_the_application_as_a_token_does() {
    let mut undecided = UndecidedClient::open();
    undecided.client.policy = undecided.client.policy.clone().with_password_checks();
    let login = r#"{"event":"login","data":{"email":"ann","pw":"x"},"cid":2}"#;
    assert_eq!(undecided.client.text(login), ["login ann x"]);
    let issued = tokens()
        .issue(r#"{"sub":"ann"}"#, None, undecided.client.now.unix_ms)
        .unwrap();
    let answer = LoginAnswer::Accepted(issued);
    let outcome = undecided
        .client
        .run(|session, env, decisions| session.login_answered(answer, env, decisions));
    assert_eq!(outcome, NOTHING);
    let lines = undecided.decide("authenticate", DeferredDecision::allow).0;
    assert_eq!(lines[0], r#"{"rid":2}"#);
    assert!(lines[1].contains("#setAuthToken") && undecided.client.session.claims().is_some());
}
