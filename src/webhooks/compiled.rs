//! The webhooks in force: patterns are compiled, secrets and certificate authorities are read.
//!
//! All cores share them with the policy. Most servers have none, so the first question of a core is one comparison.

use std::path::Path;
use std::sync::Arc;

use super::intake::Intake;
use crate::auth::rules::{Pattern, RecentNames, first_bytes};
use crate::config::secret::Secret;
use crate::config::webhooks::{WebhookEvent, WebhookSpec};
use crate::config::{Config, ListFault, text_file};
use crate::targets::{Signer, tls_of_authority};

/// The webhooks in force.
#[derive(Debug, Default)]
pub struct Webhooks {
    version: u32,
    hooks: Vec<Arc<Webhook>>,
    /// The events that some webhook wants, as bits by [`WebhookEvent::index`].
    events: u16,
    /// The events on their way to the dispatcher. It exists from the first webhook on, and outlives reloads.
    intake: Option<Arc<Intake>>,
}

/// One webhook.
#[derive(Debug)]
pub struct Webhook {
    /// The entry of the configuration.
    pub(crate) spec: WebhookSpec,
    events: u16,
    patterns: Box<[NamePattern]>,
    separator: u8,
    /// Signs requests, if they are signed.
    pub(crate) signer: Option<Signer>,
    /// The text of `secret_file`, to see whether it has changed.
    secrets: Option<Secret>,
    /// The content of `ca_file`.
    pub(crate) authority: Option<Vec<u8>>,
}

#[derive(Debug)]
struct NamePattern {
    pattern: Pattern,
    /// Whether the pattern itself begins with `$`, so that it can match names that do.
    is_reserved: bool,
}

/// Answers about the names that a core has seen last. Owns no memory before the first.
pub(crate) type RecentAnswers = RecentNames<bool, 16>;

const _: () = assert!(WebhookEvent::COUNT <= 16, "events are bits of a u16");

impl Webhooks {
    /// Compiles webhooks and reads their files. If nothing about them differs from `before`, `before` is returned.
    ///
    /// # Errors
    /// Names the first webhook with a fault.
    pub fn compile(
        config: &Config,
        separator: u8,
        before: Option<&Arc<Webhooks>>,
    ) -> Result<Arc<Webhooks>, ListFault> {
        let mut hooks: Vec<Arc<Webhook>> = Vec::with_capacity(config.webhooks.len());
        for (index, spec) in config.webhooks.iter().enumerate() {
            if hooks.iter().any(|hook| hook.spec.name == spec.name) {
                let fault = format!("name: {:?} is the name of another webhook", spec.name);
                return Err(fault_of(index, spec, fault));
            }
            let hook = Webhook::compile(spec, separator).map_err(|fault| fault_of(index, spec, fault))?;
            let same = before.and_then(|before| before.hooks.iter().find(|former| ***former == hook));
            hooks.push(same.cloned().unwrap_or_else(|| Arc::new(hook)));
        }
        let no_webhooks = Arc::default();
        let before = before.unwrap_or(&no_webhooks);
        let is_same = before.hooks.len() == hooks.len()
            && before
                .hooks
                .iter()
                .zip(&hooks)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        if is_same {
            return Ok(Arc::clone(before));
        }
        let intake = before.intake.clone().or_else(|| {
            let limits = &config.limits;
            let intake = Intake::new(limits.webhook_events_waiting_max, limits.webhook_bytes_max);
            (!hooks.is_empty()).then(|| Arc::new(intake))
        });
        Ok(Arc::new(Webhooks {
            version: before.version.wrapping_add(1),
            events: hooks.iter().fold(0, |events, hook| events | hook.events),
            hooks,
            intake,
        }))
    }

    /// The faults of all webhooks; [`Webhooks::compile`] stops at the first one.
    pub fn faults(config: &Config, separator: u8) -> Vec<ListFault> {
        let specs = config.webhooks.iter().enumerate();
        let faults = specs.filter_map(|(index, spec)| {
            let is_double = config.webhooks[..index]
                .iter()
                .any(|other| other.name == spec.name);
            let double = is_double.then(|| format!("name: {:?} is the name of another webhook", spec.name));
            let fault = double.or_else(|| Webhook::compile(spec, separator).err())?;
            Some(fault_of(index, spec, fault))
        });
        faults.collect()
    }

