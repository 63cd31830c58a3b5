//! New connections: from the listener or another core to the WebSocket upgrade, and the limits that refuse them.

pub(crate) mod accept;
pub(crate) mod acceptor;
pub(crate) mod admission;
pub(crate) mod balance;
pub(crate) mod forwarded_request;
pub(crate) mod listeners;
pub(crate) mod login;
pub(crate) mod login_answers;
pub(crate) mod moving;
pub(crate) mod mqtt;
pub(crate) mod pace;
pub(crate) mod proxy_header;
pub(crate) mod rejected;
pub(crate) mod requests;
pub(crate) mod tls;
pub(crate) mod upgrade;
