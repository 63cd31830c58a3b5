//! Retained publications for MQTT subscribers: the core asks the owners of topics for pages, and sends these below live
//! publications in priority; as an owner, it answers.
//!
//! A client is sent the retained publications from before the place at which its subscription becomes live,
//! with RETAIN 1 (section 3.3.1.3). Each is sent only if it is still the newest one of its topic at that
//! time; newer ones come live. So a client sees the retained publications of a topic in their order, and each
//! once.
//!
//! Limits: [`SENT_PER_TURN_MAX`] and [`BYTES_PER_TURN_MAX`]; `mqtt_retained_per_subscribe_max`; those of
//! `outgoing/retained_asks.rs` and `delivery/retained_topics.rs`.

use std::sync::Arc;

use crate::app::App;
use crate::broker::{Sent, Sequence};
use crate::decision::Limit;
use crate::json::{Unquoted, unquote};
use crate::mqtt::sessions::{Content, Quotes, SessionRef};
use crate::retained::{Entry, Filter};

use crate::cores::connections::retained::Handed;
use crate::cores::core::Core;
use crate::cores::delivery::retained_topics::ANSWERS_PER_TURN_MAX;
use crate::cores::outgoing::retained_asks::{Ask, Progress, RetainedOptions};
use crate::cores::post::letter::{Letter, RetainedAnswer, RetainedPurpose, RetainedQuestion};

impl<A: App> Core<A> {
    /// A session has subscribed: it is to be sent the retained publications that the filter matches.
    pub(in crate::cores) fn ask_for_retained(
        &mut self,
        session: SessionRef,
        text: &str,
        options: RetainedOptions,
    ) {
        let Some(topics) = self.delivery.retained() else {
            return;
        };
        topics.watch(true);
        let cores = self.delivery.core_count();
        let is_exact = !text.contains(['+', '#']);
        let owner = self.delivery.owner_of(text.as_bytes());
        let ask = Ask {
            number: 0,
            session,
            text: text.into(),
            filter: Arc::new(Filter::new(text)),
            options,
            before: self.delivery.next_for_mqtt(&self.connections),
            owners: match is_exact {
                true => owner..owner + 1,
                false => 0..cores,
            },
            left: self.retained_per_subscribe_max,
            progress: Progress::ToAsk { from: None },
        };
        self.retained_asks.add(ask);
    }

    /// Goes on to send subscribers their retained publications, and answers other cores: a part in each turn.
    #[inline]
    pub(in crate::cores) fn serve_retained(&mut self) {
        if !self.retained_asks.is_empty() {
            self.serve_some_retained();
        }
        let appended = self.delivery.appended();
        if self
            .delivery
            .retained()
            .is_some_and(|topics| topics.has_work(appended))
        {
            self.answer_some_retained(appended);
        }
    }

    #[cold]
    fn answer_some_retained(&mut self, appended: Sequence) {
        let unix_ms = self.time.now().unix_ms;
        for _ in 0..ANSWERS_PER_TURN_MAX {
            let Some(topics) = self.delivery.retained() else {
                return;
            };
            topics.maintain(unix_ms);
            let Some((asker, answer)) = topics.next_answer(appended, unix_ms) else {
                return;
            };
            self.post
                .send(asker.index(), Letter::RetainedAnswer(Box::new(answer)));
        }
    }

    /// Takes a question of a core, which may be this one.
    pub(in crate::cores) fn take_retained_question(&mut self, question: Box<RetainedQuestion>) {
        if let Some(topics) = self.delivery.retained() {
            topics.ask(question);
        }
    }

    /// Takes the answer to a question of this core.
    pub(in crate::cores) fn take_retained_answer(&mut self, answer: RetainedAnswer) {
        let number = match answer.purpose {
            RetainedPurpose::Filter(number) => number,
            RetainedPurpose::Recovery(number) => {
                return self.retained_was_read(number, answer.page.entries.first());
            }
        };
        let Some(ask) = self.retained_asks.get(number) else {
            return;
        };
        let mut entries = answer.page.entries;
        entries.reverse();
        ask.progress = Progress::Sending {
            entries,
            next: answer.page.next,
            read_at: answer.read_at,
        };
        self.retained_asks.has_work = true;
    }

