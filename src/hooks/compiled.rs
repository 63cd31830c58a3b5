//! The hooks of a configuration: finds the hook that decides an action.
//!
//! The first hook that names the action, and has a pattern that matches the name, decides. A filter of MQTT belongs to
//! a hook if it could match a name of the hook's patterns: otherwise a client could subscribe past the hook.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use tokio_rustls::TlsConnector;

use super::asking::{Asking, Open, unavailable};
use super::hook::{Hook, OpenQuestion};
use super::question::{COOKIE, Question, Subject};
use crate::app::{AllowedPublish, Client, CloseReason, Peer, Refusal};
use crate::auth::rules::{Pattern, filter_meets, first_bytes};
use crate::config::ListFault;
use crate::config::channels::PRESENCE_PREFIX;
use crate::config::hooks::{HookAction, HookSpec, WhenAway};
use crate::config::text_file::{self, SECRET_BYTES_MAX};
use crate::metrics::hooks::HookMetrics;
use crate::services::ServiceReply;
use crate::targets::{LinkLocal, Signer, Target, TargetSettings, tls_of_authority, tls_of_system};

/// The hooks of a configuration; at least one.
#[derive(Debug)]
pub(crate) struct Hooks {
    separator: u8,
    rows: Vec<Row>,
    /// The headers of an upgrade that some hook passes on, in lower case, and the cookies.
    headers: Vec<String>,
    cookies: Vec<String>,
    /// Whether some hook passes the query on.
    passes_query: bool,
    /// `None` before [`Hooks::started`]: a check of the configuration asks no hook.
    asking: Option<Asking>,
}

#[derive(Clone, Debug)]
struct Row {
    hook: Arc<Hook>,
    channels: Arc<[Pattern]>,
    procedures: Arc<[Pattern]>,
    /// The hash of the content of its files: another content makes another hook.
    files: [u8; 32],
}

/// Whether a question is on its way.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The decision will come.
    Deferred(Refusal),
    /// Too many questions are open: this is the decision.
    Decided(Result<AllowedPublish, Refusal>),
}

impl Hooks {
    /// Compiles hooks, and reads the files that they name. A hook that is the same as before keeps its state. `None` if
    /// there are no hooks.
    ///
    /// # Errors
    /// The error names the first faulty hook.
    pub(crate) fn compile(
        specs: &[HookSpec],
        separator: u8,
        before: Option<&Hooks>,
    ) -> Result<Option<Arc<Hooks>>, ListFault> {
        let mut of_system = None;
        let mut rows = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let row = Row::compile(spec, separator, before, &mut of_system);
            rows.push(row.map_err(|fault| fault_of(index, spec, fault))?);
        }
        let all = |of: fn(&HookSpec) -> &Vec<String>| {
            let mut names: Vec<String> = specs.iter().flat_map(of).cloned().collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        Ok((!rows.is_empty()).then(|| {
            Arc::new(Hooks {
                separator,
                rows,
                headers: all(|spec| &spec.headers),
                cookies: all(|spec| &spec.cookies),
                passes_query: specs.iter().any(|spec| spec.query),
                asking: before.and_then(|before| before.asking.clone()),
            })
        }))
    }

    /// The first fault of each hook; [`Hooks::compile`] stops at the first of all.
    pub(crate) fn faults(specs: &[HookSpec], separator: u8) -> Vec<ListFault> {
        let mut of_system = None;
        let faults = specs.iter().enumerate().filter_map(|(index, spec)| {
            let fault = Row::compile(spec, separator, None, &mut of_system).err()?;
            Some(fault_of(index, spec, fault))
        });
        faults.collect()
    }

    /// These hooks, with the thread that asks.
    ///
    /// # Errors
    /// The system refuses it.
    pub(crate) fn started(self: &Arc<Self>) -> io::Result<Arc<Hooks>> {
        if self.asking.is_some() {
            return Ok(Arc::clone(self));
        }
        Ok(Arc::new(Hooks {
            separator: self.separator,
            rows: self.rows.clone(),
            headers: self.headers.clone(),
            cookies: self.cookies.clone(),
            passes_query: self.passes_query,
            asking: Some(Asking::start()?),
        }))
    }

