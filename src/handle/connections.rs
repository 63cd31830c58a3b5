//! Looking connections and channels up, and acting on connections.
//!
//! A page of connections comes from one core after the other: the cursor is a core and a place in its table. A
//! connection keeps both to its end. A channel may have subscribers on several cores: each page asks all cores for the
//! first names after the cursor, which is a name, and adds the subscribers of each name up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::app::{SET_AUTH_TOKEN, SessionId};
use crate::cores::operators::questions::{
    Act, ActCounts, Acting, ChannelRow, Channels, ChannelsOf, ConnectionRow, ConnectionSearch, NewClaims,
    Question,
};
use crate::cores::operators::selection::{Selecting, Selection};
use crate::decision::CloseCode;
use crate::session::ClientProtocol;

use super::asking::Asked;
use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Shared};

/// A part of a list, and where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// The value for `after` of the next page; `None` after the last page.
    pub next: Option<String>,
}

/// A connection whose client has completed its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The id of its session, which the client knows.
    pub id: SessionId,
    /// The protocol that it speaks.
    pub protocol: ClientProtocol,
    /// The index of its core.
    pub core: usize,
    /// The client's address, if it is known.
    pub address: Option<SocketAddr>,
    /// The user: the claim `sub` of the client's token, if it is a text or a number.
    pub user: Option<String>,
    /// When it was accepted, in milliseconds since 1970, to about 10 ms.
    pub since_unix_ms: u64,
    /// How many channels it is subscribed to.
    pub subscriptions: usize,
    /// Bytes that wait to be sent to it.
    pub waiting_bytes: usize,
}

/// A channel with subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its name. Halves of surrogate pairs, which JavaScript strings may hold, are shown as U+FFFD.
    pub name: String,
    /// How many connections are subscribed to it, on all cores.
    pub subscribers: u64,
}

