use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::*;
use crate::broker::broker;

const TIMEOUT: Duration = Duration::from_secs(5);

fn node(id: &str, incarnation: u64) -> (Node, crate::broker::ChannelHasher) {
    let bridge = broker(2, 8, 1 << 16).pop().expect("two");
    let hasher = bridge.hasher.clone();
    let node = Node::new(NodeSettings {
        id: id.to_owned(),
        incarnation,
        digests: [1, 2],
        interest: Interest::new(bridge.hasher, bridge.subscriptions),
        linger: Duration::ZERO,
        queue_bytes_max: 1 << 20,
        node_timeout: TIMEOUT,
        first_link: incarnation * 1000,
        metrics: Arc::default(),
    });
    (node, hasher)
}

/// Some nodes, and what is on its way between them.
struct Net {
    nodes: Vec<(Node, crate::broker::ChannelHasher)>,
    /// Publications that came, by node.
    arrived: Vec<Vec<(String, String)>>,
    now_ms: u64,
}

impl Net {
    fn of(count: u64) -> Net {
        let nodes = (1..=count).map(|number| node(&format!("n{number}"), number));
        let mut net = Net {
            nodes: nodes.collect(),
            arrived: (0..count).map(|_| Vec::new()).collect(),
            now_ms: 0,
        };
        net.greet();
        net
    }

    fn now(&self) -> Uptime {
        Uptime::from_ms(self.now_ms)
    }

    fn greet(&mut self) {
        let now = self.now();
        for from in 0..self.nodes.len() {
            let greeting = self.nodes[from].0.greeting(false);
            for (node, _) in &mut self.nodes {
                node.take_greeting(&greeting, now);
            }
        }
        self.exchange(|_| true);
    }

    /// Takes all frames out, and hands over those that `keep` is true for, until there are none.
    fn exchange(&mut self, mut keep: impl FnMut(&Frame) -> bool) {
        let now = self.now();
        let mut has_some = true;
        while has_some {
            has_some = false;
            for from in 0..self.nodes.len() {
                for frame in self.nodes[from].0.take_frames(1 << 20) {
                    has_some = true;
                    if keep(&frame) {
                        self.hand_over(&frame, now);
                    }
                }
            }
        }
    }

    fn hand_over(&mut self, frame: &Frame, now: Uptime) {
        let to = usize::try_from(frame.to - 1).unwrap();
        for arrived in self.nodes[to].0.take_frame(&frame.bytes, now, 0) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            self.arrived[to].push((text(arrived.channel), text(arrived.body)));
        }
    }

    fn want(&mut self, node: usize, subject: Subject, is_wanted: bool) {
        let now = self.now();
        let change = InterestChange { subject, is_wanted };
        self.nodes[node].0.change_own(vec![change], now);
        self.nodes[node].0.end_lingering(now);
    }

    fn publish(&mut self, node: usize, channel: &str, body: &str) {
        let (node, hasher) = &mut self.nodes[node];
        let to = node.wanted_by(hasher.hash(channel.as_bytes()), || channel.as_bytes());
        if !to.is_empty() {
            node.publish(to, Origin::SocketCluster, channel.as_bytes(), body.as_bytes());
        }
    }

    fn tend(&mut self) {
        let now = Now {
            uptime: self.now(),
            unix_ms: 0,
        };
        self.nodes.iter_mut().for_each(|(node, _)| node.tend(now, 0));
    }

    fn counts(&self, node: usize) -> (u64, u64) {
        let metrics = &self.nodes[node].0.metrics;
        (metrics.missed.value(), metrics.gaps.value())
    }
}

fn channel(name: &str) -> Subject {
    Subject::Channel(name.as_bytes().into())
}

fn bodies(arrived: &[(String, String)]) -> Vec<&str> {
    arrived.iter().map(|(_, body)| &**body).collect()
}

#[test]
fn a_publication_comes_once_to_the_nodes_that_want_it_whatever_overlaps() {
    let mut net = Net::of(3);
    net.want(1, channel("a/b"), true);
    net.want(1, Subject::Filter(b"a/#"[..].into()), true);
    net.want(1, Subject::Filter(b"+/b"[..].into()), true);
    net.exchange(|_| true);
    net.publish(0, "a/b", "1");
    net.publish(0, "c", "2");
    net.publish(2, "a/c", "3");
    net.exchange(|_| true);
    assert_eq!(bodies(&net.arrived[1]), ["1", "3"]);
    assert!(net.arrived[0].is_empty() && net.arrived[2].is_empty());
    assert_eq!(net.counts(1), (0, 0), "what others get leaves no gap");
    net.want(1, channel("a/b"), false);
    net.want(1, Subject::Filter(b"a/#"[..].into()), false);
    net.want(1, Subject::Filter(b"+/b"[..].into()), false);
    net.exchange(|_| true);
    net.publish(0, "a/b", "4");
    assert!(!net.nodes[0].0.has_queued(), "nobody wants it");
}

