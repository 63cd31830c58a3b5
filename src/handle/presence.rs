//! Looking up the members of a channel: a question to the core that owns the channel.

use crate::app::SessionId;
use crate::cores::operators::questions::Question;
use crate::presence;

use super::asking::Asked;
use super::connections::page_size;
use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Page, Shared};

/// A member of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// The user; `None` for a client without one.
    pub user: Option<String>,
    /// The info that the member has set, as JSON text.
    pub info: Option<String>,
    /// Since when it is a member, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Its connections, at most 100. Empty while all connections of a user have ended and the user may still come back.
    pub connections: Vec<SessionId>,
}

impl Handle {
    /// Lists the members of a channel, at most `limit` (1 to 1000) of them. `after` is the `next` of the page before. A
    /// channel without presence has no members.
    ///
    /// A member that is there from the first page to the last is listed exactly once. A page may have fewer members
    /// than `limit` though more follow.
    ///
    /// # Errors
    /// [`HandleError::BadCursor`], [`HandleError::Unanswered`], or an error of every operation.
    pub fn presence(&self, channel: &str, after: Option<&str>, limit: usize) -> Pending<Page<MemberInfo>> {
        let counted = self.counted_presence(channel, after, limit);
        Pending::new(async move { Ok(counted.await?.1) })
    }

    /// The same, and how many members the channel has at that moment.
    pub(crate) fn counted_presence(
        &self,
        channel: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Pending<(u64, Page<MemberInfo>)> {
        let shared = self.shared();
        let channel = channel.to_owned();
        let after = after.map_or(Ok(0), str::parse);
        Pending::new(async move {
            let after = after.map_err(|_| HandleError::BadCursor)?;
            let page = shared.members(&channel, after, page_size(limit)).await?;
            let members = Page {
                items: page.members.into_iter().map(MemberInfo::of).collect(),
                next: page.next.map(|next| next.to_string()),
            };
            Ok((u64::from(page.count), members))
        })
    }

    /// How many members a channel has.
    ///
    /// # Errors
    /// [`HandleError::Unanswered`], or an error of every operation.
    pub fn presence_count(&self, channel: &str) -> Pending<u64> {
        let shared = self.shared();
        let channel = channel.to_owned();
        Pending::new(async move { Ok(u64::from(shared.members(&channel, 0, 0).await?.count)) })
    }
}

impl Shared {
    async fn members(&self, channel: &str, after: u32, limit: usize) -> Result<presence::Page, HandleError> {
        let owner = self.publishing.hash(channel).owner(self.cores.len());
        let name = Box::from(channel.as_bytes());
        let question = |answer| Question::Members {
            channel: name,
            after,
            limit,
            answer,
        };
        match self
            .ask(&self.cores[owner], self.answer_deadline(), question)
            .await?
        {
            Asked::Answered(page) => Ok(page),
            Asked::Ended => Err(HandleError::Ended),
            Asked::Unanswered => Err(HandleError::Unanswered { cores: vec![owner] }),
        }
    }
}

impl MemberInfo {
    fn of(member: presence::PageMember) -> MemberInfo {
        MemberInfo {
            user: member.user.map(String::from),
            info: member
                .info
                .map(|info| String::from_utf8_lossy(&info).into_owned()),
            since_unix_ms: member.since,
            connections: member.connections,
        }
    }
}
