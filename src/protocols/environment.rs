//! What a core keeps for the sessions of all protocols, and lends to one of them.

use std::sync::Arc;
use std::time::Duration;

use crate::app::{App, Post};
use crate::{session, socketcluster};

/// The settings of all protocols.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What holds for sessions of every protocol.
    pub common: session::Settings,
    /// What concerns SocketCluster alone.
    pub socketcluster: socketcluster::settings::Settings,
}

impl Settings {
    /// The shortest silence of a client for which a session of any protocol closes its connection.
    pub(crate) fn silence_max(&self) -> Duration {
        self.socketcluster.ping_timeout
    }
}

/// The buffers of one core for its sessions.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Those that sessions of every protocol use.
    pub common: session::Scratch,
    /// Those of SocketCluster alone.
    pub socketcluster: socketcluster::environment::Scratch,
}

impl Scratch {
    /// Empty buffers of a core that takes late answers by `post`.
    pub(crate) fn with_post(post: Arc<dyn Post>) -> Scratch {
        Scratch {
            common: session::Scratch::with_post(post),
            ..Scratch::default()
        }
    }
}

/// What a core lends a session for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// What sessions of every protocol are lent.
    pub common: session::Environment<'a, A>,
    /// The settings of all protocols.
    pub settings: &'a Settings,
    /// The buffers of SocketCluster alone.
    pub socketcluster: &'a mut socketcluster::environment::Scratch,
}

impl<'a, A: App> Environment<'a, A> {
    /// What a SocketCluster session is lent.
    #[inline]
    pub(super) fn socketcluster(&mut self) -> socketcluster::environment::Environment<'_, 'a, A> {
        socketcluster::environment::Environment {
            common: &mut self.common,
            settings: &self.settings.socketcluster,
            scratch: self.socketcluster,
        }
    }
}