#[test]
fn a_node_that_comes_later_learns_what_others_want() {
    let mut net = Net::of(1);
    for number in 0..3000 {
        net.want(0, channel(&format!("channel {number}")), true);
    }
    net.nodes.push(node("late", 2));
    net.arrived.push(Vec::new());
    net.greet();
    for number in 0..3000 {
        net.publish(1, &format!("channel {number}"), "1");
    }
    net.exchange(|_| true);
    assert_eq!(net.arrived[0].len(), 3000);
    assert_eq!(net.counts(0), (0, 0));
}

#[test]
fn what_is_lost_on_the_way_or_has_no_room_is_counted_where_it_is_missing() {
    let mut net = Net::of(2);
    net.want(1, channel("a"), true);
    net.exchange(|_| true);
    net.publish(0, "a", "1");
    net.exchange(|_| true);
    // A frame with two publications is lost on its way.
    net.publish(0, "a", "2");
    net.publish(0, "a", "3");
    net.exchange(|_| false);
    assert_eq!(net.counts(1), (0, 0), "nobody can know yet");
    // Without a publication that follows, the next beat shows it.
    net.tend();
    net.exchange(|_| true);
    assert_eq!(net.counts(1), (2, 1));
    // The queue is full.
    let body = "x".repeat(300 * 1024);
    for _ in 0..6 {
        net.publish(0, "a", &body);
    }
    net.publish(0, "a", "fits");
    let lost = net.nodes[0].0.metrics.lost[ClusterLoss::QueueFull.index()].value();
    assert_eq!(lost, 3);
    net.exchange(|_| true);
    assert_eq!(net.arrived[1].len(), 5);
    assert_eq!(net.counts(1).0, 5);
    net.publish(0, "a", "9");
    net.exchange(|_| true);
    assert_eq!(net.counts(1).0, 5, "each is counted once");
    // Larger than NATS takes.
    net.publish(0, "a", &body);
    let mut frames = net.nodes[0].0.take_frames(1024);
    assert!(frames.is_empty());
    net.publish(0, "a", "10");
    frames = net.nodes[0].0.take_frames(1024);
    let now = net.now();
    frames.iter().for_each(|frame| net.hand_over(frame, now));
    assert_eq!(net.counts(1).0, 6);
}

#[test]
fn after_a_lost_frame_a_node_learns_again_what_the_other_one_wants() {
    let mut net = Net::of(2);
    net.want(1, channel("kept"), true);
    net.want(1, channel("left"), true);
    net.exchange(|_| true);
    net.want(1, channel("new"), true);
    net.want(1, channel("left"), false);
    net.exchange(|frame| frame.to != 1);
    net.publish(0, "new", "0");
    assert!(!net.nodes[0].0.has_queued(), "it has not heard of it");
    net.tend();
    net.exchange(|_| true);
    for name in ["kept", "left", "new"] {
        net.publish(0, name, name);
    }
    net.exchange(|_| true);
    assert_eq!(bodies(&net.arrived[1]), ["kept", "new"]);
    assert_eq!(
        net.counts(0),
        (0, 1),
        "no publication was lost, and yet something was"
    );
}

#[test]
fn a_frame_that_comes_twice_or_too_late_is_not_taken() {
    let mut net = Net::of(2);
    net.want(1, channel("a"), true);
    net.exchange(|_| true);
    net.publish(0, "a", "1");
    let first = net.nodes[0].0.take_frames(1 << 20);
    net.publish(0, "a", "2");
    let second = net.nodes[0].0.take_frames(1 << 20);
    let now = net.now();
    for frame in [&second, &first, &second].into_iter().flatten() {
        net.hand_over(frame, now);
    }
    assert_eq!(bodies(&net.arrived[1]), ["2"]);
    assert_eq!(net.counts(1), (1, 1));
    assert_eq!(net.nodes[1].0.metrics.repeated.value(), 2);
}

#[test]
fn a_silent_node_is_forgotten_with_all_that_it_wants_and_its_return_is_a_gap() {
    let mut net = Net::of(2);
    net.want(1, channel("a"), true);
    net.exchange(|_| true);
    net.publish(0, "a", "1");
    net.exchange(|_| true);
    net.publish(0, "a", "in the queue");
    net.now_ms += 5001;
    net.tend();
    assert_eq!(net.nodes[0].0.metrics.nodes.value(), 0);
    assert_eq!(net.nodes[0].0.metrics.wanted_by_others.value(), 0);
    assert!(!net.nodes[0].0.has_queued(), "what waits for it goes nowhere");
    net.publish(0, "a", "unsent");
    net.greet();
    net.publish(0, "a", "2");
    net.exchange(|_| true);
    assert_eq!(bodies(&net.arrived[1]), ["1", "2"]);
    assert_eq!(net.nodes[0].0.metrics.nodes.value(), 1);
}

/// The one forgets the other, which has noticed nothing.
#[test]
fn a_link_that_begins_anew_is_a_gap() {
    let mut net = Net::of(2);
    net.want(1, channel("a"), true);
    net.exchange(|_| true);
    net.publish(0, "a", "1");
    net.exchange(|_| true);
    net.nodes[0].0.forget(0);
    net.greet();
    net.publish(0, "a", "2");
    net.exchange(|_| true);
    assert_eq!(bodies(&net.arrived[1]), ["1", "2"]);
    assert_eq!(net.counts(1).1, 1);
    assert_eq!(net.counts(0).1, 0, "nothing of the other direction was lost");
}

