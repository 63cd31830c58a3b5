//! The actions of MQTT clients in a run.

use std::time::Duration;

use super::World;
use crate::cores::simulation::device::{Device, filler};
use crate::cores::simulation::log::{SHARED, channel_name};
use crate::cores::simulation::random::Random;
use crate::cores::simulation::world::GroundTruth;

impl World {
    /// A client connects to a core: to begin its session, to go on with it, or to take it over from an older
    /// connection.
    pub(in crate::cores::simulation) fn device_connects(
        &mut self,
        index: usize,
        is_clean: bool,
        expiry_s: u32,
    ) {
        let core = self.truth.random.below(self.seats.len());
        let Ok(socket) = self.seats[core].listener_address.connect() else {
            return;
        };
        let device = &mut self.devices[index];
        let takes_over = device.is_connecting();
        self.truth.note(format!(
            "device {index} connects to core {core}, clean: {is_clean}, expiry: {expiry_s}, takes over: {takes_over}"
        ));
        device.connect(&mut self.truth, socket, is_clean, expiry_s);
        let max = some_bytes(&mut self.truth.random, device);
        device.write(&self.truth, max);
    }

    pub(super) fn device_acts(&mut self) {
        let index = self.truth.random.below(self.devices.len());
        let is_connecting = self.devices[index].is_connecting();
        let begins = if is_connecting { (1, 25) } else { (1, 2) };
        if self.truth.random.chance(begins.0, begins.1) {
            let is_clean = self.truth.random.chance(1, 5);
            let expiry_s = self.truth.random.of(&[0, 2, 10, 100]);
            self.device_connects(index, is_clean, expiry_s);
            return;
        }
        let device = &mut self.devices[index];
        let what = act(device, &mut self.truth);
        self.truth.note(format!("device {index} {what}"));
    }

    /// All clients resume their sessions, and get everything that waits for them.
    pub(super) fn devices_come_home(&mut self) {
        for index in 0..self.devices.len() {
            self.devices[index].poll();
            if !self.devices[index].is_open() {
                self.device_connects(index, false, 10);
                self.devices[index].poll();
            }
        }
        self.pass(Duration::from_secs(1));
        self.settle();
    }

    /// All clients leave, and their sessions end.
    pub(super) fn devices_leave(&mut self) {
        for device in &mut self.devices {
            device.poll();
            device.drop_older();
            match self.truth.random.below(3) {
                0 => device.cut(false),
                1 => {
                    device.write(&self.truth, usize::MAX);
                    device.cut(true);
                }
                _ => device.disconnect(&mut self.truth, false, None),
            }
        }
    }
}

/// A client acts; returns the name of the action.
fn act(device: &mut Device, truth: &mut GroundTruth) -> &'static str {
    let is_open = device.is_open();
    match truth.random.below(40) {
        0..12 if is_open => {
            let count = truth.random.of(&[1, 1, 2, 5]);
            for _ in 0..count {
                let channel = some_channel(truth);
                device.publish(truth, channel);
            }
            write(device, truth);
            "publishes"
        }
        12..17 if is_open && !device.is_asking() => {
            if truth.random.chance(1, 12) {
                let filters = many_filters(truth);
                let filters = filters.into_iter().map(|filter| with_qos(truth, filter));
                let filters: Vec<_> = filters.collect();
                device.subscribe(truth, &filters);
                write(device, truth);
                return "subscribes to many filters";
            }
            let filter = some_filter(truth);
            let filter = with_qos(truth, filter);
            device.subscribe(truth, &[filter]);
            write(device, truth);
            "subscribes"
        }
        17..19 if is_open && !device.is_asking() => {
            let filters = match truth.random.chance(1, 6) {
                true => many_filters(truth),
                false => vec![some_filter(truth)],
            };
            device.unsubscribe(truth, &filters);
            write(device, truth);
            "unsubscribes"
        }
        19..23 => {
            let count = truth.random.of(&[1, 2, 100]);
            device.acknowledge(truth, count);
            write(device, truth);
            "acknowledges"
        }
        23..27 => {
            write(device, truth);
            "writes on"
        }
        27..30 => {
            let max = truth.random.of(&[1, 10, 100, 8192]);
            device.read(truth, max);
            "reads"
        }
        30 | 31 => {
            device.toggle_polling();
            "is attentive, or is not"
        }
        32 | 33 => {
            device.is_prompt ^= true;
            "acknowledges at once, or does not"
        }
        34 if truth.random.chance(1, 2) => {
            device.cut(false);
            "disappears"
        }
        35 if truth.random.chance(1, 4) => {
            device.cut(true);
            "ends its direction"
        }
        36 if is_open && truth.random.chance(1, 2) => {
            let with_will = truth.random.chance(1, 3);
            let expiry_s = truth.random.of(&[None, None, Some(0), Some(3)]);
            device.disconnect(truth, with_will, expiry_s);
            write(device, truth);
            "disconnects"
        }
        37 if is_open && truth.random.chance(1, 4) => {
            device.send_garbage(truth);
            "sends garbage"
        }
        38 if is_open => {
            device.ping(truth);
            "pings"
        }
        _ => "waits",
    }
}

fn write(device: &mut Device, truth: &mut GroundTruth) {
    let max = some_bytes(&mut truth.random, device);
    device.write(truth, max);
}

/// How many bytes to write: all, or a part.
fn some_bytes(random: &mut Random, device: &Device) -> usize {
    match random.below(4) {
        0 => random.below(device.unwritten() + 1),
        _ => usize::MAX,
    }
}

fn some_channel(truth: &mut GroundTruth) -> usize {
    if truth.random.chance(1, 4) {
        SHARED
    } else {
        truth.random.below(truth.plan.channels)
    }
}

/// A filter and the QoS to ask for.
fn with_qos(truth: &mut GroundTruth, filter: String) -> (String, u8) {
    let qos = match filter.starts_with('$') {
        true => truth.random.of(&[1, 2]),
        false => truth.random.of(&[0, 1, 1, 2]),
    };
    (filter, qos)
}

/// Different filters, so many that the server handles the packet in parts: some of channels, at any places among such that
/// match nothing.
fn many_filters(truth: &mut GroundTruth) -> Vec<String> {
    let mut filters: Vec<String> = (0..truth.random.of(&[70, 130, 200])).map(filler).collect();
    for _ in 0..truth.random.of(&[1, 3, 6]) {
        let filter = some_filter(truth);
        if !filters.contains(&filter) {
            let at = truth.random.below(filters.len() + 1);
            filters.insert(at, filter);
        }
    }
    filters
}

fn some_filter(truth: &mut GroundTruth) -> String {
    match truth.random.below(8) {
        0 => "c/+".to_owned(),
        1 => "c/#".to_owned(),
        2 | 3 => format!("$share/g/{}", channel_name(SHARED)),
        _ => channel_name(truth.random.below(truth.plan.channels)),
    }
}
