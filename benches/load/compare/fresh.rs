//! Figures of a server that was started for them: its memory, and the CPU time of work that is done only once.

use std::net::SocketAddr;

use super::super::mqtt::{Qos, Sessions, Speech};
use super::contender::SETTLING;
use super::drive::{Drive, Load};
use super::link::Dialect;
use super::measures::Fresh;

/// A server whose memory and CPU time can be read.
pub(crate) trait Weighed {
    fn address(&self) -> SocketAddr;
    fn pss_bytes(&self) -> Result<u64, String>;
    /// CPU time so far, in microseconds.
    fn cpu_us(&self) -> Result<f64, String>;
}

/// All figures that this load gives.
pub(crate) fn figures(
    load: Load,
    dialect: Dialect,
    server: &impl Weighed,
) -> Result<Vec<(Fresh, f64)>, String> {
    match (load, dialect) {
        (Load::Idle { clients }, _) => Ok(vec![(Fresh::Connection, connection(server, clients, dialect)?)]),
        (Load::Store { .. }, Dialect::Mqtt(speech)) if speech.retain => retained(server, load, speech),
        (Load::Store { .. }, Dialect::Mqtt(speech)) => sessions(server, load, speech),
        (Load::Ping { .. } | Load::Publish { .. } | Load::Churn { .. } | Load::Store { .. }, _) => {
            Ok(Vec::new())
        }
    }
}

/// The growth of a server's memory with each connection after the first few.
fn connection(server: &impl Weighed, clients: u32, dialect: Dialect) -> Result<f64, String> {
    let first = Load::Idle { clients: FIRST_FEW };
    let mut drive = Drive::open(first, server.address(), dialect)?;
    drive.rest(SETTLING)?;
    let before = server.pss_bytes()?;
    drive.open_more(clients)?;
    drive.rest(SETTLING)?;
    Ok((server.pss_bytes()? as f64 - before as f64) / f64::from(clients))
}

/// Clients subscribe and leave; messages come for them; they come back.
fn sessions(server: &impl Weighed, load: Load, speech: Speech) -> Result<Vec<(Fresh, f64)>, String> {
    let Load::Store { topics, each, .. } = load else {
        return Ok(Vec::new());
    };
    let messages = f64::from(topics) * f64::from(each);
    let mut publisher = Drive::open(load, server.address(), Dialect::Mqtt(speech))?;
    // The server may keep freed memory of connections for later ones, so few are connected at a time, and as many came
    // and went before the first measurement.
    let few = Load::Idle {
        clients: FIRST_FEW.min(topics),
    };
    let clean = Dialect::Mqtt(Speech {
        sessions: Sessions::Clean,
        ..speech
    });
    Drive::open(few, server.address(), clean)?.leave()?;
    publisher.rest(SETTLING)?;
    let empty = server.pss_bytes()?;
    let mut clients = Drive::open(few, server.address(), Dialect::Mqtt(speech))?;
    clients.leave()?;
    for begun in (FIRST_FEW..topics).step_by(FIRST_FEW as usize) {
        clients.open_more(FIRST_FEW.min(topics - begun))?;
        clients.leave()?;
    }
    publisher.rest(SETTLING)?;
    let left = server.pss_bytes()?;
    let before = server.cpu_us()?;
    publisher.store()?;
    let after = server.cpu_us()?;
    publisher.rest(SETTLING)?;
    let queued = server.pss_bytes()?;
    let away = server.cpu_us()?;
    clients.come_back(each)?;
    let back = server.cpu_us()?;
    Ok(vec![
        (Fresh::Session, (left as f64 - empty as f64) / f64::from(topics)),
        (Fresh::QueuedMessage, (queued as f64 - left as f64) / messages),
        (Fresh::Queueing, (after - before) / messages),
        (Fresh::ComingBack, (back - away) / messages),
    ])
}

/// A publisher sets a retained message on each topic, and a subscriber of all topics reads them, a few times.
fn retained(server: &impl Weighed, load: Load, speech: Speech) -> Result<Vec<(Fresh, f64)>, String> {
    let Load::Store { topics, .. } = load else {
        return Ok(Vec::new());
    };
    let setting = Dialect::Mqtt(Speech {
        qos: Qos::One,
        ..speech
    });
    let mut publisher = Drive::open(load, server.address(), setting)?;
    publisher.rest(SETTLING)?;
    let (empty, before) = (server.pss_bytes()?, server.cpu_us()?);
    publisher.store()?;
    let set = server.cpu_us()?;
    publisher.rest(SETTLING)?;
    let full = server.pss_bytes()?;
    let mut reader = Drive::open(Load::Idle { clients: 1 }, server.address(), Dialect::Mqtt(speech))?;
    reader.await_done(topics.into())?;
    let reading = server.cpu_us()?;
    for _ in 0..READS {
        reader.read_retained(topics.into())?;
    }
    let read = server.cpu_us()?;
    Ok(vec![
        (
            Fresh::RetainedMessage,
            (full as f64 - empty as f64) / f64::from(topics),
        ),
        (Fresh::Retaining, (set - before) / f64::from(topics)),
        (
            Fresh::Reading,
            (read - reading) / (f64::from(READS) * f64::from(topics)),
        ),
    ])
}

/// Number of connections before the first measurement of memory, because the first ones also pay for tables.
const FIRST_FEW: u32 = 100;
/// How often a subscriber reads all retained messages while the clock runs; it has read them once before.
pub(crate) const READS: u32 = 5;
