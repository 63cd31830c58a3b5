//! A session in the view of its client, and the judgment of each publication that comes.
//!
//! For its subscriptions a client knows only bounds: a subscription began after SUBSCRIBE had left and before
//! SUBACK came, and ended likewise. Between the bounds a publication may come or not; within the subscription
//! it must, and outside it must not.

use std::collections::{BTreeMap, VecDeque};

use super::packets::Publish;
use crate::cores::simulation::log::{Entry, Log, SHARED, channel_name};

/// One session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The connection that has begun it.
    pub(super) key: usize,
    spans: Vec<Span>,
    /// The publications that have come, by the number: the QoS of the live copy.
    got: BTreeMap<usize, u8>,
    /// The place of the newest publication that came with QoS 0, and with QoS 1 or 2.
    newest: [u64; 2],
    /// Publications with QoS 2 that have come and are not released, by their identifiers.
    pub(super) incoming: BTreeMap<u16, Option<usize>>,
    /// The client's own publications that are not acknowledged.
    pub(super) outgoing: VecDeque<Outgoing>,
    asks: Vec<RetainedAsk>,
    /// The retained publications that came before SUBACK to a subscription that is in it: the first filters of a long
    /// SUBSCRIBE are granted turns before the last ones.
    early: Vec<(String, usize)>,
    /// The identifier of the SUBSCRIBE that is not answered, and the codes that the answer must have.
    awaited_codes: Option<(u16, Vec<u8>)>,
    /// The same of UNSUBSCRIBE: how many filters it has.
    awaited_ends: Option<(u16, usize)>,
    /// Up to this place, everything that must come has come, or is counted as missing.
    checked: u64,
}

/// A publication of the client with QoS 1 or 2.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) id: u16,
    pub(super) qos: u8,
    /// The numbers under which it was sent: with QoS 1 it gets another when it is sent again, since it may come twice.
    pub(super) numbers: Vec<usize>,
    pub(super) sent: Sent,
    /// PUBREC has come.
    pub(super) is_received: bool,
}

/// The content of a publication, to send it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) channel: usize,
    pub(super) retain: bool,
    pub(super) padding: usize,
}

/// A subscription to one filter, from SUBSCRIBE to UNSUBSCRIBE.
#[derive(Clone, Debug)]
struct Span {
    filter: String,
    qos: u8,
    /// The identifier of SUBSCRIBE, as long as it is not answered on the connection on which it was sent.
    asks: Option<u16>,
    asked: u64,
    answered: Option<u64>,
    /// The identifier of UNSUBSCRIBE, likewise.
    asks_end: Option<u16>,
    end_asked: Option<u64>,
    end_answered: Option<u64>,
}

/// A subscription that is to be sent retained publications.
#[derive(Debug)]
struct RetainedAsk {
    filter: String,
    link: usize,
    asked: u64,
    answered: u64,
    got: Vec<usize>,
}

/// The judgment of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is right.
    Fine,
    /// A copy of a shared subscription, which has not come before.
    Shared,
}

impl Session {
    pub(super) fn new(key: usize, at: u64) -> Session {
        Session {
            key,
            checked: at,
            ..Session::default()
        }
    }

    /// A new connection has the session. Requests on the former one are never answered.
    pub(super) fn go_on(&mut self) {
        for span in &mut self.spans {
            (span.asks, span.asks_end) = (None, None);
        }
        (self.awaited_codes, self.awaited_ends) = (None, None);
        self.early.clear();
    }

    /// SUBSCRIBE is on its way. The filters are different ones.
    pub(super) fn subscribe(&mut self, id: u16, filters: &[(String, u8)]) {
        let codes = filters.iter().map(|(_, qos)| *qos);
        self.awaited_codes = Some((id, codes.collect()));
        for (filter, qos) in filters.iter().filter(|(filter, _)| !is_filler(filter)) {
            self.spans.push(Span {
                filter: filter.clone(),
                qos: *qos,
                asks: Some(id),
                asked: u64::MAX,
                answered: None,
                asks_end: None,
                end_asked: None,
                end_answered: None,
            });
        }
    }

