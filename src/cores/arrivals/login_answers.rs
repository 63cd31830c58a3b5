//! What has come of a login, and its way from a thread of the password checks to the core.

use std::sync::Arc;

use crossbeam_channel::Sender;
use mio::Waker;

use crate::auth::passwords::Users;
use crate::client::ClientAddress;
use crate::session::LoginAnswer;

/// What has come of a login.
pub(in crate::cores) struct Answered {
    /// Where the core finds the connection.
    pub(in crate::cores) address: usize,
    pub(in crate::cores) answer: LoginAnswer,
    /// Whose login it was, by what was claimed.
    pub(in crate::cores) user: String,
    /// From where it came: the connection may have ended since.
    pub(in crate::cores) client: ClientAddress,
    /// The users among which the password checks have looked.
    pub(in crate::cores) users: Option<Arc<Users>>,
}

/// The sender by which the password checks answer a core.
#[derive(Clone, Debug)]
pub(in crate::cores) struct LoginWay {
    pub(in crate::cores) logins: Sender<Answered>,
    pub(in crate::cores) waker: Arc<Waker>,
}

impl LoginWay {
    /// Gives an answer; called by a thread of the password checks. There is room for it since the login was asked for, whether the core turns
    /// or not: only that of a core that has ended is lost.
    pub(in crate::cores) fn send(&self, answered: Answered) {
        if self.logins.try_send(answered).is_ok() {
            // As with late answers: a core that cannot be woken is being woken.
            let _ = self.waker.wake();
        }
    }
}