    /// Each hook.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Hook> {
        self.rows.iter().map(|row| &*row.hook)
    }

    /// The headers of an upgrade that are kept, since some hook passes them on.
    pub(crate) fn headers(&self) -> &[String] {
        &self.headers
    }

    /// The same of cookies.
    pub(crate) fn cookies(&self) -> &[String] {
        &self.cookies
    }

    /// Whether the query of an upgrade is kept.
    pub(crate) fn passes_query(&self) -> bool {
        self.passes_query
    }

    /// The hook that decides an action of a client.
    pub(crate) fn find(&self, subject: &Subject<'_>) -> Option<&Arc<Hook>> {
        let action = subject.action();
        let mut rows = self.rows.iter();
        let row =
            rows.find(|row| row.hook.spec.actions.contains(&action) && self.is_about(row, action, subject));
        row.map(|row| &row.hook)
    }

    fn is_about(&self, row: &Row, action: HookAction, subject: &Subject<'_>) -> bool {
        let patterns = match (action.is_on_channel(), action.is_on_procedure()) {
            (true, _) => &row.channels,
            (false, true) => &row.procedures,
            (false, false) => return true,
        };
        let is_about = |name: &[u8]| {
            if let (Subject::SubscribeFilter { .. }, Ok(filter)) = (subject, std::str::from_utf8(name)) {
                let mut patterns = patterns.iter();
                return patterns.any(|pattern| filter_meets(filter, pattern, self.separator));
            }
            let (first, mut patterns) = (first_bytes(name), patterns.iter());
            patterns.any(|pattern| pattern.matches(name, first, self.separator, &[]))
        };
        let name = subject.name();
        // A client that may not subscribe to a channel may not watch its members either.
        let watched = name.strip_prefix(PRESENCE_PREFIX.as_bytes());
        is_about(name) || (action == HookAction::Subscribe && watched.is_some_and(is_about))
    }

    /// Asks a hook. If too many questions are open, decides as if its target were away.
    pub(crate) fn ask(&self, hook: &Arc<Hook>, subject: &Subject<'_>, peer: &mut Peer<'_>) -> Asked {
        let claims = peer.claims().map_or(0, |claims| claims.json().len());
        let bytes = subject.bytes(&hook.spec) + claims;
        if let Some((asking, place)) = self.room_for(hook, bytes) {
            let question = Question::of(subject, peer, &hook.spec);
            let (refusal, decision) = peer.defer_decision();
            let open = Open {
                hook: Arc::clone(hook),
                question,
                decision: Some(decision),
                place,
            };
            if asking.take(open) {
                return Asked::Deferred(refusal);
            }
            // No session waits for the dropped decision.
        }
        hook.count_busy();
        Asked::Decided(Hooks::unasked(hook))
    }

    fn room_for(&self, hook: &Arc<Hook>, bytes: usize) -> Option<(&Asking, OpenQuestion)> {
        let asking = self.asking.as_ref().filter(|asking| asking.has_room())?;
        Some((asking, hook.take_in(bytes)?))
    }

    /// Prepares a question to the service of a hook: the JSON for the service, and a closure for its answer.
    /// `None` if too many questions are open.
    pub(crate) fn question_to_service(
        hook: &Arc<Hook>,
        subject: &Subject<'_>,
        peer: &mut Peer<'_>,
    ) -> Option<(Refusal, Vec<u8>, ServiceReply)> {
        let claims = peer.claims().map_or(0, |claims| claims.json().len());
        let bytes = subject.bytes(&hook.spec) + claims;
        let Some(place) = hook.take_in(bytes) else {
            hook.count_busy();
            return None;
        };
        let question = Question::of(subject, peer, &hook.spec);
        let (refusal, decision) = peer.defer_decision();
        let id = format!("{}-{}", peer.id(), hook.next_number());
        let json = question.json(&id, &hook.spec, &question.passed(&hook.spec));
        let (hook, action) = (Arc::clone(hook), subject.action());
        let reply = ServiceReply::new(move |answer| {
            // If the core has no room for the decision, the deadline of decisions refuses the client.
            let _ = match (hook.answer_of_service(action, answer), hook.spec.when_away) {
                (Some(Ok(reply)), _) => decision.decide(move |peer| reply.apply(peer)),
                (Some(Err(error)), _) => decision.refuse(error),
                (None, WhenAway::Allow) => decision.allow(),
                (None, WhenAway::Refuse) => decision.refuse(unavailable()),
            };
            drop(place);
        });
        Some((refusal, json, reply))
    }

    /// The decision of a hook that was not asked, since too many questions are open.
    pub(crate) fn unasked(hook: &Hook) -> Result<AllowedPublish, Refusal> {
        match hook.spec.when_away {
            WhenAway::Allow => Ok(AllowedPublish::as_sent()),
            WhenAway::Refuse => Err(unavailable().into()),
        }
    }

    /// Tells a hook that a client has disconnected, if one wants to know. Returns false if too many questions are open.
    pub(crate) fn tell_disconnected(&self, client: &Client<'_>, reason: CloseReason) -> bool {
        let Some(hook) = self.find(&Subject::Disconnect) else {
            return true;
        };
        let is_taken = self.room_for(hook, 0).is_some_and(|(asking, place)| {
            asking.take(Open {
                hook: Arc::clone(hook),
                question: Question::of_disconnect(reason, client),
                decision: None,
                place,
            })
        });
        if !is_taken {
            hook.count_busy();
        }
        is_taken
    }
}