    /// Warnings about probable mistakes.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for hook in &self.hooks {
            let name = &hook.spec.name;
            if hook.signer.is_none() {
                warnings.push(format!(
                    "webhooks: {name}: requests are not signed, so that anybody who knows the URL can send it events: set \
                     secret_file"
                ));
            }
            if hook.spec.url.is_readable() {
                warnings.push(format!(
                    "webhooks: {name}: url is not https: an attacker on the network can read all events"
                ));
            }
        }
        warnings
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// The number of this set: a reload that changes a webhook makes it another one.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The webhooks, in the order of the file.
    pub fn hooks(&self) -> &[Arc<Webhook>] {
        &self.hooks
    }

    /// The events on their way to the dispatcher; `None` if there has never been a webhook.
    pub fn intake(&self) -> Option<&Arc<Intake>> {
        self.intake.as_ref()
    }

    /// Whether some webhook wants such events.
    #[inline]
    pub fn wants(&self, event: WebhookEvent) -> bool {
        self.events & bit(event) != 0
    }

    /// Whether some webhook wants such events about the channel with this name, in WTF-8.
    pub fn wants_on(&self, event: WebhookEvent, name: &[u8]) -> bool {
        self.wants(event) && self.hooks.iter().any(|hook| hook.wants_on(event, name))
    }

    /// As [`Webhooks::wants_on`], for names that are often asked about. `recent` is asked about `event` alone.
    pub(crate) fn wants_on_recent(
        &self,
        event: WebhookEvent,
        name: &[u8],
        recent: &mut RecentAnswers,
    ) -> bool {
        recent.recall(self.version, name).unwrap_or_else(|| {
            let answer = self.wants_on(event, name);
            recent.remember(self.version, name, answer);
            answer
        })
    }

    /// Whether some webhook wants events about occupied and vacated channels.
    pub fn watches_channels(&self) -> bool {
        self.wants(WebhookEvent::ChannelOccupied) || self.wants(WebhookEvent::ChannelVacated)
    }

    /// Whether some webhook wants events about this channel when it is occupied or vacated.
    pub fn watches_channel(&self, name: &[u8]) -> bool {
        self.hooks.iter().any(|hook| hook.watches_channel(name))
    }
}

impl Webhook {
    fn compile(spec: &WebhookSpec, separator: u8) -> Result<Webhook, String> {
        let patterns = spec
            .channels
            .iter()
            .map(|text| NamePattern::compile(text, separator));
        let secrets = match &spec.secret_file {
            Some(file) => Some(read_secrets(file)?),
            None => None,
        };
        let authority = match &spec.ca_file {
            Some(file) => {
                let read = text_file::read_pem(file).map_err(|error| error.to_string());
                let checked = read.and_then(|pem| {
                    tls_of_authority(&pem)
                        .map(|_| pem)
                        .map_err(|error| error.to_string())
                });
                Some(checked.map_err(|error| format!("ca_file: {}: {error}", file.display()))?)
            }
            None => None,
        };
        let (secrets, signer) = secrets.unzip();
        Ok(Webhook {
            events: spec.events.iter().fold(0, |events, event| events | bit(*event)),
            patterns: patterns.collect::<Result<_, _>>()?,
            separator,
            signer,
            secrets,
            authority,
            spec: spec.clone(),
        })
    }

    /// Whether it wants such events.
    pub fn wants(&self, event: WebhookEvent) -> bool {
        self.events & bit(event) != 0
    }

    /// Whether it wants such events about the channel with this name, in WTF-8.
    pub fn wants_on(&self, event: WebhookEvent, name: &[u8]) -> bool {
        self.wants(event) && self.names(name)
    }

    /// Whether it wants events about this channel when it is occupied or vacated.
    pub fn watches_channel(&self, name: &[u8]) -> bool {
        let watches = self.wants(WebhookEvent::ChannelOccupied) || self.wants(WebhookEvent::ChannelVacated);
        watches && self.names(name)
    }

