//! Checks a core between two turns, and checks that a core that has ended has left nothing behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::config::SlowConsumer;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::outgoing::recoveries::SubscriptionKey;
use crate::cores::services::census::Census;
use crate::mqtt::sessions::Sessions;
use crate::mqtt::subscriptions::Subscriber;
use crate::session::SessionId;

use super::actor::Actor;
use super::client::Member;

/// Nothing is on its way, and the core sleeps. `is_whole`: no core stands still, so no core has to wait for
/// one.
///
/// # Errors
/// An invariant is broken.
pub(super) fn at_rest(core: &Core<Actor>, is_whole: bool) -> Result<(), String> {
    if let Some(broken) = core.connections.broken_invariant() {
        return Err(broken);
    }
    if let Some(sessions) = &core.connections.mqtt
        && is_whole
        && let Some(broken) = sessions.broken_invariant()
    {
        return Err(broken);
    }
    let subscriptions = core.delivery.subscriptions();
    let is_subscribed = |place: SubscriptionKey| subscriptions.has(place.connection, place.channel);
    if let Some(broken) = core.connections.recoveries.broken_invariant(is_subscribed) {
        return Err(broken);
    }
    let count = core.connections.len();
    let queues = core.waiting.lengths();
    for (list, len) in queues.into_iter().chain([("wheel", core.wheel.len())]) {
        if len > count && is_whole {
            return Err(format!("{len} in `{list}`, and there are {count} connections"));
        }
    }
    if core.moves.len() > 0 && is_whole {
        return Err("a half of a connection waits for the other".to_owned());
    }
    for id in core.connections.ids() {
        let Some(connection) = core.connections.get(id) else {
            return Err(format!("{id:?} is listed and not there"));
        };
        if let Some(broken) = core.waiting.broken_invariant(connection) {
            return Err(broken);
        }
        let index = id.index();
        let subscriptions = core.delivery.subscriptions().count_of(index);
        let Phase::Open(open) = &connection.phase else {
            // Beside a core that stands still, its turns may not have ended all subscriptions (`unsubscribing.rs`).
            let has_subscriptions = subscriptions > 0 && is_whole;
            if has_subscriptions || connection.suspended.is_some() || connection.meter.is_some() {
                return Err(format!("what has ended still has something: {connection:?}"));
            }
            continue;
        };
        if open.session.has_more() && !connection.reading.is_paused() && is_whole {
            return Err(format!("an array is not gone on with: {connection:?}"));
        }
        if subscriptions > core.limits.channels_per_connection_max as usize {
            return Err(format!("{subscriptions} subscriptions of one connection"));
        }
        if subscriptions > 0 && !open.session.is_open() {
            return Err("a connection is subscribed without a handshake".to_owned());
        }
    }
    let alive = core
        .connections
        .ids()
        .filter(|&id| core.connections.get(id).is_some_and(|one| !one.phase.is_over()));
    let (alive, counted) = (alive.count() as u64, core.counts.alive());
    let contexts = core.resources.scratch.common.app.contexts.len() as u64;
    if contexts > alive {
        return Err(format!("{contexts} contexts of {alive} connections"));
    }
    let with_timers = core.resources.scratch.common.app.timers.connections() as u64;
    if with_timers > alive {
        return Err(format!("{with_timers} connections with timers of {alive}"));
    }
    if alive != counted {
        return Err(format!(
            "{alive} connections have not ended, {counted} are counted"
        ));
    }
    expect_gauges(core)
}

fn expect_gauges(core: &Core<Actor>) -> Result<(), String> {
    let metrics = &core.metrics;
    for (name, gauge, real) in [
        ("connections", &metrics.connections, core.connections.len() as u64),
        ("sessions", &metrics.sessions, core.counts.sessions()),
        (
            "subscriptions",
            &metrics.subscriptions,
            core.delivery.subscriptions().len(),
        ),
    ] {
        if gauge.value() != real {
            return Err(format!("{name} says {}, there are {real}", gauge.value()));
        }
    }
    Ok(())
}

/// The core has ended.
///
/// # Errors
/// It has left something behind.
pub(super) fn after_end(core: &Core<Actor>) -> Result<(), String> {
    if let Some(broken) = core.connections.broken_invariant() {
        return Err(broken);
    }
    expect_gauges(core)?;
    // Lists of ids may still name connections that have ended, and revocations concern no connection any
    // more.
    for (what, left) in [
        ("connections", core.connections.len()),
        ("visits", core.wheel.len()),
        ("halves of connections", core.moves.len()),
        ("abandoned", core.abandoned.len()),
        ("bytes", as_count(core.metrics.outbox_bytes.value())),
        ("subscriptions", as_count(core.delivery.subscriptions().len())),
        ("sessions", as_count(core.counts.sessions())),
        ("contexts", core.resources.scratch.common.app.contexts.len()),
        ("ends of connections", usize::from(core.has_unsubscribing())),
        ("recoveries", core.connections.recoveries.len()),
        (
            "ends of MQTT sessions",
            usize::from(core.connections.mqtt.as_deref().is_some_and(Sessions::has_ending)),
        ),
    ] {
        if left > 0 {
            return Err(format!("it has ended, and has left {left} {what}"));
        }
    }
    if core.metrics.publications_skipped.value() > 0 && core.connections.slow_consumer() != SlowConsumer::Skip
    {
        return Err("publications were skipped by no policy".to_owned());
    }
    Ok(())
}

