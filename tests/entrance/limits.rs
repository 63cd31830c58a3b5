//! The limits on connections, on both sides of each limit.

use ringcast::config::limits::MemoryMax;
use ringcast::config::{AcceptExcess, Placement};
use ringcast::internals::decision::Limit;

use super::support::{Client, Server, UPGRADE, eventually};
use super::{NOT_A_PROXY, PROXY, from, server_behind_proxy, upgrade_with};

/// Requests a WebSocket; returns the first line of the answer, and the client.
fn upgrade_answer(mut client: Client) -> (Client, String) {
    client.send_bytes(UPGRADE.as_bytes());
    let head = client.read_head();
    (client, head)
}

#[track_caller]
fn accepted(client: Client) -> Client {
    let (client, head) = upgrade_answer(client);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client
}

/// Checks that the answer is this refusal with `Retry-After`, and that the connection ends.
#[track_caller]
fn refused(client: Client, status: &str) {
    let (mut client, head) = upgrade_answer(client);
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("\r\nRetry-After: 5\r\n"), "{head}");
    client.rest();
}

#[test]
fn beyond_the_limit_of_the_server_connections_wait_until_one_leaves() {
    let server = Server::start(|config| config.limits.connections_max = 3);
    let mut connected: Vec<Client> = (0..3).map(|_| accepted(server.connect())).collect();
    let mut fourth = server.connect();
    fourth.send_bytes(UPGRADE.as_bytes());
    eventually("it waits", || server.limit_hits(Limit::Connections) > 0);
    assert_eq!(server.connections(), 3);
    connected.pop();
    assert!(fourth.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(server.connections(), 3);
}

#[test]
fn beyond_the_limit_of_the_server_connections_are_answered_503_if_so_configured() {
    let server = Server::start(|config| {
        config.limits.connections_max = 3;
        config.listen.accept_excess = AcceptExcess::Refuse;
    });
    let mut connected: Vec<Client> = (0..3).map(|_| accepted(server.connect())).collect();
    for _ in 0..40 {
        refused(server.connect(), "503");
    }
    assert_eq!(server.total(|core| &core.connections_refused), 40);
    // Each of the two cores has refused once.
    let hits = server.limit_hits(Limit::Connections);
    assert!((1..=2).contains(&hits), "{hits}");
    assert_eq!(server.connections(), 3);
    connected.pop();
    eventually("there is room", || server.connections() == 2);
    accepted(server.connect());
}

#[test]
fn no_core_ever_has_more_connections_than_its_limit() {
    let server = Server::start(|config| {
        config.limits.connections_per_core_max = 5;
        config.listen.accept_excess = AcceptExcess::Refuse;
    });
    let address = server.address;
    let answers: Vec<(Client, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    (0..10)
                        .map(|_| upgrade_answer(Client::connect(address)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let connected = answers
        .iter()
        .filter(|(_, head)| head.starts_with("HTTP/1.1 101 "));
    assert_eq!(connected.count(), 10);
    assert_eq!(server.each(|core| &core.connections), [5, 5]);
    assert_eq!(server.total(|core| &core.connections_refused), 70);
    assert!((1..70).contains(&server.limit_hits(Limit::ConnectionsPerCore)));
}

#[test]
fn each_address_has_a_limit_of_connections_of_its_own() {
    let server = Server::start(|config| config.limits.connections_per_address_max = 2);
    let mut connected = vec![
        accepted(from(NOT_A_PROXY, &server)),
        accepted(from(NOT_A_PROXY, &server)),
    ];
    refused(from(NOT_A_PROXY, &server), "429");
    refused(from(NOT_A_PROXY, &server), "429");
    assert_eq!(server.limit_hits(Limit::ConnectionsPerAddress), 2);
    assert_eq!(server.total(|core| &core.connections_refused), 2);
    accepted(from("127.0.0.4", &server));
    connected.pop();
    eventually("one connection is closed", || server.connections() == 1);
    connected.push(accepted(from(NOT_A_PROXY, &server)));
    refused(from(NOT_A_PROXY, &server), "429");
    drop(connected);
    server.settles_at(0, 0);
}

#[test]
fn connections_through_a_proxy_count_for_the_client_that_it_names() {
    let (server, _told) = server_behind_proxy(|config| {
        config.proxies.proxy_protocol = true;
        config.limits.connections_per_address_max = 1;
    });
    let through_proxy = |header: &str| {
        let mut client = from(PROXY, &server);
        client.send_bytes(header.as_bytes());
        client
    };
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n";
    let connected = accepted(through_proxy(header));
    // Refused at once, not only when it sends a request.
    assert!(through_proxy(header).rest().starts_with("HTTP/1.1 429 "));
    accepted(through_proxy("PROXY TCP4 192.0.2.8 198.51.100.1 12345 443\r\n"));
    // Health checks of the proxy itself count for no address.
    let _checks = [
        accepted(through_proxy("PROXY UNKNOWN\r\n")),
        accepted(through_proxy("PROXY UNKNOWN\r\n")),
    ];
    drop(connected);
    eventually("the connection is closed", || server.connections() == 2);
    accepted(through_proxy(header));
}

#[test]
fn requests_that_a_proxy_forwards_count_for_their_client() {
    let (server, _told) = server_behind_proxy(|config| {
        config.proxies.x_forwarded_for = true;
        config.limits.connections_per_address_max = 1;
    });
    let forwarded = |ip: &str| {
        let mut client = from(PROXY, &server);
        client.send_bytes(upgrade_with(&format!("X-Forwarded-For: {ip}\r\n")).as_bytes());
        let head = client.read_head();
        (client, head)
    };
    let (connected, head) = forwarded("192.0.2.7");
    assert!(head.starts_with("HTTP/1.1 101 "));
    assert!(forwarded("192.0.2.7").1.starts_with("HTTP/1.1 429 "));
    assert!(forwarded("203.0.113.1, 192.0.2.7").1.starts_with("HTTP/1.1 429 "));
    assert!(forwarded("192.0.2.8").1.starts_with("HTTP/1.1 101 "));
    drop(connected);
    eventually("the connection is closed", || server.connections() == 0);
    assert!(forwarded("192.0.2.7").1.starts_with("HTTP/1.1 101 "));
}

#[test]
fn connections_over_the_rate_wait_or_are_refused_as_configured() {
    let start = |accepts_per_second_max, accept_excess| {
        Server::start(|config| {
            config.cores.placement = Placement::Count(1);
            config.limits.accepts_per_second_max = accepts_per_second_max;
            config.listen.accept_excess = accept_excess;
        })
    };
    let server = start(1, AcceptExcess::Refuse);
    accepted(server.connect());
    refused(server.connect(), "503");
    assert_eq!(server.limit_hits(Limit::AcceptRate), 1);
    eventually("it is accepted", || {
        upgrade_answer(server.connect()).1.starts_with("HTTP/1.1 101 ")
    });

    let server = start(20, AcceptExcess::Wait);
    let connected: Vec<Client> = (0..10).map(|_| accepted(server.connect())).collect();
    assert!(server.limit_hits(Limit::AcceptRate) > 0);
    assert_eq!(server.connections(), connected.len() as u64);
}

#[test]
fn when_memory_is_short_no_new_connection_is_accepted() {
    let server = Server::start(|config| config.limits.memory_bytes_max = MemoryMax::Bytes(1 << 20));
    eventually("the memory in use has been checked", || {
        upgrade_answer(server.connect()).1.starts_with("HTTP/1.1 503 ")
    });
    refused(server.connect(), "503");
    assert!(server.limit_hits(Limit::Memory) > 0);

    for enough in [MemoryMax::Bytes(1 << 40), MemoryMax::Auto, MemoryMax::Off] {
        let server = Server::start(|config| config.limits.memory_bytes_max = enough);
        accepted(server.connect()).handshake();
    }
}
