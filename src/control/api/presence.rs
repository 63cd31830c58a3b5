//! Lists and counts the members of channels.

use std::borrow::Cow;

use axum::http::Uri;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::error::{ApiError, ErrorCode};
use super::parameters::Parameters;
use super::{Caller, answer_of};
use crate::config::api_keys::ApiAction;
use crate::handle::Handle;

/// A question for the members of a channel.
#[derive(Debug)]
pub(super) struct ListMembers {
    channel: String,
    after: Option<String>,
    limit: usize,
}

/// A question for the number of members of channels.
#[derive(Debug)]
pub(super) struct CountMembers {
    channels: Vec<String>,
}

#[derive(Serialize)]
struct MembersAnswer<'a> {
    count: u64,
    members: Vec<MemberShown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct MemberShown<'a> {
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    since: u64,
    connections: Vec<String>,
}

impl ListMembers {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<ListMembers, ApiError> {
        let parameters = Parameters::read(uri, &["channel", "after", "limit"])?;
        let channel = parameters.needed("channel")?;
        check(caller, channel)?;
        Ok(ListMembers {
            channel: channel.to_owned(),
            after: parameters.text("after")?.map(str::to_owned),
            limit: caller.page_size(&parameters)?,
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.channel)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let (count, page) = handle
            .counted_presence(&self.channel, self.after.as_deref(), self.limit)
            .await?;
        let shown = page.items.iter().map(|member| MemberShown {
            user: member.user.as_deref(),
            info: member
                .info
                .as_deref()
                .and_then(|info| serde_json::from_str(info).ok()),
            since: member.since_unix_ms,
            connections: member.connections.iter().map(ToString::to_string).collect(),
        });
        answer_of(&MembersAnswer {
            count,
            members: shown.collect(),
            next: page.next.as_deref(),
        })
    }
}

impl CountMembers {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<CountMembers, ApiError> {
        let parameters = Parameters::read(uri, &["channel"])?;
        let channels: Vec<String> = parameters.all("channel").map(str::to_owned).collect();
        if channels.is_empty() {
            parameters.needed("channel")?;
        }
        caller.check_items(channels.len())?;
        for channel in &channels {
            check(caller, channel)?;
        }
        Ok(CountMembers { channels })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Owned(self.channels.join(" "))
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let mut counts = Vec::with_capacity(self.channels.len());
        for channel in &self.channels {
            let members = handle.presence_count(channel).await?;
            counts.push(json!({ "channel": channel, "members": members }));
        }
        answer_of(&json!({ "counts": counts }))
    }
}

/// Checks that the key allows the question, and that the channel has presence.
fn check(caller: &Caller<'_>, channel: &str) -> Result<(), ApiError> {
    caller.check_channel(ApiAction::Presence, channel)?;
    let policy = caller.channels.find(channel.as_bytes());
    if policy.is_some_and(|policy| policy.presence.is_on()) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::NoPresence,
        format!("no policy gives the channel {channel:?} presence: set presence = true in [[channels]]"),
    ))
}
