//! CONNECT, up to the answer: section 3.1.
//!
//! The order of the checks: the packet, what this server supports, the client id, the identity of the client, the
//! application, the will, and then the session. A refused client gets CONNACK with a code, and the connection ends.

use super::connack::{Accepted, ConnAck};
use super::identity::{Identity, token_of};
use super::{Accepting, Denied, Open, Refused, Session, State, refused};
use crate::app::App;
use crate::auth::Claims;
use crate::clock::Uptime;
use crate::decision::{CloseReason, Decision, Decisions, Limit, Span};
use crate::hooks::{MqttConnect, Subject};
use crate::mqtt::environment::Environment;
use crate::mqtt::fault::Fault;
use crate::mqtt::packet::first_byte::CONNECT;
use crate::mqtt::packet::{self, Connect, decode_connect};
use crate::mqtt::properties::Property;
use crate::mqtt::sessions::{self, ConnectRefused};
use crate::mqtt::settings::MqttSettings;
use crate::mqtt::{ReasonCode, Version};
use crate::session::LoginAnswer;

/// A CONNECT whose password is being checked, or about which the application decides later.
pub(super) struct PendingConnect {
    /// The bytes behind the fixed header, with zeros in the place of the password.
    body: Box<[u8]>,
    /// The claims that the answers so far have given the client. They decide about its will.
    settled: Option<Box<Claims>>,
}

impl PendingConnect {
    /// How many bytes it keeps.
    pub(super) fn bytes(&self) -> usize {
        let claims = self.settled.as_deref().map_or(0, |claims| claims.json().len());
        self.body.len() + claims
    }
}

impl std::fmt::Debug for PendingConnect {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The packet is the client's.
        formatter.debug_struct("PendingConnect").finish_non_exhaustive()
    }
}

const BUSY: Refused = Refused {
    code: ReasonCode::ServerBusy,
    text: "too many logins wait to be checked: try again in a moment",
};

impl Session {
    /// Handles the first packet.
    pub(super) fn connect<A: App>(
        &mut self,
        first: u8,
        body: &[u8],
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if first >> 4 != CONNECT >> 4 {
            return Err(CloseReason::NotMqtt);
        }
        let connect = match decode_connect(first, body) {
            Ok(connect) => connect,
            Err(refused) => return refuse_unreadable(refused, body, decisions),
        };
        if connect.password.is_some() {
            // Whatever the outcome, these bytes hold a password.
            env.common.scratch.note_credentials();
        }
        let identity = check_user_properties(&connect, env)
            .and_then(|()| check_support(&connect))
            .and_then(|()| self.identify(&connect, env));
        match identity {
            Ok(Identity::Known(claims)) => self.admit(
                &connect,
                body,
                (Some(claims.clone()), Some(claims)),
                env,
                decisions,
            ),
            Ok(Identity::Anonymous) => self.admit(&connect, body, (None, None), env, decisions),
            Ok(Identity::ToBeChecked(credentials)) => {
                self.state = State::LoggingIn(PendingConnect {
                    body: without_password(body, connect.password),
                    settled: None,
                });
                decisions.push_login(credentials);
                Ok(())
            }
            Err(refusal) => refuse(&connect, refusal, env.settings, decisions),
        }
    }

