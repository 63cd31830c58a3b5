//! The parts of a URL that a request needs.

use std::io;

use hyper::Uri;
use hyper::header::HeaderValue;

/// The destination of a request.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_secure: bool,
    /// The value of `Host`.
    pub(crate) host_header: HeaderValue,
    /// The path and the query, as they stand in a request.
    pub(crate) path: Uri,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// It has no host or no valid path.
    pub(crate) fn of(url: &Uri) -> io::Result<Address> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let authority = url.authority().ok_or_else(|| wrong("the URL has no host"))?;
        let is_secure = url.scheme_str() == Some("https");
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Address {
            host: authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned(),
            port: authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            host_header: authority
                .as_str()
                .parse()
                .map_err(|_| wrong("the URL has no valid host"))?,
            path: path.parse().map_err(|_| wrong("the URL has no valid path"))?,
        })
    }
}