    fn names(&self, name: &[u8]) -> bool {
        let is_reserved = name.first() == Some(&b'$');
        if self.patterns.is_empty() {
            return !is_reserved;
        }
        let first = first_bytes(name);
        self.patterns.iter().any(|entry| {
            entry.is_reserved == is_reserved && entry.pattern.matches(name, first, self.separator, &[])
        })
    }
}

impl PartialEq for Webhook {
    /// Whether a reload would change nothing.
    fn eq(&self, other: &Webhook) -> bool {
        let text = |hook: &Webhook| hook.secrets.as_ref().map(|secret| secret.expose().to_vec());
        let said = |hook: &Webhook| WebhookSpec {
            file: None,
            line: 0,
            ..hook.spec.clone()
        };
        said(self) == said(other)
            && self.separator == other.separator
            && text(self) == text(other)
            && self.authority == other.authority
    }
}

impl NamePattern {
    fn compile(text: &str, separator: u8) -> Result<NamePattern, String> {
        let mut claims = Vec::new();
        let pattern =
            Pattern::compile(text, separator, &mut claims).map_err(|fault| format!("channels: {fault}"))?;
        match claims.first() {
            Some(claim) => Err(format!(
                "channels: {text:?}: a webhook is about a channel and not about a client, so that {{{claim}}} has no value: \
                 write * for any one segment"
            )),
            None => Ok(NamePattern {
                pattern,
                is_reserved: text.starts_with('$'),
            }),
        }
    }
}

fn read_secrets(file: &Path) -> Result<(Secret, Signer), String> {
    let fault = |cause: &dyn std::fmt::Display| format!("secret_file: {}: {cause}", file.display());
    let text = text_file::read(file, text_file::SECRET_BYTES_MAX).map_err(|error| fault(&error))?;
    let signer = Signer::of_lines(&text).map_err(|error| fault(&error))?;
    Ok((Secret::new(text), signer))
}

const fn bit(event: WebhookEvent) -> u16 {
    1 << event.index()
}

