//! A question to a hook: the facts about a packet, taken from the session, and the JSON for the target.
//!
//! `docs/hooks.md` has the schema of the JSON.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::app::{Client, CloseReason, Peer, RawJson, UpgradeRequest};
use crate::config::hooks::{HookAction, HookSpec};

/// An action of a client, as the session knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// To complete its handshake.
    Connect(Option<MqttConnect<'a>>),
    /// To be the user that the claims name.
    Authenticate,
    /// To subscribe to a channel.
    Subscribe {
        channel: &'a [u8],
        data: Option<&'a str>,
    },
    /// To subscribe to all topics that a filter of MQTT matches.
    SubscribeFilter { filter: &'a str },
    /// To publish JSON.
    Publish {
        channel: &'a [u8],
        data: Option<&'a str>,
    },
    /// To publish a payload of MQTT.
    PublishBytes { topic: &'a [u8], payload: &'a [u8] },
    /// To call a procedure.
    Invoke {
        procedure: &'a [u8],
        data: Option<&'a str>,
    },
    /// To send a one-way event.
    Transmit { event: &'a [u8], data: Option<&'a str> },
    /// None any more: the client has disconnected.
    Disconnect,
}

/// The data of a CONNECT about its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MqttConnect<'a> {
    /// Empty if the server is to choose one.
    pub(crate) client_id: &'a str,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
}

impl<'a> Subject<'a> {
    pub(crate) fn action(&self) -> HookAction {
        match self {
            Subject::Connect(_) => HookAction::Connect,
            Subject::Authenticate => HookAction::Authenticate,
            Subject::Subscribe { .. } | Subject::SubscribeFilter { .. } => HookAction::Subscribe,
            Subject::Publish { .. } | Subject::PublishBytes { .. } => HookAction::Publish,
            Subject::Invoke { .. } => HookAction::Invoke,
            Subject::Transmit { .. } => HookAction::Transmit,
            Subject::Disconnect => HookAction::Disconnect,
        }
    }

    /// The name of the channel or the procedure; empty if the action is about neither.
    pub(super) fn name(&self) -> &'a [u8] {
        match *self {
            Subject::Connect(_) | Subject::Authenticate | Subject::Disconnect => b"",
            Subject::SubscribeFilter { filter } => filter.as_bytes(),
            Subject::Subscribe { channel, .. } | Subject::Publish { channel, .. } => channel,
            Subject::PublishBytes { topic, .. } => topic,
            Subject::Invoke { procedure, .. } => procedure,
            Subject::Transmit { event, .. } => event,
        }
    }

    fn data(&self) -> Data {
        match *self {
            Subject::Connect(_)
            | Subject::Authenticate
            | Subject::SubscribeFilter { .. }
            | Subject::Disconnect => Data::None,
            Subject::Subscribe { data, .. }
            | Subject::Publish { data, .. }
            | Subject::Invoke { data, .. }
            | Subject::Transmit { data, .. } => data.map_or(Data::None, |json| Data::Json(json.to_owned())),
            Subject::PublishBytes { payload, .. } => match RawJson::in_payload(payload) {
                Some(json) => Data::Json(json.as_str().to_owned()),
                None => Data::Bytes(payload.to_vec()),
            },
        }
    }

    /// The bytes that a question about it holds, beside the claims of the client.
    pub(super) fn bytes(&self, spec: &HookSpec) -> usize {
        let data = if spec.data { self.data_len() } else { 0 };
        self.name().len() + data
    }

    fn data_len(&self) -> usize {
        match self {
            Subject::Connect(Some(mqtt)) => {
                mqtt.client_id.len()
                    + mqtt.user_name.map_or(0, str::len)
                    + mqtt.password.map_or(0, <[u8]>::len)
            }
            Subject::Connect(None)
            | Subject::Authenticate
            | Subject::SubscribeFilter { .. }
            | Subject::Disconnect => 0,
            Subject::Subscribe { data, .. }
            | Subject::Publish { data, .. }
            | Subject::Invoke { data, .. }
            | Subject::Transmit { data, .. } => data.map_or(0, str::len),
            Subject::PublishBytes { payload, .. } => payload.len(),
        }
    }
}

