//! A way to the server that can be cut: a listener on loopback that passes bytes on in both directions.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The listener. Its threads end with the process.
pub(crate) struct Cut {
    port: u16,
    /// The sockets of the clients that have connected.
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cut {
    /// Passes bytes of clients on to this address.
    pub(crate) fn between(address: (&str, u16)) -> Cut {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let (own, (host, server)) = (Arc::clone(&sockets), (address.0.to_owned(), address.1));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect((host.as_str(), server)).expect("the server listens");
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (copy(from), copy(to));
                    thread::spawn(move || pass_on(from, to));
                }
                own.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
        });
        Cut { port, sockets }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections that there are now.
    pub(crate) fn cut(&self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain(..) {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn copy(socket: &TcpStream) -> TcpStream {
    socket.try_clone().expect("a descriptor")
}

/// Passes bytes on until one side ends. Then the other ends, too.
fn pass_on(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let result = loop {
        match from.read(&mut bytes) {
            Ok(0) => break Ok(()),
            Ok(count) => to.write_all(&bytes[..count])?,
            Err(error) => break Err(error),
        }
    };
    to.shutdown(Shutdown::Both)?;
    result
}
