//! Tests of the session of one MQTT client, from the specification. Each file is about one subject.

mod acknowledge;
mod client;
mod connect;
mod hooks;
mod identity;
mod leave;
mod publish;
mod rules;
mod subscribe;
mod will;