#[test]
fn a_node_that_says_farewell_is_gone_at_once() {
    let mut net = Net::of(2);
    let farewell = net.nodes[1].0.greeting(true);
    let now = net.now();
    net.nodes[0].0.take_greeting(&farewell, now);
    assert_eq!(net.nodes[0].0.metrics.nodes.value(), 0);
}

#[test]
fn two_processes_with_one_id_are_found_and_a_restart_is_none() {
    let mut net = Net::of(2);
    net.nodes.push(node("n1", 3));
    net.arrived.push(Vec::new());
    for _ in 0..SHARED_ID_BEATS {
        net.greet();
        net.tend();
        net.now_ms += 1000;
    }
    let duplicates: Vec<u64> = net
        .nodes
        .iter()
        .map(|(node, _)| node.metrics.duplicate_ids.value())
        .collect();
    assert_eq!(duplicates, [1, 2, 1]);
    // All of them get everything.
    net.want(2, channel("a"), true);
    net.want(0, channel("a"), true);
    net.exchange(|_| true);
    net.publish(1, "a", "1");
    net.exchange(|_| true);
    assert_eq!((net.arrived[0].len(), net.arrived[2].len()), (1, 1));

    // The former process has ended without a farewell, or drains for as long as it likes.
    let mut net = Net::of(2);
    let (mut survivor, _) = net.nodes.pop().unwrap();
    let (mut former, _) = net.nodes.pop().unwrap();
    let (mut successor, _) = node("n1", 9);
    for beat in 0..100 {
        let now = Uptime::from_ms(1000 * beat);
        if beat == 50 {
            former.drain();
        }
        if beat >= 50 {
            survivor.take_greeting(&former.greeting(false), now);
        }
        survivor.take_greeting(&successor.greeting(false), now);
        let now = Now {
            uptime: now,
            unix_ms: 0,
        };
        survivor.tend(now, 0);
        assert_eq!(survivor.metrics.duplicate_ids.value(), 0, "beat {beat}");
    }
    assert_eq!(survivor.metrics.nodes.value(), 2);
}

#[test]
fn configurations_that_differ_are_named() {
    assert_eq!(differences([1, 2], [1, 2]), [] as [&str; 0]);
    assert_eq!(differences([1, 2], [3, 2]), ["channels"]);
    assert_eq!(differences([1, 2], [3, 4]), ["channels", "limits"]);
    let mut net = Net::of(2);
    net.nodes[1].0.set_digests([1, 9]);
    assert!(net.nodes[1].0.has_to_greet(), "the others are told at once");
    net.greet();
    let status = net.nodes[0].0.status(net.now());
    assert_eq!(status["nodes"][0]["differs_in"], json!(["limits"]));
}

#[test]
fn a_65th_node_is_ignored_and_counted() {
    let (mut one, _) = node("n", 1);
    for incarnation in 2..=66 {
        let (mut other, _) = node(&format!("n{incarnation}"), incarnation);
        one.take_greeting(&other.greeting(false), Uptime::default());
    }
    assert_eq!(
        (one.metrics.nodes.value(), one.metrics.nodes_refused.value()),
        (64, 1)
    );
}

proptest! {
    /// Frames are lost at random. Whatever is lost: each publication arrives once, in order, or is counted as missing.
    #[test]
    fn each_publication_arrives_or_is_missed(losses in vec(any::<bool>(), 1..200), sizes in vec(1..60_000_usize, 1..40)) {
        let mut net = Net::of(2);
        net.want(1, channel("a"), true);
        net.exchange(|_| true);
        let mut losses = losses.into_iter();
        for (number, size) in sizes.iter().enumerate() {
            net.publish(0, "a", &format!("{number:0size$}"));
            if number % 3 == 0 {
                net.exchange(|frame| frame.to != 2 || !losses.next().unwrap_or(false));
            }
        }
        net.exchange(|_| true);
        net.tend();
        net.exchange(|_| true);
        let numbers: Vec<usize> = net.arrived[1].iter().map(|(_, body)| body.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(numbers.len() as u64 + net.counts(1).0, sizes.len() as u64);
    }

    /// Whoever may publish at NATS may send anything.
    #[test]
    fn any_message_is_survived(mut frames in vec(any::<Vec<u8>>(), 0..20), heads: Vec<[u64; 4]>) {
        let (mut one, _) = node("n", 1);
        for (bytes, [sender, link, number, published]) in frames.iter_mut().zip(heads) {
            let mut frame = Vec::new();
            FrameHead { sender: sender % 4, link, number, published }.write(&mut frame);
            frame.append(bytes);
            one.take_frame(&frame, Uptime::default(), 0);
            one.take_greeting(&frame, Uptime::default());
            one.take_frames(1 << 20);
        }
    }
}