    #[cold]
    fn serve_some_retained(&mut self) {
        self.retained_asks.has_work = false;
        self.retained_asks.awaits_box = false;
        while let Some((session, exists)) = self.connections.next_woken_mqtt() {
            match exists {
                true => self.retained_asks.wake(session),
                false => self.retained_asks.end(session),
            }
        }
        self.watch_retained();
        let mut budget = Budget {
            publications: SENT_PER_TURN_MAX,
            bytes: BYTES_PER_TURN_MAX,
        };
        for _ in 0..self.retained_asks.activate() {
            let Some(ask) = self.retained_asks.take_next() else {
                break;
            };
            let session = ask.session;
            match self.serve_one_retained(ask, &mut budget) {
                Served::Unfinished(ask, Then::GoOn) => {
                    self.retained_asks.has_work = true;
                    self.retained_asks.put_back(ask);
                }
                Served::Unfinished(ask, Then::TryBoxAgain) => {
                    self.retained_asks.awaits_box = true;
                    self.retained_asks.put_back(ask);
                }
                Served::Unfinished(ask, Then::AwaitAnswer) => self.retained_asks.put_back(ask),
                Served::Unfinished(ask, Then::AwaitClient) => {
                    if self.retained_asks.have_waiting() {
                        self.connections.watch_for_retained(session);
                        self.retained_asks.suspend(ask);
                    } else {
                        self.retained_asks.put_back(ask);
                    }
                }
                Served::Unfinished(ask, Then::Park) => {
                    self.connections.watch_for_retained(session);
                    self.retained_asks.suspend(ask);
                }
                Served::Done => self.retained_asks.note_done(session),
                Served::SessionEnded => self.retained_asks.end(session),
            }
        }
        self.retained_asks.free_some();
        self.retained_asks.has_work |= self.retained_asks.can_go_on();
        self.watch_retained();
    }

    /// Notes the topics of retained publications that pass, while pages are on their way.
    fn watch_retained(&mut self) {
        let is_sending = self.retained_asks.is_sending();
        if let Some(topics) = self.delivery.retained() {
            topics.watch(is_sending);
        }
    }

    /// Goes on with one subscription.
    fn serve_one_retained(&mut self, mut ask: Ask, budget: &mut Budget) -> Served {
        if !self.connections.has_filter(ask.session, &ask.text) {
            // The client has unsubscribed, or the rules have taken the filter away, or the session has ended.
            return Served::Done;
        }
        loop {
            match std::mem::replace(&mut ask.progress, Progress::Asked) {
                Progress::Asked => return Served::Unfinished(ask, Then::AwaitAnswer),
                Progress::ToAsk { .. } if ask.owners.is_empty() || ask.left == 0 => return Served::Done,
                Progress::ToAsk { from } => {
                    // No page is requested while the client would not take it.
                    match self.connections.takes_retained(ask.session, ask.options.qos) {
                        Handed::Over | Handed::Withheld | Handed::Full => {}
                        handed @ (Handed::Blocked | Handed::Offline | Handed::Ended) => {
                            ask.progress = Progress::ToAsk { from };
                            return Served::not_sent(ask, handed);
                        }
                    }
                    match self.ask_for_page(&ask, from.as_deref()) {
                        Asked::Yes => return Served::Unfinished(ask, Then::AwaitAnswer),
                        Asked::BoxFull => {
                            ask.progress = Progress::ToAsk { from };
                            return Served::Unfinished(ask, Then::TryBoxAgain);
                        }
                        Asked::Stopped => {
                            ask.owners.start += 1;
                            ask.progress = Progress::ToAsk { from: None };
                        }
                    }
                }
                Progress::Sending {
                    mut entries,
                    next,
                    read_at,
                } => {
                    let knows = self
                        .delivery
                        .retained()
                        .is_some_and(|topics| topics.knows_since(read_at));
                    if !knows && let Some(first) = entries.last() {
                        // Too many publications have passed since the owner read this page, so their topics
                        // are not known any more.
                        ask.progress = Progress::ToAsk {
                            from: Some(first.place().into()),
                        };
                        continue;
                    }
                    let sent = self.send_page(&mut ask, &mut entries, budget);
                    if let Page::NotYet(handed) = sent {
                        ask.progress = Progress::Sending {
                            entries,
                            next,
                            read_at,
                        };
                        return Served::not_sent(ask, handed);
                    }
                    if matches!(sent, Page::Enough) {
                        return Served::Done;
                    }
                    if next.is_none() {
                        ask.owners.start += 1;
                    }
                    ask.progress = Progress::ToAsk { from: next };
                }
            }
        }
    }

    /// Asks an owner for a page.
    fn ask_for_page(&mut self, ask: &Ask, from: Option<&[u8]>) -> Asked {
        let owner = ask.owners.start;
        if !self.post.has_room(owner) {
            return Asked::BoxFull;
        }
        let question = RetainedQuestion {
            asker: self.id,
            purpose: RetainedPurpose::Filter(ask.number),
            filter: Arc::clone(&ask.filter),
            from: from.map(Into::into),
            before: ask.before,
            read_up_to: self.delivery.appended(),
            entries_max: ask.left as usize,
        };
        match self
            .post
            .send(owner, Letter::RetainedQuestion(Box::new(question)))
        {
            Sent::Sent | Sent::Kept => Asked::Yes,
            Sent::Dropped => Asked::Stopped,
        }
    }

