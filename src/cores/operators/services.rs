//! Answers questions about services (`service_lists.rs`).
//!
//! The owner of a pattern knows a member only by its connection, so the core that has the connection
//! describes the member.
//!
//! Limits: `EFFORT_PER_TURN_MAX` (`questions.rs`).

use mio::Token;

use crate::app::App;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::operators::service_lists::{DescribeMembers, ListServices, MemberRow};

impl<A: App> Core<A> {
    /// Goes on to list patterns. True if the question can be answered.
    pub(in crate::cores) fn list_some_services(&self, list: &mut ListServices, effort: &mut u32) -> bool {
        let pools = &self.services.pools;
        while list.next < pools.places() {
            if *effort == 0 {
                return false;
            }
            *effort -= 1;
            let place = list.next;
            list.next += 1;
            let Some((pattern, members)) = pools.at(place) else {
                continue;
            };
            if list.wants(pattern)
                && let Some(pool) = pools.view(place)
            {
                *effort = effort.saturating_sub(u32::try_from(members).unwrap_or(u32::MAX));
                list.note(pool);
            }
        }
        true
    }

    /// Goes on to describe members. True if the question can be answered.
    pub(in crate::cores) fn describe_some_members(
        &mut self,
        describe: &mut DescribeMembers,
        effort: &mut u32,
    ) -> bool {
        while let Some((connection, pattern)) = describe.asked.get(describe.found.len()) {
            if *effort == 0 {
                return false;
            }
            *effort = effort.saturating_sub(EFFORT_OF_A_MEMBER);
            let row = self.member_row(*connection, pattern);
            describe.found.push(row);
        }
        true
    }

    fn member_row(&mut self, connection: usize, pattern: &[u8]) -> Option<MemberRow> {
        let registered = self.services.registered(connection).iter();
        let meta = registered
            .filter(|one| *one.pattern == *pattern)
            .find_map(|one| one.meta.clone());
        let connection = self
            .connections
            .get(ConnectionId::from_token(Token(connection)))?;
        let Phase::Open(open) = &connection.phase else {
            return None;
        };
        Some(MemberRow {
            id: open.session.id()?,
            protocol: connection.framing.protocol(),
            user: open.session.claims().and_then(|claims| claims.user()),
            meta,
        })
    }
}

/// To read the claims of a connection and to describe it costs as much as to look at this many places.
const EFFORT_OF_A_MEMBER: u32 = 16;
