//! Lists connections, and acts on them: closes them, subscribes them, ends their subscriptions.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::body::Bytes;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{ApiError, ErrorCode};
use super::parameters::Parameters;
use super::{Caller, from_body, page};
use crate::app::SessionId;
use crate::config::api_keys::ApiAction;
use crate::decision::CloseCode;
use crate::handle::{ConnectionInfo, Handle, Page, Selection};

/// A question for connections.
#[derive(Debug)]
pub(super) struct ListConnections {
    selection: Selection,
    after: Option<String>,
    limit: usize,
}

/// An operation on connections.
#[derive(Debug)]
pub(super) struct ActOnConnections {
    selection: Selection,
    act: Act,
}

#[derive(Debug)]
enum Act {
    Disconnect {
        code: CloseCode,
        reason: String,
    },
    Subscribe {
        channel: String,
    },
    Unsubscribe {
        channel: String,
        message: Option<String>,
    },
}

/// The names of the conditions, of which a request has at most one.
#[derive(Debug, Default)]
struct Conditions<'a> {
    user: Option<&'a str>,
    connection: Option<&'a str>,
    address: Option<&'a str>,
    channel: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    code: Option<u16>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    channel: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnsubscribeBody {
    user: Option<String>,
    connection: Option<String>,
    address: Option<String>,
    channel: String,
    message: Option<String>,
}

impl ListConnections {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<ListConnections, ApiError> {
        let names = ["user", "connection", "address", "channel", "after", "limit"];
        let parameters = Parameters::read(uri, &names)?;
        let conditions = Conditions {
            user: parameters.text("user")?,
            connection: parameters.text("connection")?,
            address: parameters.text("address")?,
            channel: parameters.text("channel")?,
        };
        if let Some(channel) = conditions.channel {
            caller.check_channel(ApiAction::Connections, channel)?;
        }
        Ok(ListConnections {
            selection: conditions
                .selection(ErrorCode::InvalidParameter)?
                .unwrap_or(Selection::All),
            after: parameters.text("after")?.map(str::to_owned),
            limit: caller.page_size(&parameters)?,
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        subject(&self.selection)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let Page { items, next } = handle
            .connections(&self.selection, self.after.as_deref(), self.limit)
            .await?;
        let connections = items.iter().map(connection_shown).collect();
        Ok(page("connections", connections, next))
    }
}

impl ActOnConnections {
    pub(super) fn of_disconnect(body: &Bytes) -> Result<ActOnConnections, ApiError> {
        let body: DisconnectBody = from_body(body)?;
        let code = body.code.unwrap_or(CLOSE_CODE_DEFAULT);
        let code = CloseCode::new(code).ok_or_else(|| {
            ApiError::new(
                ErrorCode::InvalidBody,
                format!("code: {code} may not be sent in a close frame: expected 1000 or 3000 to 4999"),
            )
        })?;
        Ok(ActOnConnections {
            selection: one(&body.user, &body.connection, &body.address)?,
            act: Act::Disconnect {
                code,
                reason: body.reason.unwrap_or_default(),
            },
        })
    }

    pub(super) fn of_subscribe(body: &Bytes, caller: &Caller<'_>) -> Result<ActOnConnections, ApiError> {
        let body: ChannelBody = from_body(body)?;
        caller.check_channel(ApiAction::Subscribe, &body.channel)?;
        Ok(ActOnConnections {
            selection: one(&body.user, &body.connection, &body.address)?,
            act: Act::Subscribe {
                channel: body.channel,
            },
        })
    }