impl Row {
    /// `of_system` is TLS by the authorities of this machine, once it was needed.
    fn compile(
        spec: &HookSpec,
        separator: u8,
        before: Option<&Hooks>,
        of_system: &mut Option<TlsConnector>,
    ) -> Result<Row, String> {
        let patterns = |key: &str, texts: &[String]| {
            let patterns: Result<Vec<Pattern>, String> =
                texts.iter().map(|text| pattern(text, separator)).collect();
            patterns.map(Arc::from).map_err(|fault| format!("{key}: {fault}"))
        };
        let channels = patterns("channels", &spec.channels)?;
        let procedures = patterns("procedures", &spec.procedures)?;
        let named = |key: &str, file: &Path, fault: &dyn std::fmt::Display| {
            format!("{key}: {}: {fault}", file.display())
        };
        let secrets = match &spec.secret_file {
            None => None,
            Some(file) => Some(
                text_file::read(file, SECRET_BYTES_MAX)
                    .map_err(|error| named("secret_file", file, &error))
                    .and_then(|text| {
                        Signer::of_lines(&text).map_err(|error| named("secret_file", file, &error))
                    })?,
            ),
        };
        let authorities = match &spec.ca_file {
            None => None,
            Some(file) => Some(text_file::read_pem(file).map_err(|error| named("ca_file", file, &error))?),
        };
        // The signature of nothing tells one set of secrets from another, and shows none.
        let mut content = secrets
            .as_ref()
            .map(|signer| signer.sign(0, b""))
            .unwrap_or_default()
            .into_bytes();
        content.push(0);
        content.extend_from_slice(authorities.as_deref().unwrap_or_default());
        let mut files = [0; 32];
        files.copy_from_slice(digest(&SHA256, &content).as_ref());
        let row = |hook: Arc<Hook>| Row {
            hook,
            channels,
            procedures,
            files,
        };
        let mut rows = before.into_iter().flat_map(|before| &before.rows);
        let same_name = rows.find(|row| row.hook.spec.name == spec.name);
        if let Some(same) =
            same_name.filter(|same| same.files == files && says_the_same(&same.hook.spec, spec))
        {
            return Ok(row(Arc::clone(&same.hook)));
        }
        let metrics = same_name.map_or_else(Arc::<HookMetrics>::default, |same| {
            Arc::clone(same.hook.metrics())
        });
        if spec.service.is_some() {
            return Ok(row(Arc::new(Hook::new(spec.clone(), None, metrics))));
        }
        let tls = match (&spec.ca_file, authorities) {
            (Some(file), Some(pem)) => {
                Some(tls_of_authority(&pem).map_err(|error| named("ca_file", file, &error))?)
            }
            (_, _) if spec.url.is_secure() => {
                if of_system.is_none() {
                    *of_system = Some(tls_of_system().map_err(|error| format!("url: {error}"))?);
                }
                of_system.clone()
            }
            (_, _) => None,
        };
        let target = Target::new(TargetSettings {
            url: spec.url.expose().to_owned(),
            tls,
            link_local: match spec.link_local {
                true => LinkLocal::Allowed,
                false => LinkLocal::Refused,
            },
            signer: secrets,
            answer_bytes_max: ANSWER_BYTES_MAX,
            idle_max: spec.concurrency as usize,
        });
        let target = target.map_err(|error| format!("url: {error}"))?;
        Ok(row(Arc::new(Hook::new(spec.clone(), Some(target), metrics))))
    }
}

fn says_the_same(one: &HookSpec, other: &HookSpec) -> bool {
    let said = |spec: &HookSpec| HookSpec {
        file: None,
        line: 0,
        ..spec.clone()
    };
    said(one) == said(other)
}

fn pattern(text: &str, separator: u8) -> Result<Pattern, String> {
    let mut claims = Vec::new();
    let pattern = Pattern::compile(text, separator, &mut claims)?;
    match claims.first() {
        Some(claim) => Err(format!(
            "{text:?}: a hook is asked about every client, so that {{{claim}}} has no value: write * for any one segment"
        )),
        None => Ok(pattern),
    }
}

fn fault_of(index: usize, spec: &HookSpec, fault: String) -> ListFault {
    ListFault {
        list: "hooks",
        number: index + 1,
        file: spec.file.clone(),
        line: spec.line,
        fault,
    }
}

