//! A client's knowledge of the members of channels and their infos, from the answers to `$presence` and from
//! the events of joining and leaving, applied as `docs/presence.md` describes. Also the infos that it sets
//! for itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Client;
use crate::cores::simulation::log::{PRESENCE, channel_name};
use crate::cores::simulation::world::GroundTruth;

/// The members of a channel, in the view of one client.
#[derive(Clone, Debug, Default)]
pub(in crate::cores::simulation) struct View {
    /// `None` until a page has come behind the last gap in the events.
    members: Option<BTreeMap<Member, Value>>,
    /// The count in the last event or page.
    count: Option<u64>,
}

/// The infos that a client has given itself.
#[derive(Debug, Default)]
pub(super) struct Infos {
    /// Counts events that may end a membership, by the channel.
    memberships: BTreeMap<usize, u64>,
    /// The calls that are not answered, by their ids.
    asked: BTreeMap<u64, InfoAsked>,
    /// The info of the membership with this count.
    current: BTreeMap<usize, (u64, Value)>,
}

#[derive(Debug)]
struct InfoAsked {
    channel: usize,
    membership: u64,
    was_member: bool,
    info: Value,
}

/// A member: a user, or the connection of a client without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cores::simulation) enum Member {
    User(String),
    Connection(String),
}

impl View {
    /// Takes a page with all members.
    fn take_page(&mut self, page: &Value) -> Result<(), String> {
        let members = members(&page["members"])?;
        if page["count"] != members.len() {
            return Err(format!("another count than that of the members: {page}"));
        }
        (self.members, self.count) = (Some(members), page["count"].as_u64());
        Ok(())
    }

    fn take_event(&mut self, event: &Value) -> Result<(), String> {
        let (joined, left) = (members(&event["joined"])?, members(&event["left"])?);
        let changed = match &event["changed"] {
            Value::Null => BTreeMap::new(),
            changed => members(changed)?,
        };
        if let Some(both) = joined.keys().find(|member| left.contains_key(member)) {
            return Err(format!("{both:?} has joined and left in one event"));
        }
        self.count = event["count"].as_u64();
        if event["sampled"] == true {
            // The event leaves some members out: the client knows them again when it has asked.
            self.members = None;
        }
        if let Some(members) = &mut self.members {
            members.retain(|member, _| !left.contains_key(member));
            members.extend(joined.into_iter().chain(changed));
        }
        Ok(())
    }

    /// Nothing has changed for so long that the client must know all members.
    fn check(&self, real: &BTreeMap<Member, Value>) -> Result<(), String> {
        let Some(members) = &self.members else {
            return Ok(());
        };
        if members != real || self.count != Some(real.len() as u64) {
            return Err(format!("{self:?}, and there are {real:?}"));
        }
        Ok(())
    }
}

/// The members of a list, each with its info.
fn members(list: &Value) -> Result<BTreeMap<Member, Value>, String> {
    let list = list.as_array().ok_or_else(|| format!("no list: {list}"))?;
    let mut members = BTreeMap::new();
    for one in list {
        let member = match (one["user"].as_str(), one["connections"][0].as_str()) {
            (Some(user), _) => Member::User(user.to_owned()),
            (None, Some(connection)) => Member::Connection(connection.to_owned()),
            (None, None) => return Err(format!("no member: {one}")),
        };
        if members.insert(member, one["info"].clone()).is_some() {
            return Err(format!("{one} is there twice"));
        }
    }
    Ok(members)
}

impl Client {
    /// Checks the answer to `$presence`.
    pub(super) fn members_told(&mut self, channel: usize, packet: &Value) -> Result<bool, String> {
        if !packet["error"].is_null() {
            // Too many changes wait for the owner, or it stands still.
            let name = packet["error"]["name"].as_str();
            return Ok(matches!(name, Some("BusyError" | "TimeoutError")));
        }
        let page = &packet["data"];
        match self.views.get_mut(&channel) {
            Some(view) => view.take_page(page)?,
            None => View::default().take_page(page)?,
        }
        Ok(true)
    }

