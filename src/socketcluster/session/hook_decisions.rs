//! Calls and one-way events that a hook decides before the application gets them, or instead of the
//! application (`hooks`).

use super::undecided::About;
use super::{Environment, Session, refuse};
use crate::app::{AllowedPublish, AllowedPublishKind, App, Call, RawJson, Refusal, Refused};
use crate::config::rules::Action;
use crate::decision::{CloseReason, Decisions};
use crate::hooks::Subject;
use crate::socketcluster::number::Number;
use crate::socketcluster::packet::Event;

/// The subject of the question to a hook about a call or a one-way event.
#[inline]
pub(super) fn subject<'a>(call: &Call<'a>, action: Action) -> Subject<'a> {
    let (name, data) = (call.event.as_bytes(), call.data.map(RawJson::as_str));
    if action == Action::Invoke {
        Subject::Invoke {
            procedure: name,
            data,
        }
    } else {
        Subject::Transmit { event: name, data }
    }
}

impl Session {
    /// Whether the hook that decides about subscriptions to a channel lets the client read its history or its
    /// members. `None` if the decision comes later; then the packet is kept. Other orders of the hook are not
    /// carried out.
    #[inline]
    pub(super) fn may_read_channel<A: App>(
        &mut self,
        event: &Event<'_>,
        channel: &[u8],
        env: &mut Environment<'_, '_, A>,
    ) -> Option<Result<(), Refusal>> {
        let subject = Subject::Subscribe { channel, data: None };
        let Some(decided) = env.common.decided_elsewhere(0, self.asked(None), subject) else {
            return Some(Ok(()));
        };
        if let Err(refusal) = &decided
            && let Some(number) = refusal.decision_number()
        {
            self.await_decision(number, About::event(event), Vec::new(), env);
            return None;
        }
        Some(decided.map(|_| ()))
    }

    /// Handles a call or a one-way event as a hook has decided, or keeps it until the decision comes.
    #[cold]
    pub(super) fn follow_hook<A: App>(
        &mut self,
        decided: Result<AllowedPublish, Refusal>,
        event: &Event<'_>,
        call: Call<'_>,
        expired: Option<f64>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let cid = event.cid.map(Number::text);
        let allowed = match decided {
            Ok(allowed) => allowed,
            Err(refusal) => {
                if let Some(number) = refusal.decision_number() {
                    self.await_decision(number, About::event(event), Vec::new(), env);
                    return Ok(());
                }
                self.settle(env)?;
                refuse(cid, &refusal, Refused::Invoke, decisions);
                return self.carry_out_orders(None, env, decisions);
            }
        };
        let data;
        let mut call = call;
        match allowed.kind(&env.common.scratch.app) {
            AllowedPublishKind::AsSent => {}
            AllowedPublishKind::Rewritten(piece) => {
                data = piece.map(|piece| env.common.scratch.app.piece(piece).to_owned());
                call.data = data.as_deref().map(RawJson::new);
            }
            AllowedPublishKind::Answered(kind) => {
                self.settle(env)?;
                let answer = cid.as_ref().map(|cid| (cid, kind));
                return self.carry_out_orders(answer, env, decisions);
            }
        }
        // The call is made as the user that the hook has assigned to the client.
        self.settle(env)?;
        self.hand_on(&call, cid.as_ref(), expired, env, decisions)
    }
}
