//! Sends one request to another server, and reads its answer.
//!
//! Each request has a connection of its own: without a pool, without a proxy, and without redirects, since a server that
//! can redirect could otherwise choose the answer. The certificate of the other server is checked against this machine's
//! certificate authorities (`SSL_CERT_FILE` names others).
//!
//! Limits: the caller bounds the bytes of the answer and the time.

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::http::response::Parts;
use axum::http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// The other server cannot be reached.
    Unreachable(io::Error),
    /// It does not answer as HTTP/1.1 says.
    Http(hyper::Error),
    /// The body of the answer is larger than the caller allows.
    TooLarge,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Unreachable(error) => write!(formatter, "cannot be reached: {error}"),
            ExchangeError::Http(error) => write!(formatter, "no HTTP answer: {error}"),
            ExchangeError::TooLarge => formatter.write_str("the answer is too large"),
        }
    }
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> ExchangeError {
        ExchangeError::Unreachable(error)
    }
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> ExchangeError {
        ExchangeError::Http(error)
    }
}

/// Sends the request to the server of its URL; `check` sees the head of the answer before the body is read.
///
/// # Errors
/// There is no answer, or `check` refuses it.
pub(super) async fn exchange<E: From<ExchangeError>>(
    mut request: Request<Full<Bytes>>,
    bytes_max: usize,
    check: impl FnOnce(&Parts) -> Result<(), E>,
) -> Result<(Parts, Bytes), E> {
    let wrong = |why: &str| ExchangeError::from(io::Error::new(io::ErrorKind::InvalidInput, why.to_owned()));
    let url = request.uri().clone();
    let authority = url
        .authority()
        .ok_or_else(|| wrong("the URL has no host"))?
        .clone();
    // The brackets of an IPv6 address belong to the URL.
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let secure = url.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| wrong("the URL has no valid path"))?;
    let headers = request.headers_mut();
    let host_header = authority
        .as_str()
        .parse()
        .map_err(|_| wrong("the URL has no valid host"))?;
    headers.insert(header::HOST, host_header);
    let agent = HeaderValue::from_static(concat!("ringcast/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(ExchangeError::from)?;
    if !secure {
        return send(stream, request, bytes_max, check).await;
    }
    let name =
        ServerName::try_from(host).map_err(|_| wrong("its host cannot be the name of a certificate"))?;
    // Reading this machine's certificates takes time: they are files, often more than a hundred.
    let connector = spawn_blocking(connector).await.map_err(io::Error::other);
    let connector = connector.flatten().map_err(ExchangeError::from)?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(ExchangeError::from)?;
    send(stream, request, bytes_max, check).await
}

fn connector() -> Result<TlsConnector, io::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(io::Error::other(
            "this machine trusts no certificate authority: install ca-certificates, or set SSL_CERT_FILE",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn send<S, E: From<ExchangeError>>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
    check: impl FnOnce(&Parts) -> Result<(), E>,
) -> Result<(Parts, Bytes), E>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(ExchangeError::from)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(ExchangeError::from)?;
        let (head, body) = response.into_parts();
        check(&head)?;
        let body = Limited::new(body, bytes_max).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ExchangeError::Http(*error),
            Err(_) => ExchangeError::TooLarge,
        })?;
        Ok((head, body.to_bytes()))
    };
    tokio::select! {
        answer = answer => answer,
        // The connection ends before the answer only if the answer can no longer come complete; data that was
        // read before is still processed.
        error = connection_error(connection) => Err(ExchangeError::from(error).into()),
    }
}

/// The error with which a connection ends. Never returns if it ends without one.
async fn connection_error(connection: impl Future<Output = hyper::Result<()>>) -> hyper::Error {
    match connection.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}
