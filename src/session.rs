//! The session of a connection, whatever its protocol.
//!
//! A connection is given one when its upgrade has been answered. Each protocol is a variant: a core calls the same
//! methods on all of them, and knows none.

use crate::app::{App, LateAnswer};
pub use crate::app::{Hits, RuleHits, Scratch};
use crate::auth::rules::Rules;
use crate::auth::{Claims, Revocation};
use crate::clock::{Now, Uptime};
use crate::decision::{
    CloseReason, Decision, Decisions, Message, Span, SubscribeOutcome, UnsubscribeOutcome,
};
use crate::socketcluster;
#[cfg(test)]
pub(crate) use crate::socketcluster::session::PART_BYTES_MAX;
pub use crate::socketcluster::session::{Environment, LoginAnswer, Logins, SessionId, SessionIds, Settings};

/// What kind of session connections get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// SocketCluster.
    #[default]
    SocketCluster,
    /// Every message comes back. For conformance suites and benches, which drive the same event loop by it; only a
    /// program that embeds the library can choose it.
    Echo,
}

impl Kind {
    /// A session of this kind, for a connection that was just upgraded.
    /// `claims` are those of whoever the request itself has shown to be somebody.
    pub fn begin(
        self,
        ids: &mut SessionIds,
        settings: &Settings,
        now: Now,
        claims: Option<Box<Claims>>,
    ) -> Session {
        match self {
            Kind::SocketCluster => Session::SocketCluster(socketcluster::session::Session::new(
                ids.next_id(),
                settings,
                now,
                claims,
            )),
            Kind::Echo => Session::Echo(Echo(())),
        }
    }
}

/// The session of one connection.
#[derive(Debug)]
pub enum Session {
    /// A SocketCluster client's.
    SocketCluster(socketcluster::session::Session),
    /// Every message comes back.
    Echo(Echo),
}

/// Every message comes back.
#[derive(Debug)]
pub struct Echo(());

// Ten thousand idle connections hold one each.
const _: () = assert!(size_of::<Session>() <= 64);

impl Session {
    /// What its client is called, if it is called anything.
    pub fn id(&self) -> Option<SessionId> {
        match self {
            Session::SocketCluster(session) => Some(session.id()),
            Session::Echo(_) => None,
        }
    }