    /// The password has been checked, or could not be.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub fn login_answered<A: App>(
        &mut self,
        answer: LoginAnswer,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let since = env.common.now.uptime;
        let pending = match std::mem::replace(&mut self.state, State::AwaitingConnect { since }) {
            State::LoggingIn(pending) => pending,
            other => {
                self.state = other;
                return Ok(());
            }
        };
        self.heard = since;
        let connect = decode_connect(CONNECT, &pending.body).map_err(|_| CloseReason::MalformedMqtt)?;
        let claims = match answer {
            LoginAnswer::Accepted(issued) => Ok(issued.claims),
            LoginAnswer::Refused => refused(
                ReasonCode::BadUserNameOrPassword,
                "the user name or the password is wrong",
            ),
            LoginAnswer::TooSoon { .. } => refused(
                ReasonCode::BadUserNameOrPassword,
                "too many logins have failed: this one was not checked, try again later",
            ),
            LoginAnswer::Busy => Err(BUSY),
            LoginAnswer::Unsigned => return Err(CloseReason::SigningFailed),
        };
        match claims {
            Ok(claims) => {
                let claims = Some(Box::new(claims));
                self.admit(&connect, &pending.body, (claims.clone(), claims), env, decisions)
            }
            Err(refusal) => refuse(&connect, refusal, env.settings, decisions),
        }
    }

    /// The password checks have no room. Returns the answer; the connection ends with it.
    pub fn login_not_taken(&mut self, settings: &MqttSettings, decisions: &mut Decisions) -> Option<Span> {
        let State::LoggingIn(pending) = std::mem::replace(&mut self.state, State::Ended) else {
            return None;
        };
        let connect = decode_connect(CONNECT, &pending.body).ok()?;
        let answer = ConnAck::of(&connect);
        let reference = settings.server_reference.as_deref();
        Some(decisions.write(|out| answer.write_refusal(BUSY.code, BUSY.text, reference, out)))
    }

    /// The client's identity is known: asks the application, and gives the client its session. `body` is that
    /// of its CONNECT. The first claims are those that the question to the application names; the second are
    /// those that the answers so far have given the client.
    fn admit<A: App>(
        &mut self,
        connect: &Connect<'_>,
        body: &[u8],
        (claims, settled): (Option<Box<Claims>>, Option<Box<Claims>>),
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.claims = claims;
        let (before, asked) = match self.ask_application(connect, env) {
            Ok(questions) => {
                // The will belongs to the user that the application or a hook has assigned to the client.
                let before = std::mem::replace(&mut self.claims, settled);
                self.settle(env)?;
                (before, self.will_of(connect, questions, env))
            }
            Err(denied) => (self.claims.clone(), Err(denied)),
        };
        let asked = match asked {
            Ok(will) => Ok(will),
            Err(Denied::Refused(refusal)) => Err(for_connack(refusal)),
            Err(Denied::Deferred { number, question }) => {
                let pending = PendingConnect {
                    body: without_password(body, connect.password),
                    settled: std::mem::replace(&mut self.claims, before),
                };
                let decided = (0..question).map(|_| Ok(())).collect();
                let undecided = Session::undecided(number, decided, env);
                self.state = State::Deciding(pending, Box::new(undecided));
                return Ok(());
            }
        };
        self.settle(env)?;
        let asked = asked.and_then(|will| {
            if env.common.settings.allow_anonymous || self.claims.is_some() {
                return Ok(will);
            }
            // The hook that was asked about the client has given it no claims.
            let scratch = &mut *env.common.scratch;
            scratch.count_anonymous_refused("connect", connect.client_id);
            refused(ReasonCode::NotAuthorized, "only authenticated clients are served")
        });
        let will = match asked {
            Ok(will) => will,
            Err(refusal) => return refuse(connect, refusal, env.settings, decisions),
        };
        let assigned = connect.client_id.is_empty().then(|| new_client_id(self, env));
        let expiry = session_expiry(connect, env.settings);
        let user = self.claims.as_deref().and_then(Claims::user);
        let properties = &connect.properties;
        let packet_bytes_max = properties.number(Property::MaximumPacketSize).unwrap_or(u32::MAX);
        let receive_maximum = properties.number_16(Property::ReceiveMaximum).unwrap_or(u16::MAX);
        let asked = sessions::Connect {
            client_id: assigned.as_deref().unwrap_or(connect.client_id),
            user: user.as_deref(),
            version: connect.version,
            address: env.common.address,
            clean_start: connect.clean,
            expiry_s: expiry.granted_s,
            receive_maximum,
            packet_bytes_max,
            topic_alias_maximum: properties.number_16(Property::TopicAliasMaximum).unwrap_or(0),
            will,
        };
        let connected = match env.sessions.connect(asked, env.common.now) {
            Ok(connected) => connected,
            Err(why) => {
                match why {
                    ConnectRefused::WillsFull => env.common.scratch.hit(Limit::WillsBytes),
                    ConnectRefused::SessionsFull => env.common.scratch.hit(Limit::MqttSessions),
                    ConnectRefused::OtherUser | ConnectRefused::Elsewhere => {}
                }
                return refuse(connect, no_session(why), env.settings, decisions);
            }
        };
        let keep_alive = keep_alive(connect, env.settings);
        let mut open = Open {
            session: connected.session,
            version: connect.version,
            explains: properties.number(Property::RequestProblemInformation) != Some(0),
            outlives: expiry.asked_s > 0,
            packet_bytes_max,
            receive_maximum,
            silence_ms_max: u32::from(keep_alive.used_s) * 1500,
            in_flight: 0,
            extras: None,
        };
        open.set_expires(self.expiry_of_claims(env.common.now));
        if let Some(connection) = connected.displaced {
            decisions.push(Decision::EndOther {
                connection,
                reason: CloseReason::TakenOver,
            });
        }
        let accepted = Accepted {
            is_present: connected.is_present,
            assigned_client_id: assigned.map(String::into_boxed_str),
            session_expiry_s: (expiry.granted_s != expiry.asked_s).then_some(expiry.granted_s),
            keep_alive_s: keep_alive.announced_s,
        };
        if connected.awaits_disk {
            let orders = env.common.scratch.app.keep_orders();
            self.state = State::Saving(Box::new(Accepting::new(open, accepted, orders, env.common.now)));
            decisions.push(Decision::SaveSession);
            return Ok(());
        }
        self.accept(open, &accepted, env, decisions)
    }

    /// The application has decided about a CONNECT that waited for it.
    pub(super) fn admit_again<A: App>(
        &mut self,
        pending: &PendingConnect,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let connect = decode_connect(CONNECT, &pending.body).map_err(|_| CloseReason::MalformedMqtt)?;
        let claims = (self.claims.take(), pending.settled.clone());
        self.admit(&connect, &pending.body, claims, env, decisions)
    }

    /// Asks the application whether the client may connect. Returns the number of questions so far.
    fn ask_application<A: App>(
        &self,
        connect: &Connect<'_>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<usize, Denied> {
        self.begin(env);
        let client = self.asked();
        // Only the server checks the token; neither the application nor a hook gets it.
        let token = token_of(connect, env.settings.token_in).map(str::as_bytes);
        let subject = Subject::Connect(Some(MqttConnect {
            client_id: connect.client_id,
            user_name: connect.user_name.filter(|name| token != Some(name.as_bytes())),
            password: connect.password.filter(|password| token != Some(*password)),
        }));
        let asked = env
            .common
            .ask(0, client, subject, |app, peer| app.handshake(peer), |_| ());
        if let Err(refusal) = asked {
            let text = "the application refuses the connection";
            return Err(Denied::by_application(
                &refusal,
                0,
                ReasonCode::NotAuthorized,
                text,
            ));
        }
        let Some(claims) = client.claims else {
            return Ok(1);
        };
        let asked = env.common.ask(
            1,
            client,
            Subject::Authenticate,
            |app, peer| app.authenticate(claims, peer),
            |_| (),
        );
        let Err(refusal) = asked else {
            return Ok(2);
        };
        let text = "the application refuses the user";
        let denied = Denied::by_application(&refusal, 1, ReasonCode::NotAuthorized, text);
        if let Denied::Refused(_) = denied {
            env.common.scratch.count_token_refused("application", "connect");
        }
        Err(denied)
    }
}

