//! Sends one request to another server, and reads its answer.
//!
//! Each request has a connection of its own: without a pool, without a proxy, and without redirects, since a server
//! that can redirect could otherwise choose the answer. The certificate of the other server is checked against this
//! machine's certificate authorities (`SSL_CERT_FILE` names others). Servers that are asked again and again: `targets`.
//!
//! Limits: the caller bounds the bytes of the answer and the time.

use std::io;

use axum::http::response::Parts;
use axum::http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_blocking;

use crate::targets::{Address, ExchangeError, LinkLocal, LookUps, Stream, connect, tls_of_system};

/// Sends the request to the server of its URL; `check` sees the head of the answer before the body is read.
///
/// # Errors
/// There is no answer, or `check` refuses it.
pub(super) async fn exchange<E: From<ExchangeError>>(
    mut request: Request<Full<Bytes>>,
    bytes_max: usize,
    check: impl FnOnce(&Parts) -> Result<(), E>,
) -> Result<(Parts, Bytes), E> {
    let address = Address::of(request.uri()).map_err(ExchangeError::from)?;
    *request.uri_mut() = address.path.clone();
    let headers = request.headers_mut();
    headers.insert(header::HOST, address.host_header.clone());
    let agent = HeaderValue::from_static(concat!("ringcast/", env!("CARGO_PKG_VERSION")));
    headers.insert(header::USER_AGENT, agent);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // Reading this machine's certificates takes time: they are files, often more than a hundred.
    let tls = if address.is_secure {
        let tls = spawn_blocking(tls_of_system).await.map_err(io::Error::other);
        Some(tls.flatten().map_err(ExchangeError::from)?)
    } else {
        None
    };
    // An operator has configured these URLs, so a link-local address is intended.
    let stream = connect(&address, &LookUps::default(), tls.as_ref(), LinkLocal::Allowed)
        .await
        .map_err(ExchangeError::from)?;
    send(stream, request, bytes_max, check).await
}

async fn send<E: From<ExchangeError>>(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
    check: impl FnOnce(&Parts) -> Result<(), E>,
) -> Result<(Parts, Bytes), E> {
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
