//! Counts the calls, members and pools of services on a core, for tests that compare all cores.

use std::collections::BTreeSet;

use super::state::Stage;
use crate::app::App;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::Phase;
use crate::protocols::Session;

/// The counts of one core, or of all cores together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cores) struct Census {
    /// Calls of its clients.
    pub(in crate::cores) open: usize,
    /// Calls that members of its pools have, and calls that wait for a member.
    pub(in crate::cores) in_flight: usize,
    pub(in crate::cores) waiting: usize,
    /// Calls that its clients have as services, and those of them that were cancelled.
    pub(in crate::cores) given: usize,
    pub(in crate::cores) cancelled: usize,
    /// Cancelled calls that it has listed.
    pub(in crate::cores) listed: usize,
    /// Patterns that its clients serve, and members of its pools.
    pub(in crate::cores) registrations: usize,
    pub(in crate::cores) members: usize,
    /// Its pools.
    pub(in crate::cores) pools: usize,
}

impl Census {
    pub(in crate::cores) fn add(&mut self, other: &Census) {
        self.open += other.open;
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.given += other.given;
        self.cancelled += other.cancelled;
        self.listed += other.listed;
        self.registrations += other.registrations;
        self.members += other.members;
        self.pools += other.pools;
    }
}

impl<A: App> Core<A> {
    /// Counts for this core.
    pub(in crate::cores) fn census_of_services(&self) -> Census {
        let services = &self.services;
        let mut census = Census {
            open: services.open.len(),
            in_flight: services.pools.in_flight_len(),
            waiting: services.pools.waiting().map(|(_, count)| count).sum(),
            listed: services.cancelled.len(),
            registrations: services.all_registered().count(),
            members: services.pools.members_len(),
            pools: services.pools.patterns_len(),
            ..Census::default()
        };
        for id in self.connections.ids() {
            let phase = self.connections.get(id).map(|connection| &connection.phase);
            if let Some(Phase::Open(open)) = phase
                && let Session::SocketCluster(session) = &open.session
            {
                let (given, cancelled) = session.given_calls();
                census.given += given;
                census.cancelled += cancelled;
            }
        }
        census
    }

    /// Whether the tables of services hold together while no letter is on its way.
    ///
    /// # Errors
    /// They do not.
    pub(in crate::cores) fn check_services_at_rest(&self) -> Result<(), String> {
        if let Some(broken) = self.services.pools.broken_invariant() {
            return Err(broken);
        }
        let connections: BTreeSet<usize> = self.connections.ids().map(|id| id.token().0).collect();
        for (connection, registration) in self.services.all_registered() {
            if registration.stage != Stage::Served || !registration.held.is_empty() {
                return Err(format!("a registration is under way: {registration:?}"));
            }
            if !connections.contains(&connection) {
                return Err(format!("a registration of nobody: {registration:?}"));
            }
        }
        let gone = self
            .services
            .cancelled
            .values()
            .find(|connection| !connections.contains(connection));
        match gone {
            Some(_) => Err("a cancelled call of a service that has gone is listed".to_owned()),
            None => Ok(()),
        }
    }
}