/// Refuses a CONNECT that cannot be read. Clients of 3.1 and 3.1.1 are told only that their version is not supported
/// (MQTT-3.1.2-2 and section 3.2.2.3 there).
fn refuse_unreadable(
    refused: packet::Refused,
    body: &[u8],
    decisions: &mut Decisions,
) -> Result<(), CloseReason> {
    let version = match (refused.version, refused.fault) {
        (Some(version), _) if version.has_properties() => version,
        // The answers of later versions will look like those of MQTT 5. The highest bit is that of bridges.
        (_, Fault::UnsupportedVersion) if matches!(level_of(body), Some(6..=0x7f)) => Version::V5,
        (_, Fault::UnsupportedVersion) => Version::V4,
        // The server may close the connection without an answer (MQTT-3.1.2-1), and the client may speak any
        // protocol.
        (_, Fault::OtherProtocol) => return Err(CloseReason::NotMqtt),
        (_, Fault::Protocol) => return Err(CloseReason::MqttProtocolError),
        (_, Fault::Malformed | Fault::TopicAlias | Fault::TooLarge) => {
            return Err(CloseReason::MalformedMqtt);
        }
    };
    let answer = ConnAck {
        version,
        packet_bytes_max: u32::MAX,
    };
    answer.refuse(
        refused.fault.reason(),
        "CONNECT is not as MQTT says",
        None,
        decisions,
    );
    Err(CloseReason::MqttRefused)
}

/// The level of the protocol, behind its name.
fn level_of(body: &[u8]) -> Option<u8> {
    let (length, rest) = body.split_first_chunk()?;
    rest.get(usize::from(u16::from_be_bytes(*length))).copied()
}

/// The refusal with the code for CONNACK: the application may answer the next attempt in time.
fn for_connack(refusal: Refused) -> Refused {
    match refusal.code {
        ReasonCode::Unspecified => Refused {
            code: ReasonCode::ServerUnavailable,
            ..refusal
        },
        _ => refusal,
    }
}

fn refuse(
    connect: &Connect<'_>,
    refusal: Refused,
    settings: &MqttSettings,
    decisions: &mut Decisions,
) -> Result<(), CloseReason> {
    let answer = ConnAck::of(connect);
    let reference = settings.server_reference.as_deref();
    answer.refuse(refusal.code, refusal.text, reference, decisions);
    Err(CloseReason::MqttRefused)
}