/// The name of the header with cookies, of which only chosen ones are passed on.
pub(crate) const COOKIES: &str = COOKIE;
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, actions: &[HookAction], channels: &[&str]) -> HookSpec {
        let channels: Vec<String> = channels.iter().map(|name| (*name).to_owned()).collect();
        HookSpec {
            actions: actions.to_vec(),
            procedures: channels.clone(),
            channels,
            concurrency: 1,
            waiting_max: 1,
            waiting_bytes_max: 10,
            ..HookSpec::new(name, "http://127.0.0.1:1/")
        }
    }

    fn compile(specs: &[HookSpec], separator: u8, before: Option<&Hooks>) -> Arc<Hooks> {
        Hooks::compile(specs, separator, before).unwrap().unwrap()
    }

    fn found<'a>(hooks: &'a Hooks, subject: Subject<'_>) -> &'a str {
        hooks.find(&subject).map_or("", |hook| hook.name())
    }

    #[test]
    fn the_first_hook_with_the_action_and_a_pattern_decides() {
        let hooks = compile(
            &[
                spec("exact", &[HookAction::Publish], &["room.a"]),
                spec("rooms", &[HookAction::Publish, HookAction::Invoke], &["room.**"]),
                spec("all", &[HookAction::Connect, HookAction::Transmit], &["**"]),
            ],
            b'.',
            None,
        );
        let publish = |channel| Subject::Publish { channel, data: None };
        assert_eq!(found(&hooks, publish(b"room.a")), "exact");
        assert_eq!(found(&hooks, publish(b"room.b.c")), "rooms");
        assert_eq!(found(&hooks, publish(b"other")), "");
        let invoke = |procedure| Subject::Invoke {
            procedure,
            data: None,
        };
        assert_eq!(
            (found(&hooks, invoke(b"room.a")), found(&hooks, invoke(b"x"))),
            ("rooms", "")
        );
        assert_eq!(
            found(
                &hooks,
                Subject::Transmit {
                    event: b"x",
                    data: None
                }
            ),
            "all"
        );
        assert_eq!(found(&hooks, Subject::Connect(None)), "all");
        assert_eq!(found(&hooks, Subject::Authenticate), "");
        assert!(Hooks::compile(&[], b'.', None).unwrap().is_none());
    }

    #[test]
    fn no_filter_of_mqtt_leads_past_a_hook() {
        let hooks = compile(
            &[spec("rooms", &[HookAction::Subscribe], &["room/*/x"])],
            b'/',
            None,
        );
        for (filter, expected) in [
            ("room/1/x", "rooms"),
            ("#", "rooms"),
            ("+/1/x", "rooms"),
            ("room/#", "rooms"),
            ("room/+/x", "rooms"),
            ("room/+/y", ""),
            ("other/#", ""),
            ("$presence/room/1/x", "rooms"),
            ("$presence/#", "rooms"),
            ("room/1", ""),
        ] {
            assert_eq!(
                found(&hooks, Subject::SubscribeFilter { filter }),
                expected,
                "{filter}"
            );
        }
    }

    #[test]
    fn a_hook_that_says_the_same_keeps_its_state_and_another_one_its_counts() {
        let first = compile(
            &[
                spec("a", &[HookAction::Connect], &[]),
                spec("b", &[HookAction::Connect], &[]),
            ],
            b'.',
            None,
        );
        let mut other = spec("a", &[HookAction::Connect], &[]);
        other.concurrency = 2;
        let mut moved = spec("b", &[HookAction::Connect], &[]);
        moved.line = 7;
        let second = compile(&[moved, other], b'.', Some(&first));
        let (before, after): (Vec<_>, Vec<_>) = (first.iter().collect(), second.iter().collect());
        assert!(std::ptr::eq(before[1], after[0]) && !std::ptr::eq(before[0], after[1]));
        assert!(Arc::ptr_eq(before[0].metrics(), after[1].metrics()));
    }

    #[test]
    fn a_place_is_free_again_when_its_question_ends() {
        let hooks = compile(&[spec("a", &[HookAction::Connect], &[])], b'.', None);
        let hook = &hooks.rows[0].hook;
        let first = hook.take_in(100).unwrap();
        assert!(hook.take_in(1).is_none(), "too many bytes");
        drop(first);
        let places = [hook.take_in(5).unwrap(), hook.take_in(5).unwrap()];
        assert!(hook.take_in(0).is_none(), "too many questions");
        assert_eq!(hook.open(), 2);
        drop(places);
        assert_eq!(hook.open(), 0);
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_is_a_fault_of_its_line() {
        let mut missing = spec("a", &[HookAction::Connect], &[]);
        (missing.secret_file, missing.line) = (Some("/nowhere/secret".into()), 3);
        let claim = spec("b", &[HookAction::Publish], &["user.{sub}"]);
        let faults = Hooks::faults(&[missing, claim], b'.');
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(
            faults[0].contains("line 3") && faults[0].contains("secret_file: /nowhere/secret: "),
            "{faults:?}"
        );
        assert!(
            faults[1].contains("number 2") && faults[1].contains("channels: \"user.{sub}\""),
            "{faults:?}"
        );
    }
}
