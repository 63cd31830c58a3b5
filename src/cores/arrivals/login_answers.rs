//! The answer to a login, and the sender that carries it from a thread of `PasswordChecks` to the core.

use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::auth::passwords::Users;
use crate::client::ClientAddress;
use crate::session::LoginAnswer;

/// The answer to a login, with the facts that the core needs to use it.
pub(in crate::cores) struct Answered {
    /// The token of the connection in the core's poll.
    pub(in crate::cores) address: usize,
    pub(in crate::cores) answer: LoginAnswer,
    /// The user name that the client gave.
    pub(in crate::cores) user: String,
    /// The address of the client, since the connection may have ended.
    pub(in crate::cores) client: ClientAddress,
    /// The users that the password checks have compared the login with.
    pub(in crate::cores) users: Option<Arc<Users>>,
}

/// The sender with which the password checks answer a core.
#[derive(Clone, Debug)]
pub(in crate::cores) struct LoginWay {
    pub(in crate::cores) logins: Sender<Answered>,
    pub(in crate::cores) waker: Arc<Waker>,
}

impl LoginWay {
    /// Gives an answer; called by a thread of the password checks. Room for the answer was reserved when the
    /// login was requested, so it does not matter whether the core runs. Only the answer to a core that has
    /// ended is lost.
    pub(in crate::cores) fn send(&self, answered: Answered) {
        if self.logins.try_send(answered).is_ok() {
            // An eventfd write fails only when its counter is full: then the core is being woken anyway.
            let _ = self.waker.wake();
        }
    }
}
