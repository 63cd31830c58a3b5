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
struct Judge {
    asked: Vec<(&'static str, DeferredDecision)>,
    connected: u32,
}

impl Judge {
    fn later(&mut self, what: &'static str, peer: &mut Peer<'_>) -> Refusal {
        peer.transmit("asked", what);
        let (refusal, decision) = peer.defer_decision();
        self.asked.push((what, decision));
        refusal
    }
}

impl App for Judge {
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
struct Court {
    client: Client<Judge>,
    late: Receiver<LateAnswer>,
}

impl Court {
    fn new() -> Court {
        let (sender, late) = sync_channel(16);
        let mut client = Client::new(Judge::default());
        client.scratch = session::Scratch::of_core(Arc::new(Way(sender)), 2);
        Court { client, late }
    }

    fn open() -> Court {
        let mut court = Court::new();
        let handshake = r##"{"event":"#handshake","data":{"authToken":null},"cid":1}"##;
        assert_eq!(court.client.text(handshake), NOTHING);
        let expected = court.client.handshake_response("1", "");
        assert_eq!(
            court.decide("handshake", |decision| decision.allow()),
            [expected.as_str(), r#"{"event":"asked","data":"handshake"}"#]
        );
        court
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
    let mut court = Court::new();
    assert_eq!(court.client.text(&good()), NOTHING);
    assert!(court.client.session.claims().is_none() && !court.client.session.is_open());
    assert_eq!(court.decide("handshake", DeferredDecision::allow), NOTHING);
    assert!(court.client.session.claims().is_none() && !court.client.session.is_open());
    let lines = court.decide("authenticate", DeferredDecision::allow).0;
    assert!(lines[0].starts_with(r#"{"rid":1,"data":{"id":""#), "{lines:?}");
    assert!(lines[0].ends_with(r#""isAuthenticated":true}}"#), "{lines:?}");
    assert_eq!(lines[1..], [asked("handshake"), asked("authenticate")]);
    assert!(court.client.session.is_open() && !court.client.session.is_waiting());
    assert_eq!(
        (court.client.app.connected, court.client.session.kept_bytes()),
        (1, 0)
    );

    let mut court = Court::new();
    court.client.text(&good());
    let refusal = AppError::new("closed").named("Closed");
    let lines = court.decide("handshake", |decision| decision.refuse(refusal)).0;
    assert!(
        lines[0].contains("Closed") && lines[1] == "close 4008",
        "{lines:?}"
    );
}

#[test]
fn a_refused_token_leaves_the_client_in_and_a_later_one_takes_the_place_of_the_former_user() {
    let mut court = Court::open();
    assert_eq!(court.client.text(&authenticate(r#"{"sub":"ann"}"#)), NOTHING);
    let lines = court.decide("authenticate", DeferredDecision::allow).0;
    assert_eq!(
        lines,
        [
            r#"{"rid":2,"data":{"isAuthenticated":true,"authError":null}}"#,
            &asked("authenticate")
        ]
    );
    assert_eq!(court.client.text(&authenticate(r#"{"sub":"bob"}"#)), NOTHING);
    // Until then the client remains the former user.
    assert!(court.client.session.claims().unwrap().json().contains("ann"));
    let refusal = AppError::new("banned");
    let lines = court
        .decide("authenticate", |decision| decision.refuse(refusal))
        .0;
    assert!(lines[0].contains("banned"), "{lines:?}");
    assert!(court.client.session.claims().is_none());
}

#[test]
fn what_follows_in_an_array_waits_and_keeps_its_order() {
    let mut court = Court::open();
    let array = r##"[{"event":"first","cid":2},
        {"event":"#subscribe","data":{"channel":"a","data":{"x":[1, 2.0]}},"cid":3},
        {"event":"#publish","data":{"channel":"b","data":"sent"},"cid":4},{"event":"last","cid":5}]"##;
    assert_eq!(court.client.text(array), [r#"{"rid":2}"#]);
    assert!(court.client.session.kept_bytes() > array.len());
    assert_eq!(
        court.decide("subscribe", DeferredDecision::allow),
        ["subscribe a 3", &asked("subscribe")]
    );
    assert!(court.client.session.has_more() && !court.client.session.is_waiting());
    assert_eq!(court.client.more(), NOTHING);
    let outcome = court.decide("publish", |decision| {
        decision.decide(|peer| Ok(peer.rewrite("changed")))
    });
    let publication = r##"publish b {"event":"#publish","data":{"channel":"b","data":"changed"}}"##;
    assert_eq!(outcome, [publication, r#"{"rid":4}"#, &asked("publish")]);
    assert_eq!(court.client.more(), [r#"{"rid":5}"#]);
    assert_eq!(
        (court.client.session.has_more(), court.client.session.kept_bytes()),
        (false, 0)
    );
}

#[test]
fn a_decision_that_does_not_come_in_time_is_a_refusal_and_counts_no_more_when_it_comes() {
    let mut court = Court::open();
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##;
    assert_eq!(court.client.text(subscribe), NOTHING);
    let deadline = court.client.now.uptime.as_ms() + 10_000;
    assert!(court.client.deadline_ms() <= deadline);
    court.client.wait_ms(9_999);
    assert!(!court.client.tick().0.iter().any(|line| line.contains("rid")));
    assert_eq!(court.client.deadline_ms(), deadline);
    court.client.wait_ms(1);
    assert_eq!(
        court.client.tick(),
        [
            r#"{"rid":2,"error":{"message":"The application did not decide in time","name":"TimeoutError"}}"#,
            &asked("subscribe")
        ]
    );
    assert!(!court.client.session.is_waiting());
    assert_eq!(court.client.scratch.take_hits().of(Limit::DecisionTime), 1);
    let (_, decision) = court.client.app.asked.pop().unwrap();
    decision.allow().unwrap();
    assert_eq!(court.come(), NOTHING);
}

#[test]
fn a_handshake_that_is_being_decided_does_not_time_out_by_itself() {
    let mut court = Court::new();
    court.client.common.handshake_timeout = Duration::from_secs(2);
    court.client.text(&good());
    court.client.wait_ms(5_000);
    assert_eq!(court.client.tick(), NOTHING);
    court.client.wait_ms(5_000);
    let lines = court.client.tick().0;
    assert!(
        lines[0].contains("TimeoutError") && lines[1] == "close 4008",
        "{lines:?}"
    );
}

#[test]
fn a_decision_that_is_dropped_refuses_and_one_about_an_ended_session_does_nothing() {
    let mut court = Court::open();
    let subscribe = r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##;
    court.client.text(subscribe);
    let outcome = court.decide("subscribe", |decision| {
        drop(decision);
        Ok(())
    });
    assert!(outcome.0[0].contains("UndecidedError"), "{outcome:?}");
    court.client.text(subscribe);
    court.client.run(|session, env, _| {
        session.ended(env, CloseReason::PeerVanished);
        Ok(())
    });
    let (_, decision) = court.client.app.asked.pop().unwrap();
    decision.allow().unwrap();
    assert_eq!(court.come(), NOTHING);
}

#[test]
fn rules_and_tokens_are_those_of_the_moment_of_the_decision() {
    let mut court = Court::open();
    court
        .client
        .text(r##"{"event":"#subscribe","data":{"channel":"a"},"cid":2}"##);
    court.client.policy.rules = Rules::compile(
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
    let outcome = court.decide("subscribe", DeferredDecision::allow);
    assert!(
        outcome.0[0].contains("SilentMiddlewareBlockedError"),
        "{outcome:?}"
    );
}

#[test]
fn a_login_waits_for_the_application_as_a_token_does() {
    let mut court = Court::open();
    court.client.policy = court.client.policy.clone().with_password_checks();
    let login = r#"{"event":"login","data":{"email":"ann","pw":"x"},"cid":2}"#;
    assert_eq!(court.client.text(login), ["login ann x"]);
    let issued = tokens()
        .issue(r#"{"sub":"ann"}"#, None, court.client.now.unix_ms)
        .unwrap();
    let answer = LoginAnswer::Accepted(issued);
    let outcome = court
        .client
        .run(|session, env, decisions| session.login_answered(answer, env, decisions));
    assert_eq!(outcome, NOTHING);
    let lines = court.decide("authenticate", DeferredDecision::allow).0;
    assert_eq!(lines[0], r#"{"rid":2}"#);
    assert!(lines[1].contains("#setAuthToken") && court.client.session.claims().is_some());
}