fn fault_of(index: usize, spec: &WebhookSpec, fault: String) -> ListFault {
    ListFault {
        list: "webhooks",
        number: index + 1,
        file: spec.file.clone(),
        line: spec.line,
        fault,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::target_url::TargetUrl;

    pub(crate) fn hook(name: &str, events: &[WebhookEvent], channels: &[&str]) -> WebhookSpec {
        WebhookSpec {
            name: name.to_owned(),
            url: TargetUrl::new("http://127.0.0.1:9/"),
            events: events.to_vec(),
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
            ..WebhookSpec::default()
        }
    }

    pub(crate) fn compile(specs: &[WebhookSpec], before: Option<&Arc<Webhooks>>) -> Arc<Webhooks> {
        let config = Config {
            webhooks: specs.to_vec(),
            ..Config::default()
        };
        Webhooks::compile(&config, b'.', before).unwrap()
    }

    #[test]
    fn a_webhook_is_told_of_the_channels_that_it_names_and_of_reserved_ones_only_by_name() {
        use WebhookEvent::{ChannelOccupied, Connected, MemberJoined};
        let hooks = compile(
            &[
                hook("a", &[MemberJoined], &["room.*", "$presence.x"]),
                hook("b", &[Connected, ChannelOccupied], &[]),
            ],
            None,
        );
        for (event, name, expected) in [
            (MemberJoined, "room.1", true),
            (MemberJoined, "room.1.a", false),
            (MemberJoined, "$presence.x", true),
            (MemberJoined, "other", false),
            (ChannelOccupied, "other", true),
            (ChannelOccupied, "$presence.x", false),
            (WebhookEvent::ChannelVacated, "other", false),
        ] {
            assert_eq!(
                hooks.wants_on(event, name.as_bytes()),
                expected,
                "{event:?} {name}"
            );
        }
        assert!(hooks.wants(Connected) && !hooks.wants(WebhookEvent::LimitHit));
        assert!(
            hooks.watches_channels()
                && hooks.watches_channel(b"other")
                && !hooks.watches_channel(b"$presence.x")
        );
        let mut recent = RecentAnswers::default();
        for _ in 0..2 {
            assert!(hooks.wants_on_recent(MemberJoined, b"room.1", &mut recent));
            assert!(!hooks.wants_on_recent(MemberJoined, b"other", &mut recent));
        }
    }

    #[test]
    fn a_reload_keeps_unchanged_webhooks_and_the_intake() {
        let all = WebhookEvent::ALL;
        let first = compile(&[hook("a", &all, &["**"]), hook("b", &all, &["**"])], None);
        let mut moved = hook("a", &all, &["**"]);
        moved.line = 7;
        let same = compile(&[moved.clone(), hook("b", &all, &["**"])], Some(&first));
        assert!(Arc::ptr_eq(&first, &same));
        let other = compile(&[moved, hook("b", &all, &["x"])], Some(&first));
        assert!(
            Arc::ptr_eq(&first.hooks[0], &other.hooks[0]) && !Arc::ptr_eq(&first.hooks[1], &other.hooks[1])
        );
        assert_ne!(first.version(), other.version());
        let none = compile(&[], Some(&other));
        let again = compile(&[hook("c", &all, &["**"])], Some(&none));
        assert!(Arc::ptr_eq(first.intake().unwrap(), again.intake().unwrap()));
        assert!(compile(&[], None).intake().is_none());
    }

    #[test]
    fn faults_name_the_webhook_and_no_secret() {
        let folder = std::env::temp_dir().join(format!("ringcast-webhooks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let short = folder.join("short");
        std::fs::write(&short, "geheim").unwrap();
        let with = |change: &dyn Fn(&mut WebhookSpec)| {
            let mut spec = hook("a", &WebhookEvent::ALL, &["**"]);
            change(&mut spec);
            let config = Config {
                webhooks: vec![hook("z", &WebhookEvent::ALL, &["**"]), spec],
                ..Config::default()
            };
            let fault = Webhooks::compile(&config, b'.', None).unwrap_err();
            assert_eq!(Webhooks::faults(&config, b'.'), std::slice::from_ref(&fault));
            fault.to_string()
        };
        for (found, expected) in [
            (
                with(&|spec| spec.channels = vec!["a.**.b".to_owned()]),
                "webhooks number 2: channels: ",
            ),
            (
                with(&|spec| spec.channels = vec!["{sub}".to_owned()]),
                "so that {sub} has no value",
            ),
            (
                with(&|spec| spec.secret_file = Some(folder.join("none"))),
                "secret_file: ",
            ),
            (
                with(&|spec| spec.secret_file = Some(short.clone())),
                "shorter than",
            ),
            (with(&|spec| spec.ca_file = Some(short.clone())), "ca_file: "),
            (
                with(&|spec| spec.name = "z".to_owned()),
                "is the name of another webhook",
            ),
        ] {
            assert!(found.contains(expected) && !found.contains("geheim"), "{found}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_replaced_secret_is_a_change() {
        let file = std::env::temp_dir().join(format!("ringcast-webhook-secret-{}", std::process::id()));
        std::fs::write(&file, "0123456789abcdef").unwrap();
        let mut spec = hook("a", &WebhookEvent::ALL, &["**"]);
        spec.secret_file = Some(file.clone());
        let first = compile(std::slice::from_ref(&spec), None);
        assert!(first.warnings().is_empty());
        spec.url = TargetUrl::new("http://10.0.0.1/");
        let readable = compile(std::slice::from_ref(&spec), None).warnings();
        assert!(
            readable.len() == 1 && readable[0].contains("url is not https"),
            "{readable:?}"
        );
        spec.url = TargetUrl::new("http://127.0.0.1:9/");
        assert!(Arc::ptr_eq(
            &first,
            &compile(std::slice::from_ref(&spec), Some(&first))
        ));
        std::fs::write(&file, "0123456789abcdeg").unwrap();
        assert!(!Arc::ptr_eq(
            &first,
            &compile(std::slice::from_ref(&spec), Some(&first))
        ));
        assert!(!format!("{first:?}").contains("0123456789"));
        std::fs::remove_file(&file).unwrap();
    }
}