    /// UNSUBSCRIBE is on its way.
    pub(super) fn unsubscribe(&mut self, id: u16, filters: &[String]) {
        self.awaited_ends = Some((id, filters.len()));
        for span in self
            .spans
            .iter_mut()
            .filter(|span| filters.contains(&span.filter))
        {
            if span.end_answered.is_none() {
                span.asks_end = Some(id);
            }
        }
    }

    /// All bytes of the packet with this identifier have left. A subscription gets the publications that its
    /// core has not delivered by then: nothing before `undelivered`. When it ends, it no longer gets these.
    pub(super) fn note_written(&mut self, id: u16, undelivered: u64) {
        for span in &mut self.spans {
            if span.asks == Some(id) {
                span.asked = undelivered;
            }
            if span.asks_end == Some(id) {
                span.end_asked.get_or_insert(undelivered);
            }
        }
    }

    /// SUBACK has come.
    ///
    /// # Errors
    /// There was no such request, or a filter has not been granted.
    pub(super) fn note_subscribed(
        &mut self,
        id: u16,
        codes: &[u8],
        claimed: u64,
        link: usize,
    ) -> Result<(), String> {
        match self.awaited_codes.take_if(|(awaited, _)| *awaited == id) {
            Some((_, awaited)) if awaited == codes => {}
            awaited => return Err(format!("SUBACK {id} {codes:02x?}, awaited {awaited:?}")),
        }
        while let Some(at) = self.spans.iter().position(|span| span.asks == Some(id)) {
            self.note_granted(at, claimed, link)?;
        }
        self.early.clear();
        Ok(())
    }

    fn note_granted(&mut self, at: usize, claimed: u64, link: usize) -> Result<(), String> {
        let span = &mut self.spans[at];
        if span.asked > claimed {
            return Err(format!("SUBACK before SUBSCRIBE has left: {span:?}"));
        }
        (span.asks, span.answered) = (None, Some(claimed));
        let (filter, asked) = (span.filter.clone(), span.asked);
        for older in self.spans[..at].iter_mut().filter(|older| older.filter == filter) {
            older.end_asked.get_or_insert(claimed);
            older.end_answered.get_or_insert(claimed);
        }
        if !is_shared(&filter) {
            self.asks.retain(|ask| ask.filter != filter);
            let early = self.early.iter().filter(|(topic, _)| matches(&filter, topic));
            let got = early.map(|(_, number)| *number).collect();
            self.asks.push(RetainedAsk {
                filter,
                link,
                asked,
                answered: claimed,
                got,
            });
        }
        Ok(())
    }

    /// UNSUBACK has come.
    ///
    /// # Errors
    /// Nobody has asked for it, or it is about another number of filters.
    pub(super) fn note_unsubscribed(&mut self, id: u16, codes: &[u8], claimed: u64) -> Result<(), String> {
        match self.awaited_ends.take_if(|(awaited, _)| *awaited == id) {
            Some((_, count)) if codes.is_empty() || codes.len() == count => {}
            awaited => return Err(format!("UNSUBACK {id} {codes:02x?}, awaited {awaited:?}")),
        }
        for span in &mut self.spans {
            if span.asks_end == Some(id) {
                span.asks_end = None;
                span.end_answered.get_or_insert(claimed);
                let filter = &span.filter;
                self.asks.retain(|ask| ask.filter != *filter);
            }
        }
        Ok(())
    }

    /// Whether an answer is missing.
    pub(super) fn is_asking(&self) -> bool {
        self.awaited_codes.is_some() || self.awaited_ends.is_some()
    }

    /// Whether it may be in the group of shared subscriptions to this channel.
    pub(super) fn may_share(&self) -> bool {
        self.spans
            .iter()
            .any(|span| is_shared(&span.filter) && span.end_answered.is_none())
    }