/// A question: it travels to the thread that asks.
pub(super) struct Question {
    action: HookAction,
    name: Box<[u8]>,
    data: Data,
    client: Box<str>,
    claims: Option<Box<str>>,
    token_expired: Option<f64>,
    request: Option<Arc<UpgradeRequest>>,
    mqtt: Option<Login>,
    ended: Option<CloseReason>,
}

/// The parts of a client's request that are passed on.
pub(super) struct ForwardedRequest<'a> {
    pub(super) headers: Vec<(String, String)>,
    pub(super) cookies: Vec<(String, String)>,
    pub(super) query: Option<&'a str>,
}

/// The data of a CONNECT.
struct Login {
    client_id: Box<str>,
    user_name: Option<Box<str>>,
    password: Option<Zeroizing<Vec<u8>>>,
}

enum Data {
    None,
    Json(String),
    /// A payload of MQTT that is no JSON.
    Bytes(Vec<u8>),
}

impl Question {
    /// The action of a client.
    pub(super) fn of(subject: &Subject<'_>, peer: &Peer<'_>, spec: &HookSpec) -> Question {
        Question {
            data: if spec.data { subject.data() } else { Data::None },
            token_expired: peer.token_expired(),
            request: peer.passed_on().cloned(),
            ..Question::about(
                subject,
                &peer.id().to_string(),
                peer.claims().map(|claims| claims.json()),
            )
        }
    }

    /// A client has disconnected.
    pub(super) fn of_disconnect(reason: CloseReason, client: &Client<'_>) -> Question {
        let claims = client.claims().map(|claims| claims.json());
        Question {
            request: client.passed_on().cloned(),
            ended: Some(reason),
            ..Question::about(&Subject::Disconnect, &client.id().to_string(), claims)
        }
    }

    fn about(subject: &Subject<'_>, client: &str, claims: Option<&str>) -> Question {
        let mqtt = match subject {
            Subject::Connect(mqtt) => *mqtt,
            Subject::Authenticate
            | Subject::Subscribe { .. }
            | Subject::SubscribeFilter { .. }
            | Subject::Publish { .. }
            | Subject::PublishBytes { .. }
            | Subject::Invoke { .. }
            | Subject::Transmit { .. }
            | Subject::Disconnect => None,
        };
        Question {
            action: subject.action(),
            name: subject.name().into(),
            data: Data::None,
            client: client.into(),
            claims: claims.map(Box::from),
            token_expired: None,
            request: None,
            mqtt: mqtt.map(|mqtt| Login {
                client_id: mqtt.client_id.into(),
                user_name: mqtt.user_name.map(Box::from),
                password: mqtt.password.map(|password| Zeroizing::new(password.to_vec())),
            }),
            ended: None,
        }
    }

    pub(super) fn action(&self) -> HookAction {
        self.action
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client
    }

