//! Busy polling: a core finds new work without sleeping, but only if the setting is on and no other core uses its CPU.

#![allow(clippy::unwrap_used)] // a test

mod support;

use std::thread::available_parallelism;
use std::time::Duration;

use ringcast::config::{Config, Placement};
use support::{Server, eventually};

const LONGEST: Duration = Duration::from_millis(1);

fn server(cores: u16, busy_poll: Duration) -> Server {
    Server::start(|config: &mut Config| {
        config.cores.placement = Placement::Count(cores);
        config.cores.busy_poll = busy_poll;
    })
}

fn hits(server: &Server) -> u64 {
    server.total(|core| &core.busy_poll_hits)
}

#[test]
fn a_client_that_calls_again_soon_is_served_without_a_sleep() {
    let server = server(1, LONGEST);
    let (mut client, mut subscriber) = (server.client(), server.client());
    subscriber.subscribe("news");
    eventually("something was found", || {
        client.ping();
        client.publish("news", "1");
        assert_eq!(subscriber.publication("news"), "1");
        hits(&server) >= 10
    });
}

#[test]
fn a_core_polls_only_if_configured_and_alone_on_its_cpu() {
    let twice_the_cpus = 2 * u16::try_from(available_parallelism().unwrap().get()).unwrap();
    for server in [server(1, Duration::ZERO), server(twice_the_cpus, LONGEST)] {
        let mut client = server.client();
        for _ in 0..200 {
            client.ping();
        }
        assert_eq!(hits(&server), 0);
    }
}
