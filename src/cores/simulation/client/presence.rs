//! What a client knows of the members of channels: from the answers to `$presence`, and from the events of joining and
//! leaving, as `docs/presence.md` tells it to apply them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Client;
use crate::cores::simulation::log::{PRESENCE, channel_name};
use crate::cores::simulation::world::Ground;

/// The members of a channel, as one client has them.
#[derive(Clone, Debug, Default)]
pub(in crate::cores::simulation) struct View {
    /// `None` until a page has come since the events have.
    members: Option<BTreeSet<Member>>,
    /// What the last event or page has said.
    count: Option<u64>,
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
            Value::Null => BTreeSet::new(),
            changed => members(changed)?,
        };
        if let Some(both) = joined.intersection(&left).next() {
            return Err(format!("{both:?} has joined and left in one event"));
        }
        self.count = event["count"].as_u64();
        if event["sampled"] == true {
            // It leaves some out: the client knows the members when it asks again.
            self.members = None;
        }
        if let Some(members) = &mut self.members {
            members.retain(|member| !left.contains(member));
            members.extend(joined.into_iter().chain(changed));
        }
        Ok(())
    }

    /// Nothing has changed for so long that the client must know all.
    fn check(&self, real: &BTreeSet<Member>) -> Result<(), String> {
        let Some(members) = &self.members else {
            return Ok(());
        };
        if members != real || self.count != Some(real.len() as u64) {
            return Err(format!("{self:?}, and there are {real:?}"));
        }
        Ok(())
    }
}

fn members(list: &Value) -> Result<BTreeSet<Member>, String> {
    let list = list.as_array().ok_or_else(|| format!("no list: {list}"))?;
    let mut members = BTreeSet::new();
    for one in list {
        let member = match (one["user"].as_str(), one["connections"][0].as_str()) {
            (Some(user), _) => Member::User(user.to_owned()),
            (None, Some(connection)) => Member::Connection(connection.to_owned()),
            (None, None) => return Err(format!("no member: {one}")),
        };
        if !members.insert(member) {
            return Err(format!("{one} is there twice"));
        }
    }
    Ok(members)
}

impl Client {
    /// The answer to `$presence`: whether it is right.
    pub(super) fn members_told(&mut self, channel: usize, packet: &Value) -> Result<bool, String> {
        if !packet["error"].is_null() {
            // There is too much to tell the owner, or it stands still.
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

    /// The client gets the events of a channel, or no longer.
    pub(super) fn watch(&mut self, channel: usize, watches: bool) {
        if let Some(watched) = channel.checked_sub(PRESENCE) {
            self.views.remove(&watched);
            if watches {
                self.views.insert(watched, View::default());
            }
        }
    }

    /// Whether the client knows who is in the channels that it watches. The members have not changed for so long that it
    /// must.
    pub(in crate::cores::simulation) fn check_views(
        &self,
        ground: &Ground,
        real: &BTreeSet<(String, Member)>,
    ) -> Result<(), String> {
        if !self.is_quiet() || !self.calls.is_empty() || ground.draining {
            return Ok(());
        }
        for (&channel, view) in &self.views {
            let name = channel_name(channel);
            let of_channel = real.iter().filter(|(of, _)| *of == name);
            let members = of_channel.map(|(_, member)| member.clone()).collect();
            view.check(&members).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}