    /// Takes a whole message, or begins with it: [`Session::has_more`].
    ///
    /// # Errors
    /// The connection is to be closed, after the decisions so far have been carried out.
    pub fn receive<A: App>(
        &mut self,
        message: Message<'_>,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.receive(message, env, decisions),
            Session::Echo(_) => {
                echo(message, decisions);
                Ok(())
            }
        }
    }

    /// Whether something is left of a message, to be gone on with by [`Session::receive_more`] before anything else is
    /// received.
    #[inline]
    pub fn has_more(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.has_more(),
            Session::Echo(_) => false,
        }
    }

    /// How many bytes are kept for that.
    pub fn kept_bytes(&self) -> usize {
        match self {
            Session::SocketCluster(session) => session.kept_bytes(),
            Session::Echo(_) => 0,
        }
    }

    /// Goes on with a message.
    ///
    /// # Errors
    /// The connection is to be closed, after the decisions so far have been carried out.
    pub fn receive_more<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.receive_more(env, decisions),
            Session::Echo(_) => Ok(()),
        }
    }

    /// When [`Session::timed_out`] is to be called.
    pub fn next_deadline(&self, settings: &Settings) -> Uptime {
        match self {
            Session::SocketCluster(session) => session.next_deadline(settings),
            Session::Echo(_) => Uptime::NEVER,
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn timed_out<A: App>(
        &mut self,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.timed_out(env, decisions),
            Session::Echo(_) => Ok(()),
        }
    }

    /// The answer to a [`Decision::Subscribe`] that has been carried out; `None` for silence.
    pub fn subscribed(
        &mut self,
        channel: Span,
        cid: Option<Span>,
        outcome: SubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.subscribed(channel, cid, outcome, decisions),
            Session::Echo(_) => None,
        }
    }

    /// The answer to a [`Decision::Unsubscribe`] that has been carried out; `None` for silence.
    pub fn unsubscribed(
        &mut self,
        channel: Span,
        cid: Option<Span>,
        outcome: UnsubscribeOutcome,
        decisions: &mut Decisions,
    ) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.unsubscribed(channel, cid, outcome, decisions),
            Session::Echo(_) => None,
        }
    }

    /// The message for one channel of a [`Decision::KickOutAll`].
    pub fn kicked_out(&mut self, channel: &[u8], reason: Option<Span>, decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.kicked_out(channel, reason, decisions),
            Session::Echo(_) => decisions.write(|_| {}),
        }
    }

    /// Whether the client may keep a subscription.
    pub fn may_keep(&mut self, channel: &[u8], rules: &Rules) -> bool {
        match self {
            Session::SocketCluster(session) => session.may_keep(channel, rules),
            Session::Echo(_) => true,
        }
    }

    /// The message for a channel that a [`Decision::CheckSubscriptions`] takes away.
    pub fn forbidden(&mut self, channel: &[u8], decisions: &mut Decisions) -> Span {
        match self {
            Session::SocketCluster(session) => session.forbidden(channel, decisions),
            Session::Echo(_) => decisions.write(|_| {}),
        }
    }

    /// The rules may be others: has the subscriptions looked at again.
    pub fn look_again<A: App>(&mut self, env: &Environment<'_, A>, decisions: &mut Decisions) {
        match self {
            Session::SocketCluster(session) => session.look_again(env, decisions),
            Session::Echo(_) => {}
        }
    }

    /// Gives an answer that was deferred.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(crate) fn answer_late<A: App>(
        &mut self,
        late: LateAnswer,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.answer_late(late, env, decisions),
            // It has no application, and so has deferred nothing.
            Session::Echo(_) => Ok(()),
        }
    }

    /// The login that was [decided](Decision::Login) has been answered.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn login_answered<A: App>(
        &mut self,
        answer: LoginAnswer,
        env: &mut Environment<'_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self {
            Session::SocketCluster(session) => session.login_answered(answer, env, decisions),
            // It has asked for none.
            Session::Echo(_) => Ok(()),
        }
    }

    /// There is no room for the login that was [decided](Decision::Login): the answer, or `None` for silence.
    pub fn login_not_taken(&mut self, decisions: &mut Decisions) -> Option<Span> {
        match self {
            Session::SocketCluster(session) => session.login_not_taken(decisions),
            Session::Echo(_) => None,
        }
    }

    /// Counts silence up to now as this server's doing: it has not read the connection.
    pub fn reset_silence_timer(&mut self, now: Now, settings: &Settings) {
        match self {
            Session::SocketCluster(session) => session.reset_silence_timer(now, settings),
            Session::Echo(_) => {}
        }
    }

    /// Whether nothing has been heard from the client since that moment.
    pub fn last_heard_before(&self, moment: Uptime) -> bool {
        match self {
            Session::SocketCluster(session) => session.last_heard_before(moment),
            Session::Echo(_) => false,
        }
    }

    /// Takes the client's token away if this revokes it; whether it does. The connection is to be closed.
    pub fn revoke(&mut self, revocation: &Revocation, decisions: &mut Decisions) -> bool {
        match self {
            Session::SocketCluster(session) => session.revoke(revocation, decisions),
            Session::Echo(_) => false,
        }
    }

    /// What the client's token says, if it has shown a good one.
    pub fn claims(&self) -> Option<&Claims> {
        match self {
            Session::SocketCluster(session) => session.claims(),
            Session::Echo(_) => None,
        }
    }

    /// Whether the client has introduced itself and the end has not come.
    pub fn is_open(&self) -> bool {
        match self {
            Session::SocketCluster(session) => session.is_open(),
            Session::Echo(_) => true,
        }
    }

    /// The connection has ended, whatever the cause.
    pub fn ended<A: App>(&mut self, env: &mut Environment<'_, A>, reason: CloseReason) {
        match self {
            Session::SocketCluster(session) => session.ended(env, reason),
            Session::Echo(_) => {}
        }
    }
}

fn echo(message: Message<'_>, decisions: &mut Decisions) {
    let decision = match message {
        Message::Text(text) => Decision::Send {
            message: decisions.write(|out| out.extend_from_slice(text.as_bytes())),
        },
        Message::Binary(bytes) => Decision::SendBinary {
            message: decisions.write(|out| out.extend_from_slice(bytes)),
        },
    };
    decisions.push(decision);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_keeps_the_kind_and_the_bytes_of_a_message() {
        let mut decisions = Decisions::new();
        echo(Message::Text("é"), &mut decisions);
        echo(Message::Binary(&[0, 255]), &mut decisions);
        let &[
            Decision::Send { message: text },
            Decision::SendBinary { message: binary },
        ] = decisions.list()
        else {
            panic!("{:?}", decisions.list());
        };
        assert_eq!(
            (decisions.bytes(text), decisions.bytes(binary)),
            ("é".as_bytes(), &[0, 255][..])
        );
    }
}