    pub(super) fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }

    /// The client id, the user name and the password of a CONNECT.
    pub(super) fn mqtt_login(&self) -> [&[u8]; 3] {
        match &self.mqtt {
            None => [b""; 3],
            Some(mqtt) => [
                mqtt.client_id.as_bytes(),
                mqtt.user_name.as_deref().unwrap_or_default().as_bytes(),
                mqtt.password.as_deref().map_or(b"", Vec::as_slice),
            ],
        }
    }

    pub(super) fn data_bytes(&self) -> &[u8] {
        match &self.data {
            Data::None => b"",
            Data::Json(json) => json.as_bytes(),
            Data::Bytes(bytes) => bytes,
        }
    }

    /// The parts of the client's request that this hook passes on.
    pub(super) fn passed(&self, spec: &HookSpec) -> ForwardedRequest<'_> {
        let request = self.request.as_deref();
        let mut passed = ForwardedRequest {
            headers: Vec::new(),
            cookies: Vec::new(),
            query: request.filter(|_| spec.query).map(UpgradeRequest::query),
        };
        for (name, value) in request.into_iter().flat_map(UpgradeRequest::headers) {
            let value = String::from_utf8_lossy(value);
            if name == COOKIE {
                let pair = value.split_once('=');
                let wanted = pair.filter(|(name, _)| spec.cookies.iter().any(|cookie| cookie == name));
                let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
                passed.cookies.extend(wanted);
            } else if spec.headers.iter().any(|header| header == name) {
                passed.headers.push((name.to_owned(), value.into_owned()));
            }
        }
        passed
    }

    /// The JSON for a target.
    pub(super) fn json(&self, id: &str, spec: &HookSpec, passed: &ForwardedRequest<'_>) -> Vec<u8> {
        let document = Document {
            id,
            hook: &spec.name,
            question: self,
            spec,
            passed,
        };
        let mut json = Vec::with_capacity(512 + self.data_bytes().len() * 2);
        serde_json::to_writer(&mut json, &document).expect("all of it has a JSON form, and a Vec takes it");
        json
    }
}

struct Document<'a> {
    id: &'a str,
    hook: &'a str,
    question: &'a Question,
    spec: &'a HookSpec,
    passed: &'a ForwardedRequest<'a>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let question = self.question;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("hook", self.hook)?;
        map.serialize_entry("action", question.action.label())?;
        let name = || String::from_utf8_lossy(&question.name);
        if question.action.is_on_channel() {
            map.serialize_entry("channel", &name())?;
        } else if question.action.is_on_procedure() {
            map.serialize_entry("procedure", &name())?;
        }
        if self.spec.data {
            match &question.data {
                Data::None => {}
                Data::Json(json) => match serde_json::from_str::<&RawValue>(json) {
                    Ok(json) => map.serialize_entry("data", json)?,
                    // Deeper than a parser goes, or half of a surrogate pair.
                    Err(_) => map.serialize_entry("text", json)?,
                },
                Data::Bytes(bytes) => map.serialize_entry("payload", &STANDARD.encode(bytes))?,
            }
        }
        map.serialize_entry("client", &ClientDocument(self))?;
        if let Some(reason) = question.ended {
            map.serialize_entry("reason", reason.label())?;
        }
        map.end()
    }
}

struct ClientDocument<'a>(&'a Document<'a>);

impl Serialize for ClientDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Document {
            question,
            spec,
            passed,
            ..
        } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &question.client)?;
        let claims = question.claims.as_deref();
        map.serialize_entry(
            "claims",
            &claims.and_then(|json| serde_json::from_str::<&RawValue>(json).ok()),
        )?;
        if let Some(expired) = question.token_expired {
            map.serialize_entry("token_expired", &expired)?;
        }
        if let Some(mqtt) = &question.mqtt {
            map.serialize_entry("mqtt_client_id", &mqtt.client_id)?;
            map.serialize_entry("mqtt_user_name", &mqtt.user_name)?;
            if spec.mqtt_password {
                let password = mqtt
                    .password
                    .as_ref()
                    .map(|password| String::from_utf8_lossy(password));
                map.serialize_entry("mqtt_password", &password)?;
            }
        }
        if let Some(request) = &question.request {
            map.serialize_entry("address", &request.address().map(|address| address.ip()))?;
            map.serialize_entry("path", request.path())?;
        }
        if !spec.headers.is_empty() {
            map.serialize_entry("headers", &Pairs(&passed.headers))?;
        }
        if !spec.cookies.is_empty() {
            map.serialize_entry("cookies", &Pairs(&passed.cookies))?;
        }
        if let Some(query) = passed.query {
            map.serialize_entry("query", query)?;
        }
        map.end()
    }
}

/// An object with the first value of each name.
struct Pairs<'a>(&'a [(String, String)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            if self.0[..index].iter().all(|(other, _)| other != name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// The name under which a request that is passed on has each cookie: `cookie: NAME=VALUE`.
pub(super) const COOKIE: &str = "cookie";
