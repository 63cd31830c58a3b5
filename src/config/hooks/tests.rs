//! Hooks of a file, good and bad.

use std::time::Duration;

use super::*;
use crate::config::ConfigSources;

/// The hooks of a file with this text, or its error.
fn hooks(text: &str) -> Result<Vec<HookSpec>, String> {
    let directory = std::env::temp_dir().join(format!(
        "ringcast-hooks-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("ringcast.toml");
    std::fs::write(&file, text).unwrap();
    let flag = ("config".to_owned(), file.to_str().unwrap().to_owned());
    let loaded = ConfigSources::new(vec![flag], []).load();
    std::fs::remove_dir_all(&directory).unwrap();
    match loaded {
        Ok(loaded) => Ok(loaded.config.hooks),
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let place = format!("{}: ", file.display());
            Err(lines.join("\n").replace(&place, ""))
        }
    }
}

/// A hook with these lines besides those that every hook needs.
fn with(lines: &str) -> String {
    format!("[[hooks]]\nname = \"a\"\nurl = \"http://127.0.0.1:1/\"\n{lines}")
}

#[test]
fn a_hook_has_the_values_of_its_entry_and_defaults_for_the_rest() {
    let hook = hooks(&with("actions = \"connect\"")).unwrap().remove(0);
    assert_eq!(hook.actions, [HookAction::Connect]);
    assert_eq!(
        (hook.timeout, hook.when_away),
        (Duration::from_secs(3), WhenAway::Refuse)
    );
    assert_eq!((hook.concurrency, hook.line), (64, 1));
    let hook = hooks(&with(
        "actions = [\"publish\", \"invoke\"]\nchannels = \"a\"\nprocedures = [\"b.*\"]\nwhen_away = \"allow\"\n\
         cache_ms = 5\ncache_by = [\"claims\", \"data\"]\nheaders = [\"X-Tag\"]\ncookies = \"s\"\nquery = true\n\
         data = false\nsecret_file = \"s\"\nca_file = \"c\"\nlink_local = true",
    ));
    let hook = hook.unwrap().remove(0);
    assert_eq!(hook.actions, [HookAction::Publish, HookAction::Invoke]);
    assert_eq!(hook.cache_by, [CacheBy::Claims, CacheBy::Data]);
    assert_eq!((&*hook.headers[0], &*hook.cookies[0]), ("x-tag", "s"));
    assert!(hook.query && !hook.data && hook.link_local && hook.when_away == WhenAway::Allow);
}

#[test]
fn what_is_wrong_with_a_hook_is_named_with_its_line() {
    for (lines, expected) in [
        ("", "line 1: hooks number 1: actions is missing"),
        (
            "actions = \"conect\"",
            "line 4: hooks number 1: actions: \"conect\" is not an action; did you mean connect?",
        ),
        (
            "actions = \"publish\"",
            "line 4: hooks number 1: channels are missing: publish is an action on channels; say which, or channels = \
             [\"**\"] for all",
        ),
        (
            "actions = \"connect\"\nprocedures = \"a\"",
            "line 5: hooks number 1: procedures are named, but no action is one on procedures",
        ),
        (
            "actions = \"connect\"\ncache_ms = 1",
            "line 5: hooks number 1: cache_by is missing: say what answers depend on: everybody, connection, claims, \
             request, data, mqtt",
        ),
        (
            "actions = \"connect\"\ncache_by = \"claims\"",
            "line 5: hooks number 1: cache_by is said, but no answer is kept: set cache_ms, or remove cache_by",
        ),
        (
            "actions = \"connect\"\ncache_ms = 1\ncache_by = [\"everybody\", \"data\"]",
            "line 6: hooks number 1: cache_by: everybody cannot stand beside others",
        ),
        (
            "actions = \"connect\"\ncookies = \"s\"\ncache_ms = 1\ncache_by = \"claims\"",
            "line 7: hooks number 1: cache_by: request is missing: connect passes it on, and a client would get the answer \
             that was meant for another",
        ),
        (
            "actions = \"connect\"\nheaders = [\"a: b\\r\\nx\"]",
            "line 5: hooks number 1: headers: \"a: b\\r\\nx\" is none of names of headers",
        ),
        (
            "actions = \"connect\"\nwhen_away = \"alow\"",
            "line 5: hooks number 1: when_away: found \"alow\", expected refuse or allow",
        ),
        (
            "actions = \"connect\"\ntimeout = 1",
            "line 5: hooks number 1: timeout is not known; did you mean timeout_ms?",
        ),
        (
            "actions = \"connect\"\nbatch_max = 2",
            "line 5: hooks number 1: batch_max: only publish is asked about in batches, and it is not among the actions",
        ),
        (
            "actions = \"publish\"\nchannels = \"a\"\nbatch_wait_ms = 2",
            "line 6: hooks number 1: batch_wait_ms is said, but each question has a request of its own: set batch_max, or \
             remove batch_wait_ms",
        ),
        (
            "actions = \"publish\"\nchannels = \"a\"\nbatch_max = 2\ntimeout_ms = 100\nbatch_wait_ms = 51",
            "line 8: hooks number 1: batch_wait_ms is more than half of timeout_ms, which includes it",
        ),
        (
            "actions = \"connect\"\nconcurrency = 0",
            "line 5: hooks number 1: concurrency: found 0, expected a whole number from 1 to 10000",
        ),
    ] {
        assert_eq!(hooks(&with(lines)), Err(expected.to_owned()), "{lines}");
    }
    for (lines, expected) in [
        ("service = \"policy\"\n", Ok(Some("policy"))),
        (
            "service = \"policy*\"\n",
            Err("service: expected the name of a procedure"),
        ),
        (
            "service = \"policy\"\nurl = \"http://127.0.0.1:1/\"\n",
            Err("url belongs to a URL"),
        ),
        (
            "service = \"policy\"\ncache_ms = 5\n",
            Err("cache_ms belongs to a URL"),
        ),
        (
            "service = \"policy\"\nbatch_max = 2\n",
            Err("batch_max belongs to a URL"),
        ),
        ("", Err("url is missing")),
    ] {
        let text = format!("[[hooks]]\nname = \"a\"\nactions = \"connect\"\n{lines}");
        match (hooks(&text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found[0].service.as_deref(), expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
    let told = "[[hooks]]\nname = \"a\"\nactions = \"disconnect\"\nservice = \"policy\"\n";
    assert!(
        hooks(told)
            .unwrap_err()
            .contains("cannot have the action disconnect")
    );
    let bad_url = "[[hooks]]\nname = \"a\"\nactions = \"connect\"\nurl = \"https://me:pass@x/\"";
    let refused = hooks(bad_url).unwrap_err();
    assert!(refused.starts_with("line 4: hooks number 1: url: expected") && !refused.contains("pass"));
    let twice = with("actions = \"connect\"\n").repeat(2);
    assert_eq!(
        hooks(&twice),
        Err("line 5: hooks number 2: name: another hook above is named \"a\", too".to_owned())
    );
}

#[test]
fn a_deadline_beyond_that_of_decisions_is_a_fault() {
    let text = |ms| {
        format!(
            "limits.decision_timeout_ms = 2000\n{}timeout_ms = {ms}\n",
            with("actions = \"connect\"\n")
        )
    };
    assert!(hooks(&text(1999)).is_ok());
    let refused = hooks(&text(2000)).unwrap_err();
    assert!(refused.contains("decision_timeout_ms"), "{refused}");
}
