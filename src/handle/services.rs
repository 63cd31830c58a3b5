//! Lists services.
//!
//! Each pattern has an owner among the cores, so a page asks all cores for the first patterns behind the cursor, which
//! is a pattern. Then it asks the cores of the members who they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::SessionId;
use crate::cores::operators::questions::Question;
use crate::cores::operators::service_lists::{DescribeMembers, ListServices, MemberName, MemberRow};
use crate::services::PoolView;
use crate::session::ClientProtocol;

use super::asking::Asked;
use super::connections::{Page, page_size, text, user_text};
use super::error::HandleError;
use super::pending::Pending;
use super::{Handle, Shared};

/// A pattern of procedures, with the services that have registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// The name of a procedure, or a prefix with a final `*`.
    pub pattern: String,
    /// How many calls wait for a service with room.
    pub waiting: usize,
    /// The services, the one that has registered first in front.
    pub members: Vec<ServiceMember>,
}

/// A client that serves a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceMember {
    /// The id of its session.
    pub connection: SessionId,
    /// The protocol that it speaks.
    pub protocol: ClientProtocol,
    /// The index of its core.
    pub core: usize,
    /// The user: the claim `sub` of the client's token, if it is a text or a number.
    pub user: Option<String>,
    /// Its share of the calls.
    pub weight: u32,
    /// Most calls of the pattern that it has open.
    pub window: u32,
    /// The calls of the pattern that it has open.
    pub in_flight: u32,
    /// Whether it has not answered a call in time, and none since: it gets half of its window.
    pub is_slow: bool,
    /// Whether it reads too slowly: it gets no calls until it has read more.
    pub is_full: bool,
    /// What it says of itself, as JSON.
    pub meta: Option<String>,
}

impl Handle {
    /// Lists patterns of services in their order: as many as have `limit` (1 to 1000) services together, and at least
    /// one. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// [`HandleError::Unanswered`], or an error of every operation.
    pub fn services(&self, after: Option<&str>, limit: usize) -> Pending<Page<ServiceInfo>> {
        let shared = Arc::clone(&self.0);
        let after = after.map(str::to_owned);
        Pending::new(async move { shared.services(after.as_deref(), page_size(limit)).await })
    }
}

impl Shared {
    async fn services(&self, after: Option<&str>, limit: usize) -> Result<Page<ServiceInfo>, HandleError> {
        let lists = self
            .ask_all(|answer| Question::Services(ListServices::new(after, limit, answer)))
            .await?;
        let Page { items: pools, next } = first_of(lists, limit);
        let mut rows = self.members_of(&pools).await?;
        let items = pools.into_iter().map(|pool| {
            let members = pool.members.iter().filter_map(|member| {
                // A member without a row has gone since.
                let row = rows.get_mut(&member.key.core)?.next()??;
                Some(ServiceMember {
                    connection: row.id,
                    protocol: row.protocol,
                    core: member.key.core,
                    user: row.user.map(user_text),
                    weight: member.offer.weight,
                    window: member.offer.window,
                    in_flight: member.in_flight,
                    is_slow: member.is_slow,
                    is_full: member.is_full,
                    meta: row.meta.map(String::from),
                })
            });
            ServiceInfo {
                pattern: text(&pool.pattern),
                waiting: pool.waiting,
                members: members.collect(),
            }
        });
        Ok(Page {
            items: items.collect(),
            next,
        })
    }

    /// The descriptions of the members, for each core in the order in which its members stand in `pools`.
    async fn members_of(
        &self,
        pools: &[PoolView],
    ) -> Result<BTreeMap<usize, std::vec::IntoIter<Option<MemberRow>>>, HandleError> {
        let mut asked: BTreeMap<usize, Vec<MemberName>> = BTreeMap::new();
        for pool in pools {
            for member in &pool.members {
                let of_core = asked.entry(member.key.core).or_default();
                of_core.push((member.key.connection, pool.pattern.clone()));
            }
        }
        let deadline = self.answer_deadline();
        let mut rows = BTreeMap::new();
        for (index, members) in asked {
            let Some(core) = self.cores.get(index) else {
                continue;
            };
            let question = |answer| Question::DescribeMembers(DescribeMembers::new(members, answer));
            match self.ask(core, deadline, question).await? {
                Asked::Answered(found) => {
                    rows.insert(index, found.into_iter());
                }
                Asked::Ended => {}
                Asked::Unanswered => return Err(HandleError::Unanswered { cores: vec![index] }),
            }
        }
        Ok(rows)
    }
}

/// The first pools of all lists, until they have `limit` members. Each list has the first ones of a core, with as many
/// members if there are as many; so these are complete.
fn first_of(lists: Vec<Vec<PoolView>>, limit: usize) -> Page<PoolView> {
    let mut all: Vec<PoolView> = lists.into_iter().flatten().collect();
    all.sort_unstable_by(|one, other| one.pattern.cmp(&other.pattern));
    let mut members = 0;
    let end = all.iter().position(|pool| {
        let is_enough = members >= limit;
        members += pool.members.len();
        is_enough
    });
    // A list that is full may have left patterns out, which come behind its last one.
    let has_more = end.is_some() || members >= limit;
    all.truncate(end.unwrap_or(usize::MAX));
    let next = all.last().filter(|_| has_more).map(|last| text(&last.pattern));
    Page { items: all, next }
}
