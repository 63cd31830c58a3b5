//! **Not a part of the API.** The modules of the server, for the tests, benches and fuzz targets of this repository and
//! for its binary. Anything here may change or go in any version, without notice. What a program may use is in the
//! other modules of the crate.

/// Opens modules of the crate.
macro_rules! open {
    ($($module:ident),* $(,)?) => {$(
        pub mod $module {
            pub use crate::$module::*;
        }
    )*};
}

open!(
    audit,
    auth,
    broker,
    cli,
    client,
    clock,
    control,
    cores,
    decision,
    history,
    http,
    json,
    log,
    login,
    metrics,
    mqtt,
    policy,
    presence,
    protocols,
    retained,
    services,
    session,
    socketcluster,
    text,
    webhooks,
    websocket,
    wills,
);

/// Parts of `app` that programs which embed the server do not see.
pub mod app {
    /// The application of the `ringcast` binary.
    pub mod builtin {
        pub use crate::app::builtin::*;
    }
}

/// How settings are read and described.
pub mod config {
    /// The table of settings.
    pub mod settings {
        pub use crate::config::settings::*;
    }
}
