//! `ringcast rules`: evaluates the rules of a configuration, without a server.
//!
//! `rules list` writes the rules in order. `rules test ACTION NAME` evaluates them for one action, and tells
//! which rule decides and why the rules before it do not. The exit code is 0 if the action is allowed and 1
//! if not.

use std::ffi::OsString;
use std::io::Write;

use super::CliError;
use crate::auth::Claims;
use crate::auth::rules::{Explanation, Reason, RuleVerdict, Rules};
use crate::clock::Clock;
use crate::config::load::ConfigSources;
use crate::config::rules::{Action, Audience, Effect, RuleSpec};
use crate::policy::{KeySource, Policy};
use crate::services::Pattern;

/// The arguments of the command.
#[derive(Debug, Default)]
pub(super) struct RulesArguments {
    /// `list`, or `test` with the action and the name.
    words: Vec<String>,
    /// A token that is checked with the configured keys.
    pub(super) token: Option<String>,
    /// Claims of a token, which need no signature.
    pub(super) claims: Option<String>,
}

impl RulesArguments {
    /// Adds a word that follows the command's name.
    pub(super) fn push(&mut self, word: OsString) -> Result<(), CliError> {
        let word = word
            .into_string()
            .map_err(|word| CliError::Usage(format!("{} is not UTF-8", word.display())))?;
        self.words.push(word);
        Ok(())
    }
}

/// Lists or tests the rules; returns the exit code.
pub(super) fn rules(
    sources: &ConfigSources,
    arguments: &RulesArguments,
    out: &mut impl Write,
) -> Result<u8, CliError> {
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    let question = match words[..] {
        ["list"] => None,
        ["test", action, name] => Some((action_named(action)?, name)),
        _ => return Err(CliError::Usage(USAGE.to_owned())),
    };
    let mut config = sources.load()?.config;
    // The password file has no influence on rules, and the user of this command may not be allowed to read it.
    config.login.password_file = None;
    let policy = Policy::open(&config)?;
    let Some((action, name)) = question else {
        list(&policy.rules, out)?;
        return Ok(0);
    };
    let claims = claims(arguments, &policy)?;
    test(&policy.rules, action, name, claims.as_ref(), out)
}

fn action_named(word: &str) -> Result<Action, CliError> {
    Action::named(word).ok_or_else(|| {
        CliError::Usage(format!(
            "{word:?} is not an action; actions are {}",
            Action::LABELS.join(", ")
        ))
    })
}

/// The claims of the client that the test is about; `None` for a client without a token.
fn claims(arguments: &RulesArguments, policy: &Policy) -> Result<Option<Claims>, CliError> {
    let claims = match (&arguments.token, &arguments.claims) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(
                "--token and --claims exclude each other: the token contains its claims".to_owned(),
            ));
        }
        (None, Some(claims)) => {
            let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(claims);
            is_object.map_err(|error| CliError::Usage(format!("--claims is not a JSON object: {error}")))?;
            Claims::trusted(claims.to_owned(), None)
        }
        (Some(_), None) if matches!(policy.keys, KeySource::Random(_)) => {
            return Err(CliError::Unusable(
                "no key is configured, so that no token can be checked: set auth_key, or auth_public_key_file, to that \
                 of the server, or give --claims"
                    .to_owned(),
            ));
        }
        (Some(token), None) => policy
            .tokens
            .verify(token, Clock::begin().now().unix_ms)
            .map_err(|error| {
                let mut json = Vec::new();
                error.write_json(&mut json);
                CliError::Token(String::from_utf8_lossy(&json).into_owned())
            })?,
    };
    // As in the server: payloads such as `0` and `false` do not authenticate a client.
    Ok(Some(claims).filter(Claims::is_truthy))
}

