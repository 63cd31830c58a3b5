//! Answers questions about connections and channels: the connections of a user, the list of channels.
//!
//! To answer, a core goes through its whole table of connections or of channels, some places in each turn.
//!
//! Limits: `EFFORT_PER_TURN_MAX` (`questions.rs`).

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{Connection, Phase};
use crate::cores::operators::questions::{Channels, ChannelsOf, ConnectionRow, ConnectionSearch};
use crate::cores::operators::selection::{Selected, Selecting, Selection};

impl<A: App> Core<A> {
    /// Goes on to look for connections. True if the question can be answered.
    pub(in crate::cores) fn search_some(&self, search: &mut ConnectionSearch, effort: &mut u32) -> bool {
        while search.found.rows.len() < search.count_max {
            match self.next_selected(&mut search.selecting, effort) {
                Selected::Found(id) => {
                    *effort = effort.saturating_sub(EFFORT_OF_A_ROW);
                    let connection = self.connections.get(id);
                    search
                        .found
                        .rows
                        .extend(connection.and_then(|connection| self.row_of(connection)));
                }
                Selected::Later => return false,
                Selected::End => return true,
            }
        }
        search.found.next = Some(search.selecting.next);
        true
    }

    /// The next connection of a selection. Subtracts the cost of finding it from `effort`.
    pub(in crate::cores) fn next_selected(&self, selecting: &mut Selecting, effort: &mut u32) -> Selected {
        // Looked up each time: the channel may have another number in the next turn.
        let channel = match &selecting.selection {
            Selection::Channel(name) => match self.delivery.number_of(name.as_bytes()) {
                Some(number) => Some(number),
                None => return Selected::End,
            },
            Selection::All | Selection::User(_) | Selection::Address(_) | Selection::Session(_) => None,
        };
        while selecting.next < self.connections.places() {
            if *effort == 0 {
                return Selected::Later;
            }
            *effort -= 1;
            let index = selecting.next;
            selecting.next += 1;
            let Some(connection) = self.connections.at(index) else {
                continue;
            };
            let Phase::Open(open) = &connection.phase else {
                continue;
            };
            if !open.session.is_open() {
                continue;
            }
            let is_selected = match &selecting.selection {
                Selection::All => true,
                Selection::User(_) => {
                    *effort = effort.saturating_sub(EFFORT_OF_CLAIMS);
                    let user = open.session.claims().and_then(|claims| claims.user());
                    user.is_some_and(|user| selecting.is_user(&user))
                }
                Selection::Channel(_) => {
                    channel.is_some_and(|channel| self.delivery.subscriptions().is_subscribed(index, channel))
                }
                Selection::Address(address) => connection.client.ip() == *address,
                Selection::Session(id) => open.session.id() == Some(*id),
            };
            if is_selected {
                return Selected::Found(connection.id);
            }
        }
        Selected::End
    }

    fn row_of(&self, connection: &Connection) -> Option<ConnectionRow> {
        let Phase::Open(open) = &connection.phase else {
            return None;
        };
        let now = self.time.now();
        let age = connection.opened.age(now.uptime);
        Some(ConnectionRow {
            id: open.session.id()?,
            protocol: connection.framing.protocol(),
            client: connection.client,
            user: open.session.claims().and_then(|claims| claims.user()),
            since_unix_ms: now
                .unix_ms
                .saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            subscriptions: self.delivery.subscriptions().count_of(connection.id.index()),
            waiting_bytes: connection.waiting_bytes() + connection.outbox.conflated_bytes(),
        })
    }

    /// Goes on to look for the connection whose channels are requested. True if the question can be answered.
    pub(in crate::cores) fn find_channels_of(&self, channels: &mut ChannelsOf, effort: &mut u32) -> bool {
        match self.next_selected(&mut channels.selecting, effort) {
            Selected::Found(id) => {
                let (from, max) = (channels.from, channels.count_max);
                let subscriptions = self.delivery.subscriptions();
                channels.found = Some(subscriptions.some_channels_of(id.index(), from, max));
                true
            }
            Selected::Later => false,
            Selected::End => true,
        }
    }

    /// Goes on to list channels. True if the question can be answered.
    pub(in crate::cores) fn list_some_channels(&self, channels: &mut Channels, effort: &mut u32) -> bool {
        let subscriptions = self.delivery.subscriptions();
        let places = subscriptions.channel_places();
        let end = places.min(channels.next.saturating_add(*effort));
        *effort -= end.saturating_sub(channels.next);
        for number in channels.next..end {
            if let Some((name, subscribers)) = subscriptions.channel_at(number) {
                channels.note(name, subscribers);
            }
        }
        channels.next = channels.next.max(end);
        channels.next >= places
    }
}

/// To read the claims of a connection costs as much as to look at this many places: a microsecond.
const EFFORT_OF_CLAIMS: u32 = 8;
/// To describe a connection costs as much as to look at this many places.
const EFFORT_OF_A_ROW: u32 = 16;