fn as_count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Presence on all cores: the members that owners know are the connections that are subscribed; if there is
/// not room for all, a part of them.
///
/// # Errors
/// They are not.
pub(super) fn of_presence(cores: &[&Core<Actor>], has_room: bool) -> Result<(), String> {
    let (subscribed, members) = (subscribed(cores), members(cores)?);
    let is_right = match has_room {
        true => subscribed == members,
        false => members.is_subset(&subscribed),
    };
    if !is_right {
        let missing: Vec<_> = subscribed.difference(&members).collect();
        let stale: Vec<_> = members.difference(&subscribed).collect();
        return Err(format!(
            "subscribed and no members: {missing:?}; members and not subscribed: {stale:?}"
        ));
    }
    Ok(())
}

/// Presence on all cores, when nothing has changed for a while: each owner has as many members as it may have
/// and as there are subscribers.
///
/// # Errors
/// An owner has another number of members.
pub(super) fn of_presence_limit(cores: &[&Core<Actor>], members_max: u32) -> Result<(), String> {
    let (subscribed, members) = (subscribed(cores), members(cores)?);
    for (owner, core) in cores.iter().enumerate() {
        let hasher = core.delivery.hasher();
        let is_owned = |name: &[u8]| hasher.hash(name).owner(cores.len()) == owner;
        let of_owner = subscribed.iter().filter(|(name, _)| is_owned(name)).count();
        let there = members.iter().filter(|(name, _)| is_owned(name)).count();
        if there != of_owner.min(members_max as usize) {
            return Err(format!(
                "core {owner} has {there} members of {of_owner} subscribers, and room for {members_max}"
            ));
        }
    }
    Ok(())
}

/// The connections that are members, each with its channel.
pub(super) fn members<'a>(cores: &[&'a Core<Actor>]) -> Result<BTreeSet<(&'a [u8], SessionId)>, String> {
    let mut members = BTreeSet::new();
    for core in cores {
        for member in core.presence.rooms.all_connections() {
            if !members.insert(member) {
                return Err(format!("{member:?} is a member twice"));
            }
        }
    }
    Ok(members)
}

/// The infos of all members, by the channel and the member.
pub(super) fn infos(cores: &[&Core<Actor>]) -> BTreeMap<(String, Member), Value> {
    let all = cores.iter().flat_map(|core| core.presence.rooms.all_infos());
    let infos = all.filter_map(|(name, user, connection, info)| {
        let member = match user {
            Some(user) => Member::User(user.to_owned()),
            None => Member::Connection(connection?.to_string()),
        };
        let info = info.map_or(Value::Null, |info| {
            serde_json::from_slice(info).expect("an info is JSON")
        });
        Some(((String::from_utf8_lossy(name).into_owned(), member), info))
    });
    infos.collect()
}

/// The connections that are subscribed to channels with presence.
pub(super) fn subscribed<'a>(cores: &[&'a Core<Actor>]) -> BTreeSet<(&'a [u8], SessionId)> {
    let mut subscribed = BTreeSet::new();
    for core in cores {
        for id in core.connections.ids() {
            let session = core.connections.get(id).and_then(|one| one.phase.session_id());
            let Some(session) = session else { continue };
            let mut names: Vec<&[u8]> = core.delivery.subscriptions().channels_of(id.index()).collect();
            names.extend(exact_filters(core, id));
            for name in names {
                let policy = core.resources.policy.channels.find(name);
                if policy.is_some_and(|policy| policy.presence.is_on()) {
                    subscribed.insert((name, session));
                }
            }
        }
    }
    subscribed
}

/// The channels of which an MQTT client is a member while it is connected: its filters without wildcards.
fn exact_filters(core: &Core<Actor>, id: ConnectionId) -> Vec<&'static [u8]> {
    let phase = core.connections.get(id).map(|connection| &connection.phase);
    let (Some(Phase::Open(open)), Some(sessions)) = (phase, &core.connections.mqtt) else {
        return Vec::new();
    };
    let Some(session) = open.session.mqtt_session() else {
        return Vec::new();
    };
    let subscriber = Subscriber::Session(session.number);
    let mut names = vec!["c/0", "c/1", "c/2", "s/0"];
    names.retain(|name| sessions.subscriptions.has(subscriber, name));
    names.into_iter().map(str::as_bytes).collect()
}

