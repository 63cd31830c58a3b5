//! Tests of the session of one MQTT client, from the specification. Each file is about one subject.

mod acknowledge;
mod client;
mod connect;
mod disconnect;
mod hooks;
mod identity;
mod publish;
mod rules;
mod subscribe;
mod will;