impl Handle {
    /// Lists connections, at most `limit` (1 to 1000) of them. `after` is the `next` of the page before.
    ///
    /// A connection that exists from the first page to the last is listed exactly once, even if others begin and end
    /// meanwhile. Each core goes through its connections in steps of about 0.2 ms.
    ///
    /// # Errors
    /// [`HandleError::BadCursor`], [`HandleError::Unanswered`], or an error of every operation.
    pub fn connections(
        &self,
        selection: &Selection,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<Page<ConnectionInfo>> {
        let shared = Arc::clone(&self.0);
        let selection = selection.clone();
        let from = after.map_or(Some((0, 0)), two_numbers);
        Pending::new(async move {
            let from = from.ok_or(HandleError::BadCursor)?;
            shared.connections(&selection, from, page_size(limit)).await
        })
    }

    /// Lists the channels of a connection, at most `limit` (1 to 1000) of them. `after` is the `next` of the page
    /// before.
    ///
    /// # Errors
    /// [`HandleError::NoSuchConnection`], [`HandleError::BadCursor`], [`HandleError::Unanswered`], or an error of every
    /// operation.
    pub fn connection_channels(
        &self,
        id: SessionId,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<Page<String>> {
        let shared = Arc::clone(&self.0);
        let from = after.map_or(Ok(0), str::parse);
        Pending::new(async move {
            let from = from.map_err(|_| HandleError::BadCursor)?;
            shared.channels_of(id, from, page_size(limit)).await
        })
    }

    /// Lists the channels that have subscribers and whose names begin with `prefix`, at most `limit` (1 to 1000) of
    /// them, in the order of the bytes of their names. `after` is the `next` of the page before.
    ///
    /// For each page, each core looks at all of its channels, in steps of about 0.2 ms.
    ///
    /// # Errors
    /// [`HandleError::Unanswered`], or an error of every operation.
    pub fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> Pending<Page<ChannelInfo>> {
        let shared = Arc::clone(&self.0);
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Pending::new(async move { shared.channels(&prefix, after.as_deref(), page_size(limit)).await })
    }

    /// Closes connections with this code and the first 123 bytes of the reason, which fit into a close frame. Returns
    /// the number of connections.
    ///
    /// # Errors
    /// [`HandleError::Unanswered`]: only the other cores have done it. Or an error of every operation.
    pub fn disconnect(&self, selection: &Selection, code: CloseCode, reason: &str) -> Pending<u64> {
        let reason = reason.into();
        self.act(selection, Ok(Act::Disconnect { code, reason }))
    }

    /// Ends subscriptions to a channel, or to all channels with `None`, and tells the clients by `#kickOut`, with the
    /// message if there is one. Returns how many connections were subscribed.
    ///
    /// # Errors
    /// As [`Handle::disconnect`].
    pub fn unsubscribe_connections(
        &self,
        selection: &Selection,
        channel: Option<&str>,
        message: Option<&str>,
    ) -> Pending<u64> {
        let act = Act::Unsubscribe {
            channel: channel.map(Arc::from),
            message: message.map(|text| serde_json::Value::from(text).to_string().into()),
        };
        self.act(selection, Ok(act))
    }

    /// Subscribes connections to a channel, where the rules allow it; the application is not asked. Returns the number
    /// of connections to which the rules allow it.
    ///
    /// The protocol has no packet for this. The server sends the event `$subscribed` with `{"channel":…}`, before the
    /// first publication. A client of SocketCluster drops publications on channels that it has not subscribed to
    /// itself, so its program calls `socket.subscribe(channel)` when the event comes. A connection that has as many
    /// channels as it may have gets neither the event nor publications.
    ///
    /// # Errors
    /// [`HandleError::NameTooLong`], or as [`Handle::disconnect`].
    pub fn subscribe_connections(&self, selection: &Selection, channel: &str) -> Pending<u64> {
        let checked = self.0.publishing.check_name(channel);
        let act = checked.map(|()| Act::Subscribe {
            channel: channel.into(),
        });
        self.act(selection, act)
    }

    /// Sends clients an event. Returns the number of clients. MQTT has no events: its connections are left out.
    ///
    /// # Errors
    /// [`HandleError::NotInProtocol`]: all connections speak MQTT. [`HandleError::IsService`]: the rules allow all
    /// clients to serve the event. [`HandleError::NotJson`], [`HandleError::TooLarge`], or as [`Handle::disconnect`].
    pub fn transmit(
        &self,
        selection: &Selection,
        event: &str,
        data: &(impl Serialize + ?Sized),
    ) -> Pending<u64> {
        let json = serde_json::to_string(data).map_err(|_| HandleError::NotJson);
        let act = json.and_then(|json| self.transmission(event, Some(&json)));
        self.act(selection, act)
    }

    /// As [`Handle::transmit`], with data that is JSON text already, or without data.
    ///
    /// # Errors
    /// As [`Handle::transmit`].
    pub fn transmit_json(&self, selection: &Selection, event: &str, json: Option<&str>) -> Pending<u64> {
        self.act(selection, self.transmission(event, json))
    }

    fn transmission(&self, event: &str, json: Option<&str>) -> Result<Act, HandleError> {
        let data = self.0.publishing.check_data(event, json)?;
        Ok(Act::Transmit {
            event: event.into(),
            data: data.map(|data| Arc::from(&*data)),
        })
    }

    /// Signs a token with these claims for each connection, and gives it to the client, which is authenticated from
    /// then on: it gets `#setAuthToken`. An MQTT client is authenticated by the claims and gets no token, since its
    /// protocol has no packet for that. `expires_in` is rounded up to whole seconds, and is one second at least;
    /// without it, the configured time applies. An `exp` among the claims is kept instead. The server ends
    /// subscriptions that the rules no longer allow. Returns the number of connections.
    ///
    /// # Errors
    /// [`HandleError::NotSigned`], [`HandleError::NotJson`], [`HandleError::TooLarge`], or as [`Handle::disconnect`].
    pub fn set_claims(
        &self,
        selection: &Selection,
        claims: &(impl Serialize + ?Sized),
        expires_in: Option<Duration>,
    ) -> Pending<u64> {
        let json = serde_json::to_string(claims).map_err(|_| HandleError::NotJson);
        let act = json.and_then(|json| {
            let json = self.0.publishing.check_data(SET_AUTH_TOKEN, Some(&json))?;
            Ok(Act::SetToken {
                claims: NewClaims::Given(json.as_deref().unwrap_or_default().into()),
                expires_in: expires_in.map(whole_seconds),
            })
        });
        self.act(selection, act)
    }

    /// Signs a new token for each connection whose client holds one, with the same claims and new times, and gives it
    /// to the client as [`Handle::set_claims`] does. Clients that are authenticated by a certificate, a cookie, or the
    /// claims of an application or a hook are left out: a token would outlive these, and could be used without them.
    /// Returns the number of connections.
    ///
    /// # Errors
    /// [`HandleError::NotSigned`], or as [`Handle::disconnect`].
    pub fn refresh_token(&self, selection: &Selection, expires_in: Option<Duration>) -> Pending<u64> {
        let act = Act::SetToken {
            claims: NewClaims::AsBefore,
            expires_in: expires_in.map(whole_seconds),
        };
        self.act(selection, Ok(act))
    }

    /// Takes the tokens of connections away, as if they had expired: the clients get `#removeAuthToken`, and the server
    /// ends subscriptions that the rules no longer allow. The connections stay. A copy of the token that a client keeps
    /// elsewhere remains valid: revoke it. Returns the number of connections that had a token.
    ///
    /// # Errors
    /// As [`Handle::disconnect`].
    pub fn remove_token(&self, selection: &Selection) -> Pending<u64> {
        self.act(selection, Ok(Act::RemoveToken))
    }

    fn act(&self, selection: &Selection, act: Result<Act, HandleError>) -> Pending<u64> {
        let shared = Arc::clone(&self.0);
        let selection = selection.clone();
        Pending::new(async move {
            let act = act?;
            let counts = shared
                .ask_all_in_steps(|from, answer| {
                    let selecting = Selecting::new(selection.clone(), from);
                    Question::Act(Acting::new(selecting, act.clone(), answer))
                })
                .await?;
            result_of(&counts)
        })
    }
}

impl Shared {
    async fn connections(
        &self,
        selection: &Selection,
        (first, mut from): (usize, u32),
        limit: usize,
    ) -> Result<Page<ConnectionInfo>, HandleError> {
        let deadline = self.answer_deadline();
        let mut items = Vec::new();
        for (index, core) in self.cores.iter().enumerate().skip(first) {
            let look = |answer| {
                let selecting = Selecting::new(selection.clone(), from);
                Question::ConnectionSearch(ConnectionSearch::new(selecting, limit - items.len(), answer))
            };
            let found = match self.ask(core, deadline, look).await? {
                Asked::Answered(found) => found,
                Asked::Ended => continue,
                Asked::Unanswered => return Err(HandleError::Unanswered { cores: vec![index] }),
            };
            items.extend(found.rows.into_iter().map(|row| connection_info(index, row)));
            if let Some(next) = found.next {
                let next = Some(format!("{index}.{next}"));
                return Ok(Page { items, next });
            }
            from = 0;
        }
        Ok(Page { items, next: None })
    }

    async fn channels_of(&self, id: SessionId, from: u32, limit: usize) -> Result<Page<String>, HandleError> {
        let found = self
            .ask_all(|answer| {
                let selecting = Selecting::new(Selection::Session(id), 0);
                Question::ChannelsOf(ChannelsOf::new(selecting, from, limit, answer))
            })
            .await?;
        let (names, next) = found
            .into_iter()
            .flatten()
            .next()
            .ok_or(HandleError::NoSuchConnection)?;
        Ok(Page {
            items: names.iter().map(|name| text(name)).collect(),
            next: next.map(|next| next.to_string()),
        })
    }

    async fn channels(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ChannelInfo>, HandleError> {
        let after = after.map(str::as_bytes);
        let lists = self
            .ask_all(|answer| Question::Channels(Channels::new(prefix.as_bytes(), after, limit, answer)))
            .await?;
        Ok(merged(lists, limit))
    }
}

/// The number of connections of an operation. An error if the selection has connections and none of them could take
/// part.
fn result_of(counts: &[ActCounts]) -> Result<u64, HandleError> {
    let sum = |count: fn(&ActCounts) -> u64| counts.iter().map(count).sum::<u64>();
    let done = sum(|counts| counts.done);
    if done == 0 && sum(|counts| counts.not_signed) > 0 {
        return Err(HandleError::NotSigned);
    }
    let has_others = done > 0 || sum(|counts| counts.not_done) > 0;
    if !has_others && sum(|counts| counts.services) > 0 {
        return Err(HandleError::IsService);
    }
    if !has_others && sum(|counts| counts.not_in_protocol) > 0 {
        return Err(HandleError::NotInProtocol);
    }
    Ok(done)
}

/// The time of a token in seconds. A token that had expired when it was given would log the client out.
fn whole_seconds(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    seconds.max(1)
}

/// Adds up the subscribers of each channel. Each list has the first names of a core, `limit` of them if there are as
/// many; so the first `limit` names of all lists are complete.
fn merged(lists: Vec<Vec<ChannelRow>>, limit: usize) -> Page<ChannelInfo> {
    let is_cut = lists.iter().any(|list| list.len() >= limit);
    let mut all: BTreeMap<Box<[u8]>, u64> = BTreeMap::new();
    for row in lists.into_iter().flatten() {
        *all.entry(row.name).or_default() += u64::from(row.subscribers);
    }
    let has_more = is_cut || all.len() > limit;
    let items: Vec<ChannelInfo> = all
        .into_iter()
        .take(limit)
        .map(|(name, subscribers)| ChannelInfo {
            name: text(&name),
            subscribers,
        })
        .collect();
    let next = items.last().filter(|_| has_more).map(|last| last.name.clone());
    Page { items, next }
}

fn connection_info(core: usize, row: ConnectionRow) -> ConnectionInfo {
    ConnectionInfo {
        id: row.id,
        protocol: row.protocol,
        core,
        address: row.client.socket_address(),
        user: row.user.map(user_text),
        since_unix_ms: row.since_unix_ms,
        subscriptions: row.subscriptions,
        waiting_bytes: row.waiting_bytes,
    }
}

/// A user: a text as JSON, or a number as JavaScript prints it.
pub(super) fn user_text(json: Box<str>) -> String {
    serde_json::from_str(&json).unwrap_or_else(|_| json.into())
}

pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The cursor of a page of connections: core and place.
fn two_numbers(cursor: &str) -> Option<(usize, u32)> {
    let (core, place) = cursor.split_once('.')?;
    Some((core.parse().ok()?, place.parse().ok()?))
}

pub(super) fn page_size(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

/// Most items of a page.
const PAGE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_for_a_second_at_least() {
        let seconds = [0, 1, 999, 1000, 1001, 2000].map(|ms| whole_seconds(Duration::from_millis(ms)));
        assert_eq!(seconds, [1, 1, 1, 1, 2, 2]);
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn an_operation_is_refused_for_its_connections_only_if_it_fits_none_of_them() {
        let of = |done, not_done| ActCounts {
            done,
            not_done,
            ..ActCounts::default()
        };
        let mqtt = ActCounts {
            not_in_protocol: 1,
            ..ActCounts::default()
        };
        let service = ActCounts {
            services: 1,
            ..ActCounts::default()
        };
        for (refused, error) in [
            (mqtt, HandleError::NotInProtocol),
            (service, HandleError::IsService),
        ] {
            for (counts, result) in [
                ([of(0, 0), refused], Err(error.clone())),
                // The other connection has no room for the event, or may not subscribe to the channel.
                ([of(0, 1), refused], Ok(0)),
                ([of(1, 0), refused], Ok(1)),
                ([of(0, 0), of(0, 0)], Ok(0)),
            ] {
                assert_eq!(result_of(&counts), result, "{counts:?}");
            }
        }
        assert_eq!(result_of(&[mqtt, service]), Err(HandleError::IsService));
    }
}
