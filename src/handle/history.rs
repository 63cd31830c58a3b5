//! Reads and removes the histories of channels: a question to the core that owns the channel.

use std::sync::Arc;

use crate::broker::{Epoch, Position};
use crate::cores::operators::questions::{Answer, AskHistory, HistoryAsked, Question};
use crate::history::{Query, Reading, Unknown};

use super::asking::Asked;
use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Shared};

/// A question for publications of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryQuery {
    /// All publications after a position: all of them or, if not all are known, none.
    After {
        /// The name of the numbering.
        epoch: String,
        /// The place in it.
        offset: u64,
    },
    /// The newest publications, as many as the limit says.
    Last,
    /// The publications since this time, in milliseconds since 1970; only the newest, if some are no longer there or
    /// the limit is lower. [`History::unknown`] says so.
    Since(u64),
}

/// Publications of a channel. Their memory stays in use for as long as it exists.
#[derive(Clone, Debug)]
pub struct History {
    reading: Reading,
    unknown: Option<Unknown>,
}

/// A publication of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryEntry<'a> {
    /// Its place in the order of all publications.
    pub offset: u64,
    /// When it was published, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Its data as JSON; `None` if it has none.
    pub data: Option<&'a str>,
}

impl History {
    /// The name of the numbering that offsets are of.
    pub fn epoch(&self) -> String {
        self.reading.up_to().epoch.as_str().to_owned()
    }

    /// The offset up to which publications of the channel were looked at: later ones have higher offsets.
    pub fn offset(&self) -> u64 {
        self.reading.up_to().offset
    }

    /// Why requested publications are missing, in the words that clients get. `None` if none is missing.
    pub fn unknown(&self) -> Option<&'static str> {
        self.unknown.map(Unknown::text)
    }

    /// True if the policy of the channel keeps no history.
    pub fn is_off(&self) -> bool {
        self.unknown == Some(Unknown::NoHistory)
    }

    /// The publications, the oldest first.
    pub fn publications(&self) -> impl Iterator<Item = HistoryEntry<'_>> {
        self.reading.publications().map(|remembered| HistoryEntry {
            offset: remembered.offset,
            unix_ms: remembered.unix_ms,
            // Data is JSON, which is text.
            data: str::from_utf8(remembered.payload)
                .ok()
                .filter(|data| !data.is_empty()),
        })
    }
}

impl Handle {
    /// Reads the history of a channel, as its policy in `[[channels]]` keeps it; at most `limit` publications.
    ///
    /// # Errors
    /// [`HandleError::NameTooLong`], [`HandleError::Unanswered`], or an error of every operation.
    pub fn history(&self, channel: &str, query: HistoryQuery, limit: usize) -> Pending<History> {
        let shared = Arc::clone(&self.0);
        let channel = channel.to_owned();
        Pending::new(async move {
            let publications_max = u32::try_from(limit).unwrap_or(u32::MAX);
            let (query, of_former) = match query {
                HistoryQuery::Last => (Query::Last(publications_max), None),
                HistoryQuery::Since(unix_ms) => (Query::Since(unix_ms), None),
                HistoryQuery::After { epoch, offset } => match Epoch::from_text(epoch.as_bytes()) {
                    Some(epoch) => (Query::After(Position { epoch, offset }), None),
                    None => (Query::Position, Some(Unknown::OtherEpoch)),
                },
            };
            let reading = shared
                .ask_owner(&channel, |answer| HistoryAsked::Read {
                    query,
                    publications_max,
                    answer,
                })
                .await?;
            let unknown = of_former.or_else(|| reading.why_unknown());
            Ok(History { reading, unknown })
        })
    }

    /// Removes all publications of a channel's history, and returns their number. The answer to a later question after
    /// an earlier position says that they are not known.
    ///
    /// # Errors
    /// As [`Handle::history`].
    pub fn remove_history(&self, channel: &str) -> Pending<u64> {
        let shared = Arc::clone(&self.0);
        let channel = channel.to_owned();
        Pending::new(async move {
            let removed = shared
                .ask_owner(&channel, |answer| HistoryAsked::Remove { answer })
                .await?;
            Ok(removed as u64)
        })
    }
}

impl Shared {
    /// Asks the core that owns the channel.
    async fn ask_owner<T: Send + 'static>(
        &self,
        channel: &str,
        asked: impl FnOnce(Answer<T>) -> HistoryAsked,
    ) -> Result<T, HandleError> {
        self.publishing.check_name(channel)?;
        let hash = self.publishing.hash(channel);
        let owner = hash.owner(self.cores.len());
        let core = self.cores.get(owner).ok_or(HandleError::Ended)?;
        let question = |answer| {
            Question::History(AskHistory {
                name: channel.as_bytes().into(),
                hash,
                before: None,
                asked: asked(answer),
            })
        };
        match self.ask(core, self.answer_deadline(), question).await? {
            Asked::Answered(answer) => Ok(answer),
            Asked::Ended => Err(HandleError::Ended),
            Asked::Unanswered => Err(HandleError::Unanswered { cores: vec![owner] }),
        }
    }
}