    /// Whether it must be in the group from this place on.
    pub(super) fn must_share(&self, sequence: u64) -> bool {
        self.spans
            .iter()
            .any(|span| is_shared(&span.filter) && span.must_have(sequence) && span.end_asked.is_none())
    }

    /// Judges a publication. No copy with the same identifier has come before with QoS 2.
    ///
    /// # Errors
    /// It must not come, or not yet.
    pub(super) fn take(&mut self, publish: &Publish, number: usize, log: &Log) -> Result<Verdict, String> {
        let Some((_, entry)) = log.entry(number) else {
            return Err(format!("{number} was never in the ring"));
        };
        let topic = &publish.topic;
        if publish.retain {
            return self.take_retained(publish, entry, log);
        }
        // Publications that were not acknowledged come again, also behind the end of their subscription.
        if let Some(&before) = self.got.get(&number) {
            return if publish.qos == 1 && publish.dup {
                Ok(Verdict::Fine)
            } else {
                Err(format!(
                    "publication {number} came before, with QoS {before}: {publish:?}"
                ))
            };
        }
        let mut may = self
            .spans
            .iter()
            .filter(|span| span.may_have(topic, entry.sequence));
        if may.next().is_none() {
            return Err(format!(
                "publication {number} at {} of {topic}, to which it is not subscribed: {self:?}",
                entry.sequence
            ));
        }
        let (low, high) = self.qos_of(topic, entry);
        if publish.qos < low || publish.qos > high {
            return Err(format!(
                "publication {number} with QoS {}, not {low} to {high}",
                publish.qos
            ));
        }
        self.got.insert(number, publish.qos);
        if topic.starts_with("s/") {
            return Ok(Verdict::Shared);
        }
        let newest = &mut self.newest[usize::from(publish.qos > 0)];
        if entry.sequence <= *newest {
            return Err(format!(
                "publication {number} at {} comes after one at {newest}: {publish:?}",
                entry.sequence
            ));
        }
        *newest = entry.sequence;
        for ask in &mut self.asks {
            if entry.retain && matches(&ask.filter, topic) {
                ask.got.push(number);
            }
        }
        Ok(Verdict::Fine)
    }

    /// The least and the highest QoS with which it may get a publication.
    fn qos_of(&self, topic: &str, entry: Entry) -> (u8, u8) {
        let may = || {
            self.spans
                .iter()
                .filter(|span| span.may_have(topic, entry.sequence))
        };
        let high = may().map(|span| span.qos).max().unwrap_or(0);
        let certain = may().filter(|span| span.must_have(entry.sequence));
        // While a subscription replaces another, either may count.
        let of_filter = |filter: &String| {
            may()
                .filter(|span| span.filter == *filter)
                .map(|span| span.qos)
                .min()
        };
        let low = certain
            .filter_map(|span| of_filter(&span.filter))
            .max()
            .unwrap_or(0);
        (low.min(entry.qos), high.min(entry.qos))
    }

    fn take_retained(&mut self, publish: &Publish, entry: Entry, log: &Log) -> Result<Verdict, String> {
        let (topic, number) = (&publish.topic, entry.number);
        let channel = crate::cores::simulation::log::channel_of(topic).ok_or("no such channel")?;
        let mut is_asked = publish.dup;
        for ask in self.asks.iter_mut().filter(|ask| matches(&ask.filter, topic)) {
            if entry.sequence >= ask.answered {
                continue;
            }
            let newest = log.newest_retained(channel, ask.asked);
            if newest.is_some_and(|(sequence, _)| sequence > entry.sequence) {
                continue;
            }
            is_asked = true;
            ask.got.push(number);
        }
        // A request for retained publications is forgotten with its subscription; those already found may be
        // on their way.
        let may = |span: &Span| matches(&span.filter, topic) && span.asked != u64::MAX;
        let has_other = self
            .spans
            .iter()
            .any(|span| may(span) && (span.end_asked.is_some() || span.answered.is_none()));
        if has_other {
            self.early.push((topic.clone(), number));
        }
        if is_asked || has_other {
            return Ok(Verdict::Fine);
        }
        Err(format!(
            "{publish:?} at {} is not what is retained: {entry:?}, {self:?}",
            entry.sequence
        ))
    }

