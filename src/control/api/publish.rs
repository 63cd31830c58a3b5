//! Publications from outside: one, a batch, or the same to many channels.
//!
//! The publications of a request are made in their order. All of them are checked before the first is made; if the ring
//! then has no room, the answer says how many were made. An answer has the positions of publications on channels whose
//! policy has positions.

use std::borrow::Cow;

use axum::body::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::error::{ApiError, ErrorCode};
use super::{Caller, Position, answer_of, from_body};
use crate::config::api_keys::ApiAction;
use crate::handle::{Handle, HandleError};
use crate::metrics::api::ApiRoute;
use crate::session;

/// The publications of one request.
#[derive(Debug)]
pub(super) struct Publications {
    /// Each channel with the index of its data.
    targets: Vec<(Box<str>, usize)>,
    /// Without data, the retained publication of the channel is taken away.
    data: Vec<(Option<Box<RawValue>>, Keeping)>,
    route: ApiRoute,
}

/// The body of `publish`, and an item of `publications`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody {
    channel: Box<str>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    retain: bool,
}

/// The body of `publications`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    publications: Vec<PublishBody>,
}

/// The body of `broadcast`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroadcastBody {
    channels: Vec<Box<str>>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default)]
    retain: bool,
}

/// Whether a publication is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// As the policy of the channel says.
    ByPolicy,
    /// It is the retained publication of the channel, as well.
    Retained,
}

/// A value that is there, `null` included.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
struct PublishedAnswer<'a> {
    published: usize,
    /// Of `publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<&'a Position>,
    /// Of the other routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<&'a [Option<Position>]>,
}

impl Publications {
    pub(super) fn of_publish(body: &Bytes) -> Result<Publications, ApiError> {
        let one: PublishBody = from_body(body)?;
        Ok(Publications::of_list(vec![one], ApiRoute::Publish))
    }

    pub(super) fn of_batch(body: &Bytes) -> Result<Publications, ApiError> {
        let batch: BatchBody = from_body(body)?;
        Ok(Publications::of_list(batch.publications, ApiRoute::Publications))
    }

    pub(super) fn of_broadcast(body: &Bytes) -> Result<Publications, ApiError> {
        let broadcast: BroadcastBody = from_body(body)?;
        Ok(Publications {
            targets: broadcast
                .channels
                .into_iter()
                .map(|channel| (channel, 0))
                .collect(),
            data: vec![(broadcast.data, keeping(broadcast.retain))],
            route: ApiRoute::Broadcast,
        })
    }

    fn of_list(list: Vec<PublishBody>, route: ApiRoute) -> Publications {
        let mut publications = Publications {
            targets: Vec::with_capacity(list.len()),
            data: Vec::with_capacity(list.len()),
            route,
        };
        for (index, publish) in list.into_iter().enumerate() {
            publications.targets.push((publish.channel, index));
            publications.data.push((publish.data, keeping(publish.retain)));
        }
        publications
    }

    /// Checks that the key allows all channels, and that the request is within its limits.
    pub(super) fn check(&self, caller: &Caller<'_>) -> Result<(), ApiError> {
        caller.check_items(self.targets.len())?;
        for (channel, data) in &self.targets {
            caller.check_channel(ApiAction::Publish, channel)?;
            let (name, channels) = (channel.as_bytes(), caller.channels);
            let refusal = session::reserved(name, channels, caller.mqtt).or_else(|| {
                let (_, keeping) = self.data.get(*data)?;
                match keeping {
                    Keeping::ByPolicy => None,
                    Keeping::Retained => session::why_not_retained(name, channels, caller.mqtt),
                }
            });
            if let Some(refusal) = refusal {
                let message = format!("{channel}: {refusal}: use another channel");
                return Err(ApiError::new(ErrorCode::InvalidChannel, message));
            }
        }
        let lacks_data =
            |(data, keeping): &(Option<_>, Keeping)| data.is_none() && *keeping == Keeping::ByPolicy;
        if self.data.iter().any(lacks_data) {
            return Err(ApiError::new(
                ErrorCode::InvalidBody,
                "the body is not as expected: missing field `data`; only with `retain` may it be absent, which takes the \
                 retained publication away",
            ));
        }
        Ok(())
    }

    /// What the audit trail names: the channel, or the first of several.
    pub(super) fn subject(&self) -> Cow<'_, str> {
        match self.targets.as_slice() {
            [] => Cow::Borrowed(""),
            [(channel, _)] => Cow::Borrowed(channel),
            [(first, _), rest @ ..] => Cow::Owned(format!("{first} and {} more", rest.len())),
        }
    }

    /// Publishes all of them.
    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let count = self.targets.len();
        let mut positions = Vec::with_capacity(count);
        for (index, (channel, data)) in self.targets.iter().enumerate() {
            let (data, keeping) = match self.data.get(*data) {
                Some((data, keeping)) => (data.as_ref().map(|data| data.get()), *keeping),
                None => (None, Keeping::ByPolicy),
            };
            let published = match keeping {
                Keeping::ByPolicy => handle.publish_json(channel, data),
                Keeping::Retained => handle.retain_json(channel, data),
            };
            match published.await {
                Ok(receipt) => positions.push(receipt.position.map(Position::from)),
                Err(error) if self.route == ApiRoute::Publish => return Err(error.into()),
                Err(error) => {
                    if error == HandleError::PublishedNotStored {
                        // It was made, too, and must not be sent again.
                        positions.push(None);
                    }
                    return Err(ApiError::from(error).after_publications(positions, count));
                }
            }
            if index % PUBLICATIONS_PER_TURN == PUBLICATIONS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        answer_of(&if self.route == ApiRoute::Publish {
            PublishedAnswer {
                published: count,
                position: positions.first().and_then(Option::as_ref),
                positions: None,
            }
        } else {
            PublishedAnswer {
                published: count,
                position: None,
                positions: positions_shown(&positions),
            }
        })
    }
}

const fn keeping(retain: bool) -> Keeping {
    if retain {
        Keeping::Retained
    } else {
        Keeping::ByPolicy
    }
}

/// The positions that an answer has: one for each publication, or none if no channel has positions.
pub(super) fn positions_shown(positions: &[Option<Position>]) -> Option<&[Option<Position>]> {
    positions.iter().any(Option::is_some).then_some(positions)
}

/// How many publications of a request are made before other requests have their turn.
const PUBLICATIONS_PER_TURN: usize = 64;
