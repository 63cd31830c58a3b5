//! More connections than one descriptor table can hold, because each core has a table of its own.

mod support {
    pub(crate) mod client;
    pub(crate) mod frame;
}

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Barrier;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringcast::config::{Config, Placement};
use ringcast::internals::app::builtin::Builtin;
use ringcast::server::{Descriptors, Embedding, Server};
use support::client::Client;

const CONNECTIONS: usize = 20_000;
/// Number of client threads, each with a descriptor table and an address of its own, and of cores.
const THREADS: u8 = 4;
/// Far less than all connections need in one table, and more than a quarter of that.
const DESCRIPTORS_MAX: u64 = 8_000;

#[test]
fn one_publication_reaches_each_of_20_000_connections_once() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = hard.min(DESCRIPTORS_MAX);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
    let mut config = Config::default();
    config.cores.placement = Placement::Count(THREADS.into());
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = None;
    // These clients answer only while they wait for a message.
    config.socketcluster.pings = false;
    let embedding = Embedding {
        descriptors: Descriptors::OfCores { kept: Vec::new() },
        ..Embedding::default()
    };
    let server = Server::start(&config, embedding, |_| Builtin::new()).unwrap();
    let address = server.address();

    let all_subscribed = Barrier::new(usize::from(THREADS) + 1);
    thread::scope(|scope| {
        let crowds: Vec<_> = (0..THREADS)
            .map(|thread| {
                let all_subscribed = &all_subscribed;
                scope.spawn(move || {
                    unshare(CloneFlags::CLONE_FILES).expect("this machine permits the call");
                    let from = Ipv4Addr::new(127, 0, 0, 2 + thread);
                    let mut crowd: Vec<_> = (0..CONNECTIONS / usize::from(THREADS))
                        .map(|_| subscriber(from, address))
                        .collect();
                    all_subscribed.wait();
                    // If the first publication were delivered twice, the second would not come right after it.
                    crowd
                        .iter_mut()
                        .map(|client| [client.receive(), client.receive()])
                        .filter(|received| *received == [published(1), published(2)])
                        .count()
                })
            })
            .collect();
        all_subscribed.wait();
        let mut publisher = Client::connect(Ipv4Addr::LOCALHOST, address);
        for number in [1, 2] {
            publisher.call(&format!(
                r##"{{"event":"#publish","data":{{"channel":"all","data":{number}}},"cid":2}}"##
            ));
        }
        let reached: usize = crowds.into_iter().map(|crowd| crowd.join().unwrap()).sum();
        assert_eq!(reached, CONNECTIONS);
    });
    let deliveries = server
        .cores()
        .iter()
        .map(|core| core.metrics().deliveries.value());
    assert_eq!(deliveries.sum::<u64>(), 2 * CONNECTIONS as u64);
}

fn subscriber(from: Ipv4Addr, address: SocketAddr) -> Client {
    let mut client = Client::connect(from, address);
    client.call(r##"{"event":"#subscribe","data":{"channel":"all"},"cid":2}"##);
    client
}

fn published(number: u32) -> String {
    format!(r##"{{"event":"#publish","data":{{"channel":"all","data":{number}}}}}"##)
}