    /// Everything that was to come by now has come. Returns the publications with QoS 1 and 2 that have not.
    /// `opened` is the place from which on the connection gets publications with QoS 0, if these are certain.
    ///
    /// # Errors
    /// Other publications have not come.
    pub(super) fn check_at_rest(&mut self, opened: Option<u64>, log: &Log) -> Result<Vec<usize>, String> {
        let (from, to) = (self.checked, log.claimed());
        self.checked = to;
        let mut missing = Vec::new();
        for (channel, entries) in log.channels().filter(|&(channel, _)| channel < SHARED) {
            let topic = channel_name(channel);
            if !self.spans.iter().any(|span| matches(&span.filter, &topic)) {
                continue;
            }
            for entry in &entries[log.places(channel, from..to)] {
                let is_certain =
                    |span: &Span| span.must_have(entry.sequence) && matches(&span.filter, &topic);
                if entry.expires || self.got.contains_key(&entry.number) || !self.spans.iter().any(is_certain)
                {
                    continue;
                }
                let (low, high) = self.qos_of(&topic, *entry);
                if low > 0 {
                    missing.push(entry.number);
                } else if high == 0 && opened.is_some_and(|opened| entry.sequence >= opened) {
                    return Err(format!("{entry:?} of {topic} did not come: {:?}", self.spans));
                }
            }
        }
        // A subscription that was replaced, or ended long ago, does not matter any more.
        self.spans
            .retain(|span| span.end_answered.is_none_or(|end| end > from));
        Ok(missing)
    }

    /// Checks that the retained publications have come to all subscriptions that this connection has begun.
    ///
    /// # Errors
    /// A publication has not.
    pub(super) fn check_retained(&mut self, link: usize, channels: usize, log: &Log) -> Result<(), String> {
        for ask in self.asks.iter().filter(|ask| ask.link == link) {
            for channel in 0..channels {
                let topic = channel_name(channel);
                if !matches(&ask.filter, &topic) {
                    continue;
                }
                if let Some((sequence, Some(number))) = log.newest_retained(channel, u64::MAX)
                    && sequence < ask.asked
                    && !ask.got.contains(&number)
                {
                    return Err(format!(
                        "{number} at {sequence} is retained and did not come: {ask:?}"
                    ));
                }
            }
        }
        self.asks.iter_mut().for_each(|ask| ask.link = usize::MAX);
        Ok(())
    }
}

impl Span {
    /// Whether a publication at this place may come.
    fn may_have(&self, topic: &str, sequence: u64) -> bool {
        // Publications that a member has given back to its group may be old.
        (self.asked <= sequence || is_shared(&self.filter) && self.asked != u64::MAX)
            && self.end_answered.is_none_or(|end| sequence < end)
            && matches(&self.filter, topic)
    }

    /// Whether a publication at this place must come, if the filter matches.
    fn must_have(&self, sequence: u64) -> bool {
        self.answered.is_some_and(|answered| answered <= sequence)
            && self.end_asked.is_none_or(|end| sequence < end)
    }
}

/// A filter that matches no topic of a simulation and makes no member, and makes a packet long.
pub(in crate::cores::simulation) fn filler(number: usize) -> String {
    format!("{FILLER}{number}/+")
}

fn is_filler(filter: &str) -> bool {
    filter.starts_with(FILLER)
}

const FILLER: &str = "filler/";

fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// Whether a filter matches a topic: level by level, as section 4.7 says.
fn matches(filter: &str, topic: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or("", |(_, filter)| filter),
        None => filter,
    };
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (level, Some(name)) if level != name => return false,
            (_, Some(_)) => {}
        }
    }
    topic.next().is_none()
}