/// Shared subscriptions on all cores: the publications that a group counts as in flight are those that the
/// sessions of its members have.
///
/// # Errors
/// They differ.
pub(super) fn of_groups(cores: &[&Core<Actor>]) -> Result<(), String> {
    let mut tags = HashMap::new();
    for core in cores {
        let Some(sessions) = &core.connections.mqtt else {
            return Ok(());
        };
        for (tag, count) in sessions.tags() {
            *tags.entry(tag).or_insert(0) += count;
        }
    }
    for core in cores {
        let Some(sessions) = &core.connections.mqtt else {
            continue;
        };
        for (group, serial, in_flight) in sessions.shares.in_flight_of_members() {
            let real = tags.get(&(core.id.index(), group, serial)).copied().unwrap_or(0);
            if in_flight != real {
                return Err(format!(
                    "the group counts {in_flight} in flight of session {serial}, which has {real}"
                ));
            }
        }
    }
    Ok(())
}

/// Services on all cores, while no letter is on its way: all sides of a call know the same about it.
///
/// # Errors
/// They do not.
pub(super) fn of_services(cores: &[&Core<Actor>]) -> Result<(), String> {
    let mut all = Census::default();
    for core in cores {
        core.check_services_at_rest()?;
        all.add(&core.census_of_services());
    }
    let directories = cores
        .iter()
        .map(|core| core.resources.scratch.common.services.directory.len());
    let is_known = directories.clone().all(|patterns| patterns == all.pools);
    if all.in_flight != all.given
        || all.open != all.given - all.cancelled + all.waiting
        || all.cancelled != all.listed
        || all.members != all.registrations
        || !is_known
    {
        let directories: Vec<_> = directories.collect();
        return Err(format!("services: {all:?}, cores know {directories:?} patterns"));
    }
    Ok(())
}

/// All clients have left.
///
/// # Errors
/// Something of services is left.
pub(super) fn of_service_calls(core: &Core<Actor>) -> Result<(), String> {
    let census = core.census_of_services();
    let patterns = core.resources.scratch.common.services.directory.len();
    if census == Census::default() && patterns == 0 {
        return Ok(());
    }
    Err(format!("services are left: {census:?}, {patterns} patterns"))
}

/// The channels that webhooks were told of are those with subscribers. `told`: the core, whether sessions of MQTT
/// subscribe, and the channel.
///
/// # Errors
/// They are not.
pub(super) fn of_occupied(
    cores: &[&Core<Actor>],
    told: &BTreeSet<(usize, bool, Vec<u8>)>,
) -> Result<(), String> {
    for core in cores {
        let index = core.id.index();
        let mut real = BTreeSet::new();
        for id in core.connections.ids() {
            let names = core.delivery.subscriptions().channels_of(id.index());
            real.extend(names.map(|name| (index, false, name.to_vec())));
        }
        if let Some(sessions) = &core.connections.mqtt {
            let filters = &sessions.subscriptions;
            let topics = (0..filters.filter_places()).filter_map(|number| filters.topic_at(number));
            real.extend(topics.map(|topic| (index, true, topic.to_vec())));
        }
        real.retain(|(_, _, name)| name.first() != Some(&b'$'));
        let told: BTreeSet<_> = told.iter().filter(|(core, ..)| *core == index).cloned().collect();
        if real != told {
            return Err(format!("occupied are {real:?}, and webhooks were told {told:?}"));
        }
    }
    Ok(())
}

/// All clients have left, and the delays of their wills are over.
///
/// # Errors
/// Something is left of their wills.
pub(super) fn of_wills(core: &Core<Actor>) -> Result<(), String> {
    if core.wills.is_empty() {
        return Ok(());
    }
    Err(format!("wills are left: {:?}", core.wills))
}

/// All MQTT clients have left, and their sessions have ended.
///
/// # Errors
/// Something is left of them.
pub(super) fn of_sessions(core: &Core<Actor>) -> Result<(), String> {
    let Some(sessions) = &core.connections.mqtt else {
        return Ok(());
    };
    for (what, left) in [
        ("sessions", sessions.len()),
        ("bytes of publications", sessions.kept_bytes()),
        ("filters", as_count(sessions.subscriptions.len())),
        ("groups", sessions.shares.groups_len()),
    ] {
        if left > 0 {
            return Err(format!("{left} {what} of MQTT are left"));
        }
    }
    Ok(())
}

/// All cores have taken a turn since the last publication: none keeps any buffer of it.
///
/// # Errors
/// Something is still out.
pub(super) fn of_the_ring(core: &mut Core<Actor>) -> Result<(), String> {
    let depth = core.delivery.depth();
    let publisher = core.delivery.publisher();
    publisher.reclaim();
    let left = (depth, publisher.outstanding(), publisher.lent_bytes());
    if left != (0, 0, 0) {
        return Err(format!(
            "in the ring: {} not taken, {} publications not taken back, {} bytes lent",
            left.0, left.1, left.2
        ));
    }
    Ok(())
}
