//! What a request asks for, after all that can be checked without the cores has been checked.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::Uri;

use super::Caller;
use super::calls::{CallClients, Transmit};
use super::channels::ListChannels;
use super::connections::{ActOnConnections, ListConnections};
use super::error::{ApiError, ErrorCode};
use super::history::{ReadHistory, RemoveHistory};
use super::presence::{CountMembers, ListMembers};
use super::publish::Publications;
use super::services::ListServices;
use super::tokens::ChangeTokens;
use crate::handle::Handle;
use crate::metrics::api::ApiRoute;

/// An operation of the handle, with its arguments.
#[derive(Debug)]
pub(super) enum Operation {
    Publish(Publications),
    History(ReadHistory),
    RemoveHistory(RemoveHistory),
    Members(ListMembers),
    CountMembers(CountMembers),
    Channels(ListChannels),
    Connections(ListConnections),
    Services(ListServices),
    Act(ActOnConnections),
    Call(CallClients),
    Transmit(Transmit),
    Tokens(ChangeTokens),
}

impl Operation {
    /// Reads the parameters or the body of a request.
    pub(super) fn read(
        route: ApiRoute,
        uri: &Uri,
        body: &Bytes,
        caller: &Caller<'_>,
    ) -> Result<Operation, ApiError> {
        let publish = |publications: Publications| {
            publications.check(caller)?;
            Ok(Operation::Publish(publications))
        };
        match route {
            ApiRoute::Publish => publish(Publications::of_publish(body)?),
            ApiRoute::Publications => publish(Publications::of_batch(body)?),
            ApiRoute::Broadcast => publish(Publications::of_broadcast(body)?),
            ApiRoute::History => ReadHistory::read(uri, caller).map(Operation::History),
            ApiRoute::RemoveHistory => RemoveHistory::read(uri, caller).map(Operation::RemoveHistory),
            ApiRoute::Presence => ListMembers::read(uri, caller).map(Operation::Members),
            ApiRoute::PresenceCounts => CountMembers::read(uri, caller).map(Operation::CountMembers),
            ApiRoute::Channels => ListChannels::read(uri, caller).map(Operation::Channels),
            ApiRoute::Connections => ListConnections::read(uri, caller).map(Operation::Connections),
            ApiRoute::Services => ListServices::read(uri, caller).map(Operation::Services),
            ApiRoute::Disconnect => ActOnConnections::of_disconnect(body).map(Operation::Act),
            ApiRoute::Subscribe => ActOnConnections::of_subscribe(body, caller).map(Operation::Act),
            ApiRoute::Unsubscribe => ActOnConnections::of_unsubscribe(body, caller).map(Operation::Act),
            ApiRoute::Call => CallClients::read(body).map(Operation::Call),
            ApiRoute::Transmit => Transmit::read(body).map(Operation::Transmit),
            ApiRoute::SetClaims => ChangeTokens::of_set_claims(body).map(Operation::Tokens),
            ApiRoute::RefreshToken => ChangeTokens::of_refresh_token(body).map(Operation::Tokens),
            ApiRoute::RemoveToken => ChangeTokens::of_remove_token(body).map(Operation::Tokens),
            ApiRoute::Openapi | ApiRoute::Unknown => Err(ApiError::new(
                ErrorCode::UnknownPath,
                "there is no operation with this path",
            )),
        }
    }

    /// What the audit trail names.
    pub(super) fn subject(&self) -> Cow<'_, str> {
        match self {
            Operation::Publish(publications) => publications.subject(),
            Operation::History(read) => read.subject(),
            Operation::RemoveHistory(remove) => remove.subject(),
            Operation::Members(list) => list.subject(),
            Operation::CountMembers(count) => count.subject(),
            Operation::Channels(list) => list.subject(),
            Operation::Connections(list) => list.subject(),
            Operation::Services(list) => list.subject(),
            Operation::Act(act) => act.subject(),
            Operation::Call(call) => call.subject(),
            Operation::Transmit(transmit) => transmit.subject(),
            Operation::Tokens(change) => change.subject(),
        }
    }

    /// Whether it does no harm to carry it out again after cores have not answered: the other cores have carried it
    /// out, and these still may.
    pub(super) fn may_be_done_twice(&self) -> bool {
        match self {
            Operation::Call(_) | Operation::Transmit(_) => false,
            Operation::Publish(_)
            | Operation::History(_)
            | Operation::RemoveHistory(_)
            | Operation::Members(_)
            | Operation::CountMembers(_)
            | Operation::Channels(_)
            | Operation::Connections(_)
            | Operation::Services(_)
            | Operation::Act(_)
            | Operation::Tokens(_) => true,
        }
    }

    /// Whether it takes as long as clients take to answer.
    pub(super) fn waits_for_clients(&self) -> bool {
        matches!(self, Operation::Call(_))
    }

    /// Carries it out.
    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        match self {
            Operation::Publish(publications) => publications.run(handle).await,
            Operation::History(read) => read.run(handle).await,
            Operation::RemoveHistory(remove) => remove.run(handle).await,
            Operation::Members(list) => list.run(handle).await,
            Operation::CountMembers(count) => count.run(handle).await,
            Operation::Channels(list) => list.run(handle).await,
            Operation::Connections(list) => list.run(handle).await,
            Operation::Services(list) => list.run(handle).await,
            Operation::Act(act) => act.run(handle).await,
            Operation::Call(call) => call.run(handle).await,
            Operation::Transmit(transmit) => transmit.run(handle).await,
            Operation::Tokens(change) => change.run(handle).await,
        }
    }
}
