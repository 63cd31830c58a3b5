//! An application that uses everything that the server offers to applications, for [`super::connection`].

use ringcast::app::Claims;
use ringcast::app::Client;
use ringcast::app::{
    AllowedPublish, AnswerError, App, AppError, Call, CallAnswer, CallId, Name, Peer, RawJson, Refusal,
};
use ringcast::app::{CloseCode, CloseReason};
use serde_json::value::RawValue;

/// The channel to which the application publishes.
pub const APP_CHANNEL: &str = "of the application";

/// The application; the name of an event selects an operation.
pub struct Probe {
    /// Whether it authenticates every client that asks.
    pub gives_tokens: bool,
    /// Whether it has seen the beginning of a client, and not its end.
    pub is_connected: bool,
}

impl Probe {
    fn act(&self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let data: Option<Box<RawValue>> = call.data.and_then(|data| data.parse(peer).ok());
        let is_token = matches!(call.event.as_str(), Some("token" | "confirm"));
        if is_token && !self.gives_tokens {
            return peer.block();
        }
        match call.event.as_str() {
            Some("echo") => peer.reply(&data),
            Some("empty") => peer.reply_empty(),
            Some("refuse") => {
                let error = AppError::new(call.data.map_or("no", RawJson::as_str));
                peer.refuse(&error.named("Refused").with("data", 1))
            }
            Some("block") => peer.block(),
            Some("several") => {
                peer.batch();
                peer.transmit("one", &data);
                peer.transmit_empty("two");
                peer.reply_empty()
            }
            Some("ask") => {
                let asked = peer.invoke("ask", &data).is_ok();
                peer.reply(&asked)
            }
            Some("publish") => {
                peer.publish(APP_CHANNEL, &data);
                peer.reply_empty()
            }
            Some("token") => {
                peer.set_auth_token(&data, Some(20));
                peer.reply_empty()
            }
            Some("confirm") => {
                let asked = peer.set_auth_token_confirmed(&data, None).is_ok();
                peer.reply(&asked)
            }
            Some("forget") => {
                peer.deauthenticate();
                let _ = peer.deauthenticate_confirmed();
                peer.reply_empty()
            }
            Some("kick") => {
                peer.kick_out(call.data.map(RawJson::as_str), Some("out"));
                peer.kick_out(None, None);
                peer.reply_empty()
            }
            Some("bye") => {
                peer.disconnect(
                    CloseCode::new(4321).expect("a code"),
                    call.data.map_or("", RawJson::as_str),
                );
                peer.reply_empty()
            }
            Some("later") => peer.defer().0,
            _ => CallAnswer::silent(),
        }
    }
}

impl App for Probe {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        match peer
            .claims()
            .is_some_and(|claims| claims.json().contains("\"unwanted\""))
        {
            true => Err(Refusal::silent()),
            false => Ok(()),
        }
    }

    fn authenticate(&mut self, claims: &Claims, _peer: &mut Peer<'_>) -> Result<(), Refusal> {
        match claims.json().contains("\"bad\"") {
            true => Err(AppError::new("bad").bad_token().into()),
            false => Ok(()),
        }
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _: Option<RawJson<'_>>,
        _: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        match channel.as_str() {
            Some("no") => Err(AppError::new("no").into()),
            _ => Ok(()),
        }
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        match channel.as_str() {
            Some("no") => Err(Refusal::silent()),
            Some("open/other") => Ok(peer.rewrite(&data.map(RawJson::as_str))),
            _ => Ok(AllowedPublish::as_sent()),
        }
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        assert!(self.is_connected, "only who is connected calls");
        self.act(call, peer)
    }

    fn transmit(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) {
        assert!(self.is_connected, "only who is connected transmits");
        let _ = self.act(call, peer);
    }

    fn answered(
        &mut self,
        _: CallId,
        answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        peer: &mut Peer<'_>,
    ) {
        if let Ok(Some(data)) = answer {
            peer.transmit("answered", data.as_str());
        }
    }

    fn connected(&mut self, _: &mut Peer<'_>) {
        assert!(!std::mem::replace(&mut self.is_connected, true), "connected once");
    }

    fn disconnected(&mut self, _: &mut Client<'_>, _: CloseReason) {
        assert!(
            std::mem::replace(&mut self.is_connected, false),
            "disconnected once"
        );
    }
}