    pub(super) fn of_unsubscribe(body: &Bytes, caller: &Caller<'_>) -> Result<ActOnConnections, ApiError> {
        let body: UnsubscribeBody = from_body(body)?;
        caller.check_channel(ApiAction::Unsubscribe, &body.channel)?;
        Ok(ActOnConnections {
            selection: one(&body.user, &body.connection, &body.address)?,
            act: Act::Unsubscribe {
                channel: body.channel,
                message: body.message,
            },
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        let connections = subject(&self.selection);
        match &self.act {
            Act::Disconnect { .. } => connections,
            Act::Subscribe { channel } | Act::Unsubscribe { channel, .. } => {
                Cow::Owned(format!("{connections} on {channel}"))
            }
        }
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let selection = &self.selection;
        let count = match &self.act {
            Act::Disconnect { code, reason } => handle.disconnect(selection, *code, reason).await,
            Act::Subscribe { channel } => handle.subscribe_connections(selection, channel).await,
            Act::Unsubscribe { channel, message } => {
                handle
                    .unsubscribe_connections(selection, Some(channel), message.as_deref())
                    .await
            }
        }?;
        Ok(json!({ "connections": count }).to_string())
    }
}

impl Conditions<'_> {
    /// The selection of the only condition; `None` if there is none.
    fn selection(&self, code: ErrorCode) -> Result<Option<Selection>, ApiError> {
        let wrong = |message: &str| Err(ApiError::new(code, message));
        match (self.user, self.connection, self.address, self.channel) {
            (None, None, None, None) => Ok(None),
            (Some(user), None, None, None) => Ok(Some(Selection::User(user.to_owned()))),
            (None, Some(id), None, None) => match id.parse::<SessionId>() {
                Ok(id) => Ok(Some(Selection::Session(id))),
                Err(_) => wrong("connection: expected the id of a connection, which has 20 characters"),
            },
            (None, None, Some(address), None) => match address.parse::<IpAddr>() {
                Ok(address) => Ok(Some(Selection::Address(address))),
                Err(_) => wrong("address: expected an IP address without a port"),
            },
            (None, None, None, Some(channel)) => Ok(Some(Selection::Channel(channel.to_owned()))),
            _ => wrong("several of user, connection, address and channel are there: name one"),
        }
    }
}

/// The selection of the only condition in a body. It is required, so that no request selects all connections by
/// mistake.
pub(super) fn one(
    user: &Option<String>,
    connection: &Option<String>,
    address: &Option<String>,
) -> Result<Selection, ApiError> {
    let conditions = Conditions {
        user: user.as_deref(),
        connection: connection.as_deref(),
        address: address.as_deref(),
        channel: None,
    };
    let selection = conditions.selection(ErrorCode::InvalidBody)?;
    selection.ok_or_else(|| {
        ApiError::new(
            ErrorCode::InvalidBody,
            "name the connections by user, connection or address",
        )
    })
}

/// The subject in the line of the audit trail.
pub(super) fn subject(selection: &Selection) -> Cow<'_, str> {
    match selection {
        Selection::All => Cow::Borrowed("all connections"),
        Selection::User(user) => Cow::Owned(format!("user {user}")),
        Selection::Channel(channel) => Cow::Owned(format!("channel {channel}")),
        Selection::Address(address) => Cow::Owned(format!("address {address}")),
        Selection::Session(id) => Cow::Owned(format!("connection {id}")),
    }
}

fn connection_shown(connection: &ConnectionInfo) -> Value {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), json!(connection.id.to_string()));
    shown.insert("protocol".to_owned(), json!(connection.protocol.name()));
    if let Some(user) = &connection.user {
        shown.insert("user".to_owned(), json!(user));
    }
    if let Some(address) = connection.address {
        shown.insert(
            "address".to_owned(),
            json!(address.ip().to_canonical().to_string()),
        );
        shown.insert("port".to_owned(), json!(address.port()));
    }
    shown.insert("since".to_owned(), json!(connection.since_unix_ms));
    shown.insert("subscriptions".to_owned(), json!(connection.subscriptions));
    shown.insert("waiting_bytes".to_owned(), json!(connection.waiting_bytes));
    shown.insert("core".to_owned(), json!(connection.core));
    Value::Object(shown)
}

/// Clients of SocketCluster that are closed with this code do not reconnect by themselves.
const CLOSE_CODE_DEFAULT: u16 = 1000;