fn test(
    rules: &Rules,
    action: Action,
    name: &str,
    claims: Option<&Claims>,
    out: &mut impl Write,
) -> Result<u8, CliError> {
    let whose = if claims.is_some() {
        "an authenticated client"
    } else {
        "a client without a token"
    };
    writeln!(out, "{} {name:?} of {whose}", action.word())?;
    let is_prefix = action == Action::Serve && name.ends_with('*');
    if action == Action::Serve && Pattern::parse(name.as_bytes()).is_none() {
        writeln!(
            out,
            "no client serves this name: a service registers a name, or a prefix with a final *, of at most 256 bytes, that \
             does not begin with # or $"
        )?;
        writeln!(out, "denied")?;
        return Ok(1);
    }
    let [enforced, shadow] = rules.explain(action, name, claims);
    let allowed = match &enforced {
        None if action == Action::Serve => {
            writeln!(out, "there are no rules: no client can serve anything")?;
            false
        }
        None => {
            writeln!(out, "there are no rules: everything is allowed")?;
            true
        }
        Some(explanation) => {
            explain(("rules", is_prefix), explanation, action, out)?;
            explanation.verdict.allowed
        }
    };
    if let Some(explanation) = &shadow {
        explain(("shadow_rules", is_prefix), explanation, action, out)?;
    }
    writeln!(out, "{}", if allowed { "allowed" } else { "denied" })?;
    Ok(u8::from(!allowed))
}

fn explain(
    (list, is_prefix): (&str, bool),
    explanation: &Explanation<'_>,
    action: Action,
    out: &mut impl Write,
) -> Result<(), CliError> {
    writeln!(out, "{list}:")?;
    for (index, (spec, reason)) in explanation.steps.iter().enumerate() {
        let text = match reason {
            Reason::Action => format!("does not match: the rule is not about {}", action.word()),
            Reason::Audience(audience) => {
                format!("does not match: the rule is only about {}", audience.join(", "))
            }
            Reason::Name(patterns) if is_prefix => {
                let patterns = patterns.join(", ");
                match spec.effect {
                    Effect::Allow => {
                        format!("does not match: none of {patterns} covers all names that begin like this")
                    }
                    Effect::Deny => {
                        format!("does not match: no name that begins like this matches {patterns}")
                    }
                }
            }
            Reason::Name(patterns) => {
                format!("does not match: the name matches none of {}", patterns.join(", "))
            }
            Reason::Decides(None) => "decides: the rule is about every name".to_owned(),
            Reason::Decides(Some(pattern)) if is_prefix => match spec.effect {
                Effect::Allow => format!("decides: {pattern} covers all names that begin like this"),
                Effect::Deny => format!("decides: names that begin like this may match {pattern}"),
            },
            Reason::Decides(Some(pattern)) => format!("decides: the name matches {pattern}"),
        };
        writeln!(out, "  {}: {text}", heading(index, spec))?;
    }
    let RuleVerdict { allowed, rule } = explanation.verdict;
    let verdict = if allowed { "allowed" } else { "denied" };
    match rule {
        Some(rule) => writeln!(out, "  {verdict} by number {rule}")?,
        None => writeln!(
            out,
            "  {verdict}: no rule matches, and actions that no rule allows are denied"
        )?,
    }
    Ok(())
}

fn list(rules: &Rules, out: &mut impl Write) -> Result<(), CliError> {
    for (list, specs) in ["rules", "shadow_rules"].into_iter().zip(rules.specs()) {
        if specs.is_empty() {
            let meaning = if list == "rules" {
                "none, everything is allowed"
            } else {
                "none"
            };
            writeln!(out, "{list}: {meaning}")?;
            continue;
        }
        writeln!(out, "{list}:")?;
        for (index, spec) in specs.iter().enumerate() {
            let audience: Vec<String> = spec.to.iter().map(Audience::to_string).collect();
            writeln!(out, "  {} to {}", heading(index, spec), audience.join(", "))?;
        }
        writeln!(out, "  else deny")?;
    }
    Ok(())
}

/// A rule in short form: `2 (line 17): allow subscribe, publish on room.*`
fn heading(index: usize, spec: &RuleSpec) -> String {
    let actions: Vec<&str> = spec.actions.iter().map(|action| action.word()).collect();
    let line = match spec.line {
        0 => String::new(),
        line => format!(" (line {line})"),
    };
    let names: Vec<&str> = spec
        .channels
        .iter()
        .chain(&spec.procedures)
        .flatten()
        .map(String::as_str)
        .collect();
    let on = if names.is_empty() {
        String::new()
    } else {
        format!(" on {}", names.join(", "))
    };
    format!(
        "{}{line}: {} {}{on}",
        index + 1,
        spec.effect.word(),
        actions.join(", ")
    )
}

const USAGE: &str = "expected rules list, or rules test [--token T | --claims JSON] ACTION NAME, with the action subscribe, publish, invoke, transmit, history or presence";
