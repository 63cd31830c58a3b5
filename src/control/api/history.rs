//! Reads and removes the history of a channel.

use std::borrow::Cow;

use axum::http::Uri;
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::{ApiError, ErrorCode};
use super::parameters::Parameters;
use super::{Caller, Position, answer_of};
use crate::config::api_keys::ApiAction;
use crate::handle::{Handle, History, HistoryQuery};

/// A question for the history of a channel.
#[derive(Debug)]
pub(super) struct ReadHistory {
    channel: String,
    query: HistoryQuery,
    limit: usize,
}

/// The order to remove the history of a channel.
#[derive(Debug)]
pub(super) struct RemoveHistory {
    channel: String,
}

#[derive(Serialize)]
struct HistoryAnswer<'a> {
    position: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    publications: Vec<Publication<'a>>,
}

#[derive(Serialize)]
struct Publication<'a> {
    offset: u64,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct RemovedAnswer {
    removed: u64,
}

impl ReadHistory {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<ReadHistory, ApiError> {
        let names = ["channel", "last", "since", "epoch", "offset", "limit"];
        let parameters = Parameters::read(uri, &names)?;
        let channel = parameters.needed("channel")?;
        caller.check_channel(ApiAction::History, channel)?;
        let most = caller.page_size(&parameters)?;
        let last = parameters.number("last", 1, u64::from(u32::MAX))?;
        let since = parameters.number("since", 0, OFFSET_MAX)?;
        let offset = parameters.number("offset", 0, OFFSET_MAX)?;
        let (query, limit) = match (last, since, parameters.text("epoch")?, offset) {
            (None, None, None, None) => (HistoryQuery::Last, most),
            (Some(last), None, None, None) => (
                HistoryQuery::Last,
                usize::try_from(last).map_or(most, |last| last.min(most)),
            ),
            (None, Some(since), None, None) => (HistoryQuery::Since(since), most),
            (None, None, Some(epoch), Some(offset)) => {
                let epoch = epoch.to_owned();
                (HistoryQuery::After { epoch, offset }, most)
            }
            _ => {
                return Err(ApiError::new(
                    ErrorCode::InvalidParameter,
                    "last, since, and epoch with offset exclude each other, and epoch and offset need each other",
                ));
            }
        };
        Ok(ReadHistory {
            channel: channel.to_owned(),
            query,
            limit,
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.channel)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let is_recovery = match self.query {
            HistoryQuery::After { .. } | HistoryQuery::Since(_) => true,
            HistoryQuery::Last => false,
        };
        let history = handle.history(&self.channel, self.query, self.limit).await?;
        if history.is_off() {
            return Err(ApiError::new(
                ErrorCode::NoHistory,
                format!(
                    "no policy keeps a history of the channel {:?}: set history_entries in [[channels]]",
                    self.channel
                ),
            ));
        }
        let bytes: usize = history
            .publications()
            .map(|publication| publication.data.map_or(0, str::len))
            .sum();
        if bytes > DATA_BYTES_MAX {
            return Err(ApiError::new(
                ErrorCode::AnswerTooLarge,
                format!(
                    "the publications have {bytes} bytes, and an answer may have {DATA_BYTES_MAX}: ask for fewer with limit"
                ),
            ));
        }
        answer_of(&HistoryAnswer {
            position: Position {
                epoch: history.epoch(),
                offset: history.offset(),
            },
            recovered: is_recovery.then(|| history.unknown().is_none()),
            reason: history.unknown(),
            publications: publications_of(&history)?,
        })
    }
}

impl RemoveHistory {
    pub(super) fn read(uri: &Uri, caller: &Caller<'_>) -> Result<RemoveHistory, ApiError> {
        let parameters = Parameters::read(uri, &["channel"])?;
        let channel = parameters.needed("channel")?;
        caller.check_channel(ApiAction::RemoveHistory, channel)?;
        Ok(RemoveHistory {
            channel: channel.to_owned(),
        })
    }

    pub(super) fn subject(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.channel)
    }

    pub(super) async fn run(self, handle: &Handle) -> Result<String, ApiError> {
        let removed = handle.remove_history(&self.channel).await?;
        answer_of(&RemovedAnswer { removed })
    }
}

fn publications_of(history: &History) -> Result<Vec<Publication<'_>>, ApiError> {
    let publications = history.publications().map(|publication| {
        let data = publication
            .data
            .map(serde_json::from_str::<&RawValue>)
            .transpose();
        let data = data.map_err(|_| {
            ApiError::new(
                ErrorCode::Failed,
                "a bug: the data of a publication in the history is not JSON",
            )
        })?;
        Ok(Publication {
            offset: publication.offset,
            time: publication.unix_ms,
            data,
        })
    });
    publications.collect()
}

/// Most bytes of data in one answer. It is copied from the memory of the history while the answer is sent.
const DATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest offset, and the largest time: what a double holds exactly.
const OFFSET_MAX: u64 = (1 << 53) - 1;
