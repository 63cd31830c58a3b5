//! The fuzz targets: one function for each parser of untrusted bytes.
//!
//! A target takes bytes, and panics if the result of the parser differs from the result of another implementation, or
//! of a simpler one here, or breaks a property that holds for every input. `fuzz_targets` gives them to libFuzzer;
//! `tests/codec_properties.rs` includes this folder as a module, replays the corpus, and tests properties with the same
//! functions, so that neither needs the other.

pub mod connection;
pub mod credentials;
pub mod deflate;
pub mod envelope;
pub mod frames;
pub mod http;
pub mod json_model;
pub mod mqtt;
pub mod probe;
pub mod proxy;
pub mod rules;
pub mod text_files;
pub mod tokens;

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by the names of their binaries and of their folders in `corpus`.
pub const TARGETS: [(&str, Target); 19] = [
    ("configuration", text_files::configuration),
    ("connection", connection::connection),
    ("cookie", http::cookie),
    ("credentials", credentials::credentials),
    ("deflate", deflate::deflate),
    ("envelope", envelope::envelope),
    ("forwarded", proxy::forwarded),
    ("frame", frames::frame),
    ("http_head", http::head),
    ("json", envelope::json),
    ("jwks", tokens::jwks),
    ("jwt", tokens::jwt),
    ("message", frames::message),
    ("mqtt", mqtt::packets),
    ("packet", envelope::packet),
    ("password_file", text_files::password_file),
    ("proxy_header", proxy::header),
    ("rewrite", envelope::rewrite),
    ("rules", rules::rules),
];