    /// Sends as much of a page as the client takes.
    fn send_page(&mut self, ask: &mut Ask, entries: &mut Vec<Entry>, budget: &mut Budget) -> Page {
        let unix_ms = self.time.now().unix_ms;
        let (mut topic, mut unquoted) = (Vec::new(), Vec::new());
        while let Some(entry) = entries.last() {
            if budget.is_spent() || self.connections.room(1) == 0 {
                return Page::NotYet(Handed::Full);
            }
            topic.clear();
            entry.write_topic(&mut topic);
            let (facts, hash) = (entry.facts(), self.delivery.hasher().hash(&topic));
            let is_over = self
                .delivery
                .retained()
                .is_none_or(|topics| topics.is_superseded(hash, &facts))
                || facts.is_by(ask.options.except)
                || facts.expires_at_ms.is_some_and(|expires| expires <= unix_ms);
            if is_over {
                budget.publications -= 1;
                entries.pop();
                continue;
            }
            unquoted.clear();
            let kind = match facts.is_unquoted {
                true => unquote(entry.payload(), &mut unquoted),
                false => None,
            };
            let (payload, is_utf8, quotes) = match kind {
                Some(kind) => (&unquoted[..], kind == Unquoted::Text, Quotes::Removed),
                None if facts.is_unquoted => (entry.payload(), facts.is_text, Quotes::Absent),
                None => (entry.payload(), facts.is_text, Quotes::Kept),
            };
            let content = Content {
                topic: &topic,
                properties: entry.properties(),
                payload,
                expires_at: facts.expires_at_ms,
                is_utf8,
                quotes,
            };
            let RetainedOptions { qos, id, .. } = ask.options;
            let qos = qos.min(facts.qos);
            let inspector = &mut self.resources.inspector();
            match self
                .connections
                .send_retained(ask.session, &content, qos, id, unix_ms, inspector)
            {
                Handed::Withheld => {
                    budget.publications -= 1;
                    entries.pop();
                }
                Handed::Over => {
                    budget.publications -= 1;
                    budget.bytes = budget.bytes.saturating_sub(entry.memory_bytes());
                    entries.pop();
                    ask.left -= 1;
                    if ask.left == 0 {
                        self.metrics.limit_hit(Limit::MqttRetainedPerSubscribe);
                        return Page::Enough;
                    }
                }
                handed @ (Handed::Full | Handed::Blocked | Handed::Offline | Handed::Ended) => {
                    return Page::NotYet(handed);
                }
            }
        }
        Page::Sent
    }
}

/// The fate of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// All of it is sent.
    Sent,
    /// The subscription has been sent as many publications as it may get.
    Enough,
    /// A part is left, for this reason.
    NotYet(Handed),
}

/// The progress of a subscription.
enum Served {
    /// All is sent.
    Done,
    SessionEnded,
    Unfinished(Ask, Then),
}

impl Served {
    fn not_sent(ask: Ask, handed: Handed) -> Served {
        match handed {
            Handed::Over | Handed::Withheld | Handed::Full => Served::Unfinished(ask, Then::GoOn),
            Handed::Blocked => Served::Unfinished(ask, Then::AwaitClient),
            Handed::Offline => Served::Unfinished(ask, Then::Park),
            Handed::Ended => Served::SessionEnded,
        }
    }
}

/// The budget that is left of one turn.
struct Budget {
    publications: usize,
    bytes: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.publications == 0 || self.bytes == 0
    }
}

/// The outcome of a question.
enum Asked {
    Yes,
    /// The box of the owner is full: the core tries again.
    BoxFull,
    /// The core has stopped.
    Stopped,
}

/// When to go on with a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// In the next turn.
    GoOn,
    /// After a moment: the box of the owner is full.
    TryBoxAgain,
    /// When the owner has answered.
    AwaitAnswer,
    /// When the client has acknowledged something, or its socket takes more. Meanwhile another subscription
    /// may take the place.
    AwaitClient,
    /// When the session has a connection again.
    Park,
}

/// Retained publications that one turn sends, at half a microsecond each, with those that it leaves out.
const SENT_PER_TURN_MAX: usize = 512;
/// Bytes of retained publications that one turn sends.
const BYTES_PER_TURN_MAX: usize = 256 * 1024;