    /// An event has come.
    pub(super) fn take_event(&mut self, channel: usize, event: &Value) -> Result<(), String> {
        self.views
            .entry(channel - PRESENCE)
            .or_default()
            .take_event(event)
    }

    /// Whether the client gets the events of a channel from now on.
    pub(super) fn watch(&mut self, channel: usize, watches: bool) {
        if let Some(watched) = channel.checked_sub(PRESENCE) {
            self.views.remove(&watched);
            if watches {
                self.views.insert(watched, View::default());
            }
        }
    }

    /// Checks that the client knows the members of the channels that it watches, and that each has the info
    /// that it has set. The members have not changed for so long that this must hold.
    pub(in crate::cores::simulation) fn check_views(
        &self,
        truth: &GroundTruth,
        real: &BTreeMap<(String, Member), Value>,
    ) -> Result<(), String> {
        if !self.is_quiet() || !self.calls.is_empty() || truth.draining {
            return Ok(());
        }
        for (&channel, view) in &self.views {
            let name = channel_name(channel);
            let of_channel = real.iter().filter(|((of, _), _)| *of == name);
            let members = of_channel.map(|((_, member), info)| (member.clone(), info.clone()));
            view.check(&members.collect())
                .map_err(|error| format!("{name}: {error}"))?;
        }
        // Other connections of a user may have set another info.
        let own = self
            .session
            .clone()
            .filter(|_| self.user.is_none())
            .map(Member::Connection);
        for (&channel, (membership, info)) in &self.infos.current {
            let is_same = *membership == self.infos.membership(channel);
            if let Some(own) = own.clone().filter(|_| is_same) {
                let name = channel_name(channel);
                let real = real.get(&(name.clone(), own));
                if real != Some(info) {
                    return Err(format!("{name}: its info is to be {info}, and is {real:?}"));
                }
            }
        }
        Ok(())
    }

    /// The client is about to set its info, or to remove it.
    pub(super) fn info_asked(&mut self, truth: &mut GroundTruth, channel: usize, cid: u64) -> Value {
        truth.infos += 1;
        let info = match truth.random.chance(1, 4) {
            true => Value::Null,
            false => json!({"number": truth.infos, "padding": "i".repeat(truth.random.below(30))}),
        };
        let asked = InfoAsked {
            channel,
            membership: self.infos.membership(channel),
            was_member: self.following.contains_key(&channel),
            info: info.clone(),
        };
        self.infos.asked.insert(cid, asked);
        info
    }

    /// Checks the answer to `$presence_info`. If there is not room for all members, a subscriber may not be a
    /// member.
    pub(super) fn info_answered(&mut self, cid: u64, error: Option<&str>, has_room: bool) -> bool {
        let Some(asked) = self.infos.asked.remove(&cid) else {
            return false;
        };
        let is_same = asked.membership == self.infos.membership(asked.channel);
        match error {
            None => {
                if is_same && asked.was_member {
                    self.infos
                        .current
                        .insert(asked.channel, (asked.membership, asked.info));
                }
                true
            }
            // Whether the owner has set the info is not known.
            Some("TimeoutError") => {
                self.infos.current.remove(&asked.channel);
                true
            }
            Some("BusyError") => true,
            Some("InvalidActionError") => !is_same || !asked.was_member || !has_room,
            Some(_) => false,
        }
    }
}

impl Infos {
    fn membership(&self, channel: usize) -> u64 {
        self.memberships.get(&channel).copied().unwrap_or(0)
    }

    /// The membership of a channel begins or ends, or may do so from now on.
    pub(super) fn note_change(&mut self, channel: usize) {
        *self.memberships.entry(channel).or_default() += 1;
        self.current.remove(&channel);
    }

    /// The same, for all channels.
    pub(super) fn note_changes(&mut self) {
        self.memberships.values_mut().for_each(|count| *count += 1);
        self.current.clear();
    }
}
