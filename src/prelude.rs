//! The names that nearly every embedding program uses: `use ringcast::prelude::*;`.

pub use crate::app::{
    AllowedPublish, App, AppError, Call, CallAnswer, Claims, CloseReason, Deferred, Name, Peer, RawJson,
    Refusal, SessionId,
};
pub use crate::config::{Config, ConfigSources};
pub use crate::server::{Descriptors, Embedding, Exit, Handle, LogTo, Server, SignalHandling};
