//! The memory of a connection in user space, and that its end frees it. Only allocations of cores count, in the bytes
//! that they request from the allocator; these are the same on every machine.

mod support {
    pub(crate) mod client;
    pub(crate) mod counting;
    pub(crate) mod frame;
}

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use ringcast::internals::app::builtin::Builtin;
use ringcast::server::Server;
use support::client::Client;
use support::counting::{Asked, asked, start};

/// Not a power of two, so that structures that grow by doubling show their unused room.
const CONNECTIONS: u32 = 10_000;
const BYTES_PER_CONNECTION_MAX: i64 = 216;
/// One for the accept key, and a share of the tables of connections.
const ALLOCATIONS_PER_CONNECTION_MAX: f64 = 1.5;
const BYTES_PER_SUBSCRIPTION_MAX: i64 = 32;
/// Bytes that may remain per connection: its place in the list of subscriptions until the list has shrunk, and its
/// share of memory that is kept for later connections.
const BYTES_LEFT_MAX: i64 = 24;

#[test]
fn a_connection_takes_little_memory_and_gives_it_back() {
    let server = start(1, |config| config.socketcluster.pings = false, Builtin::new);
    let connect = || Client::connect(Ipv4Addr::LOCALHOST, server.address());
    // The first connection makes its core count, and makes the core allocate its shared buffers.
    let mut first = connect();
    first.call(SUBSCRIBE);
    let before = asked();

    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    let (idle, allocations) = cost("an idle connection", before);
    assert!(idle <= BYTES_PER_CONNECTION_MAX, "{idle} bytes");
    assert!(
        allocations <= ALLOCATIONS_PER_CONNECTION_MAX,
        "{allocations} allocations"
    );

    let unsubscribed = asked();
    for client in &mut clients {
        client.call(SUBSCRIBE);
    }
    let (subscription, _) = cost("a subscription", unsubscribed);
    assert!(subscription <= BYTES_PER_SUBSCRIPTION_MAX, "{subscription} bytes");

    drop(clients);
    wait_for_one_connection(&server);
    first.call(SUBSCRIBE); // answered in a later turn, so the turn with the last close is over
    let (left, _) = cost("a closed connection", before);
    assert!(left <= BYTES_LEFT_MAX, "{left} bytes");
}

/// The difference to `before`, divided by the number of connections.
#[expect(clippy::print_stdout, reason = "the figures are for readers as well")]
fn cost(what: &str, before: Asked) -> (i64, f64) {
    let now = asked();
    let bytes = (now.live_bytes - before.live_bytes) / i64::from(CONNECTIONS);
    let allocations = (now.allocations - before.allocations) as f64 / f64::from(CONNECTIONS);
    println!("{what}: {bytes} bytes, {allocations:.2} allocations");
    (bytes, allocations)
}

fn wait_for_one_connection(server: &Server) {
    let connections = || server.cores()[0].metrics().connections.value();
    for _ in 0..2000 {
        if connections() == 1 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} connections are left", connections());
}

const SUBSCRIBE: &str = r##"{"event":"#subscribe","data":{"channel":"news"},"cid":2}"##;