/// User properties cost memory and time of other clients: each subscriber is sent those of a will.
fn check_user_properties<A: App>(
    connect: &Connect<'_>,
    env: &mut Environment<'_, '_, A>,
) -> Result<(), Refused> {
    let of_will = connect.will.map_or(0, |will| will.properties.user_count());
    if connect.properties.user_count().max(of_will) <= env.settings.user_properties_max {
        return Ok(());
    }
    env.common.scratch.hit(Limit::MqttUserProperties);
    refused(
        ReasonCode::QuotaExceeded,
        "CONNECT or its will has more User Properties than the server allows",
    )
}

/// Refuses features that this server does not support, and client ids that it does not take.
fn check_support(connect: &Connect<'_>) -> Result<(), Refused> {
    if connect.properties.has(Property::AuthenticationMethod) {
        return refused(
            ReasonCode::BadAuthenticationMethod,
            "this server has no enhanced authentication: use a user name and a password, or a token",
        );
    }
    // MQTT-3.1.3-8 of 3.1.1; in 3.1 a client id has one character at least.
    let needs_id = match connect.version {
        Version::V3 => true,
        Version::V4 => !connect.clean,
        Version::V5 => false,
    };
    if needs_id && connect.client_id.is_empty() {
        return refused(
            ReasonCode::ClientIdNotValid,
            "a session without Clean Session needs a client id",
        );
    }
    Ok(())
}

fn no_session(why: ConnectRefused) -> Refused {
    let (code, text) = match why {
        ConnectRefused::OtherUser => (
            ReasonCode::NotAuthorized,
            "the session with this client id belongs to another user",
        ),
        ConnectRefused::SessionsFull => (
            ReasonCode::QuotaExceeded,
            "the server has as many sessions as it may",
        ),
        ConnectRefused::WillsFull => (
            ReasonCode::QuotaExceeded,
            "the server has no room for another will",
        ),
        ConnectRefused::Elsewhere => (
            ReasonCode::ServerUnavailable,
            "another process has the sessions now; connect again",
        ),
    };
    Refused { code, text }
}

/// A client id that no client has, and that this core owns.
fn new_client_id<A: App>(session: &Session, env: &Environment<'_, '_, A>) -> String {
    let candidates = (0_u64..).map(|number| match number {
        0 => format!("rc-{}", session.id),
        number => format!("rc-{}-{number}", session.id),
    });
    let mut owned = candidates.filter(|id| env.sessions.owns(id));
    owned.next().expect("one core in a few owns each id")
}

/// For how long a session outlives its connection, in seconds; `u32::MAX` is for ever.
struct SessionExpiry {
    /// The time that CONNECT asks for.
    asked_s: u32,
    /// The time that the session gets.
    granted_s: u32,
}

fn session_expiry(connect: &Connect<'_>, settings: &MqttSettings) -> SessionExpiry {
    let asked_s = match connect.version {
        Version::V5 => connect
            .properties
            .number(Property::SessionExpiryInterval)
            .unwrap_or(0),
        // Clean Session concerns both ends of the session.
        Version::V3 | Version::V4 if connect.clean => 0,
        Version::V3 | Version::V4 => u32::MAX,
    };
    SessionExpiry {
        asked_s,
        granted_s: asked_s.min(settings.session_expiry_s_max),
    }
}

/// The keep alive, in seconds; 0 is none.
struct KeepAlive {
    /// The value that the server uses.
    used_s: u16,
    /// The value in CONNACK, if it is not the one that the client has asked for (MQTT-3.1.2-21).
    announced_s: Option<u16>,
}

fn keep_alive(connect: &Connect<'_>, settings: &MqttSettings) -> KeepAlive {
    let asked_s = connect.keep_alive;
    let is_allowed = settings.keep_alive_s_max == 0 || (1..=settings.keep_alive_s_max).contains(&asked_s);
    KeepAlive {
        used_s: if is_allowed {
            asked_s
        } else {
            settings.keep_alive_s_max
        },
        announced_s: (!is_allowed).then_some(settings.keep_alive_s_max),
    }
}

/// A copy of a CONNECT without its password, which is the last field.
fn without_password(body: &[u8], password: Option<&[u8]>) -> Box<[u8]> {
    let password_bytes = password.map_or(0, <[u8]>::len);
    let mut copy = Vec::with_capacity(body.len());
    copy.extend_from_slice(&body[..body.len() - password_bytes]);
    copy.resize(body.len(), 0);
    copy.into()
}

impl Session {
    /// When the connection has to end, since the client's token expires.
    fn expiry_of_claims(&self, now: crate::clock::Now) -> Uptime {
        let seconds = self.claims.as_deref().and_then(Claims::expires_with_leeway_at);
        seconds.map_or(Uptime::NEVER, |seconds| super::timers::uptime_of(seconds, now))
    }
}
