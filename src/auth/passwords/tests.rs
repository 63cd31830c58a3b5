//! Tests of password files and hashes, with hashes of Mosquitto's and of another Argon2 implementation.

use proptest::prelude::*;

use super::hash::{Cost, DERIVED};
use super::*;
use crate::text::TextFaultKind;

/// Written by mosquitto_passwd 2.0.11 for the password `secret`, the second with `-H sha512`.
const MOSQUITTO: &str = "\
# users of the broker

alice:$7$101$gNPvbM5B/gkhgqKR$21jQeRWAjHYwGFWa+vBMmXqqX1A1F8SDcLre5NPqhkk9qOelLXp3mZFd+uBjlOrP1YoI/7mIv8E46hgSS2XRKg==
bob:$6$D6AppBC/BO8wBMlU$YEEk+fJMR6KTkv7WH89pRHneo3JnmGu4eCU4ku9RuoVDvJv7cvAwDqcGrIMsiqW4kfDa1HzVTf99IdpQ0AwO5w==
";

/// Made by argon2-cffi for `secret`: time_cost=1, memory_cost=8, parallelism=1, 16 bytes of salt, 32 of hash.
const ARGON2ID: &str =
    "$argon2id$v=19$m=8,t=1,p=1$tcpODUHTbrvqVahM6y9Oow$Pr6Wg/OnIWVe36Anx3w2aaLKyWoeSbu/CDGBSWFfq1w";

fn users(text: &str) -> Result<Users, FileFault> {
    PasswordFile::parse(text.as_bytes())?.users()
}

fn fault(text: &str) -> FileFault {
    users(text).unwrap_err()
}

#[test]
fn a_file_of_mosquitto_works_unchanged() {
    for text in [MOSQUITTO.to_owned(), MOSQUITTO.replace('\n', "\r\n")] {
        let users = users(&text).unwrap();
        assert_eq!(users.count(), 2);
        for name in ["alice", "bob"] {
            assert!(users.verify(name, b"secret"), "{name}");
            for wrong in ["", "secre", "secrets", "Secret", "secret\0", "secret\n"] {
                assert!(!users.verify(name, wrong.as_bytes()), "{name} {wrong:?}");
            }
        }
        assert!(!users.verify("carol", b"secret"));
    }
}

#[test]
fn a_hash_of_another_argon2_implementation_works() {
    let hash = PasswordHash::parse(ARGON2ID).unwrap();
    assert!(hash.verify(b"secret"));
    assert!(!hash.verify(b"secrets"));
    assert_eq!(hash.text(), ARGON2ID);
}

#[test]
fn comments_and_blank_lines_are_ignored_as_by_mosquitto() {
    let line = MOSQUITTO.lines().nth(2).unwrap();
    let hash = &line["alice:".len()..];
    let text =
        format!("#eve:{hash}\n  # no colon\n\n  \n\t ann \t: {hash} :what follows:is ignored\nlast:{hash}");
    let file = PasswordFile::parse(text.as_bytes()).unwrap();
    let users = file.users().unwrap();
    assert_eq!(users.count(), 2);
    assert!(users.verify("ann", b"secret") && users.verify("last", b"secret"));
    assert!(!users.verify("eve", b"secret") && !users.verify("#eve", b"secret"));
}

#[test]
fn a_line_that_is_not_an_entry_is_an_error_with_its_number() {
    let line = MOSQUITTO.lines().nth(2).unwrap();
    for line_without_colon in ["bob", "garbage", "$7$101$AAAA$AAAA", ".", "bob;x"] {
        let text = format!("# users\n{line}\n{line_without_colon}\n");
        let file = PasswordFile::parse(text.as_bytes()).unwrap();
        let fault = file.users().unwrap_err();
        assert_eq!(
            (fault.line, fault.kind),
            (3, FileFaultKind::NoEntry),
            "{line_without_colon:?}"
        );
        let message = fault.to_string();
        assert!(
            message.starts_with("line 3: it has no ':'") && !message.contains(line_without_colon),
            "{message}"
        );
    }
}

#[test]
fn with_an_empty_file_every_login_is_refused() {
    for text in ["", "\n\n", "# nobody"] {
        let users = users(text).unwrap();
        assert_eq!(users.count(), 0);
        assert!(!users.verify("", b"") && !users.verify("alice", b"secret"));
    }
}

#[test]
fn an_unknown_name_is_refused_with_every_password_of_the_file() {
    let users = users(MOSQUITTO).unwrap();
    for unknown in 0..100 {
        assert!(!users.verify(&format!("unknown {unknown}"), b"secret"));
    }
}

/// The work of one check.
fn costs(users: &Users, name: &str, password: &str) -> Vec<Cost> {
    DERIVED.with_borrow_mut(Vec::clear);
    users.verify(name, password.as_bytes());
    DERIVED.with_borrow_mut(std::mem::take)
}

#[test]
fn an_unknown_name_costs_as_much_as_a_known_one() {
    let [alice, bob] = [2, 3].map(|line| MOSQUITTO.lines().nth(line).unwrap());
    for text in [alice.to_owned(), bob.to_owned(), format!("ann:{ARGON2ID}")] {
        let name = text.split(':').next().unwrap();
        let users = users(&text).unwrap();
        let cost = costs(&users, name, "secret");
        assert_eq!(cost.len(), 1);
        assert_eq!(costs(&users, name, "wrong"), cost);
        for unknown in ["", "nobody", &format!("{name} "), &"n".repeat(NAME_BYTES_MAX)] {
            assert_eq!(costs(&users, unknown, "secret"), cost, "{unknown}");
        }
    }
    // Without any users it costs as much as a new entry.
    let new = PasswordHash::without_password();
    DERIVED.with_borrow_mut(Vec::clear);
    new.verify(b"");
    let cost = DERIVED.with_borrow_mut(std::mem::take);
    assert_eq!(costs(&users("").unwrap(), "nobody", "secret"), cost);
}

#[test]
fn with_hashes_of_several_kinds_unknown_names_have_different_costs_but_each_always_the_same() {
    let users = users(&format!("{MOSQUITTO}ann:{ARGON2ID}\ncarol:{ARGON2ID}")).unwrap();
    let mut counts = [0; 3];
    for unknown in 0..4000 {
        let name = format!("unknown {unknown}");
        let cost = costs(&users, &name, "secret");
        if unknown < 100 {
            assert_eq!(costs(&users, &name, "another"), cost);
        }
        counts[match cost[..] {
            [Cost::Pbkdf2 { .. }] => 0,
            [Cost::Sha512] => 1,
            [Cost::Argon2id { .. }] => 2,
            _ => panic!("{name}: {cost:?}"),
        }] += 1;
    }
    let [pbkdf2, sha512, argon2id] = counts;
    assert!(
        (800..1200).contains(&pbkdf2) && (800..1200).contains(&sha512) && (1800..2200).contains(&argon2id),
        "{counts:?}"
    );
}

#[test]
fn an_error_names_the_line_and_not_the_hash() {
    let good = MOSQUITTO.lines().nth(2).unwrap();
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for (line, kind) in [
        (good.to_owned(), FileFaultKind::Twice { first: 1 }),
        (" alice : x".to_owned(), FileFaultKind::Twice { first: 1 }),
        (":x".to_owned(), FileFaultKind::Name(NameFault::Empty)),
        (format!("{long}:x"), FileFaultKind::Name(NameFault::TooLong)),
        ("a\u{1}b:x".to_owned(), FileFaultKind::Name(NameFault::Control)),
        (
            "ann:topsecret".to_owned(),
            FileFaultKind::Hash(HashFault::Unknown),
        ),
        ("ann:".to_owned(), FileFaultKind::Hash(HashFault::Unknown)),
        (
            "ann:$1$topsecret$x".to_owned(),
            FileFaultKind::Hash(HashFault::Unknown),
        ),
        (
            "ann:$7$topsecret".to_owned(),
            FileFaultKind::Hash(HashFault::Malformed),
        ),
        (
            good.replace("alice", "ann").replace("==", "="),
            FileFaultKind::Hash(HashFault::Malformed),
        ),
        (
            good.replace("alice", "ann").replace("$101$", "$2147483648$"),
            FileFaultKind::Hash(HashFault::TooCostly),
        ),
    ] {
        let fault = fault(&format!("{good}\n# comment\n{line}\n"));
        assert_eq!(fault, FileFault { line: 3, kind }, "{line}");
        let text = fault.to_string();
        assert!(text.starts_with("line 3: "), "{text}");
        assert!(!text.contains("topsecret") && !text.contains("21jQ"), "{text}");
    }
    let not_text = PasswordFile::parse(b"a:b\n\xff:c\n").unwrap_err();
    assert_eq!(
        not_text,
        FileFault {
            line: 2,
            kind: FileFaultKind::Text(TextFaultKind::NotUtf8)
        }
    );
}

#[test]
fn byte_order_marks_and_line_ends_do_not_change_a_name() {
    let mut lines = MOSQUITTO.lines().skip(2);
    let (alice, bob) = (lines.next().unwrap(), lines.next().unwrap());
    for text in [
        format!("\u{feff}{alice}\r\n{bob}\r\n"),
        format!("\u{feff}{alice} \t\n{bob}\r"),
        format!("# users\r\n\r\n {alice}\r\n\t{bob}"),
    ] {
        let users = users(&text).unwrap();
        assert!(
            users.verify("alice", b"secret") && users.verify("bob", b"secret"),
            "{text:?}"
        );
        // A new password replaces the old one.
        let mut file = PasswordFile::parse(text.as_bytes()).unwrap();
        let hash = PasswordHash::pbkdf2(b"new", [1; 12], 101).unwrap();
        file.set("alice", &hash).unwrap();
        assert_eq!(file.text().matches("alice:").count(), 1);
        assert_eq!(file.users().unwrap().count(), 2);
    }
    for (text, line) in [
        // A lone carriage return makes the user part of the comment.
        (format!("# users\r{alice}\r{bob}\r"), 1),
        // Two files joined together.
        (format!("{alice}\n\u{feff}{bob}\n"), 2),
        (format!("{alice}\n{}\n", bob.replace("$YEE", "$YEE\u{a0}")), 2),
    ] {
        assert_eq!(users(&text).unwrap_err().line, line, "{text:?}");
    }
    let utf_16: Vec<u8> = MOSQUITTO.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [[b"\xff\xfe", &utf_16[..]].concat(), utf_16] {
        let fault = PasswordFile::parse(&bytes).unwrap_err();
        assert!(fault.to_string().starts_with("line 1: ") && fault.to_string().contains("UTF-16"));
    }
}

#[test]
fn a_hash_that_is_too_costly_to_check_is_refused() {
    let pbkdf2 = |iterations: &str| {
        PasswordHash::parse(&MOSQUITTO.lines().nth(2).unwrap()["alice:".len()..].replace("101", iterations))
            .map(|_| ())
    };
    assert_eq!(pbkdf2("1"), Ok(()));
    assert_eq!(pbkdf2("2000000"), Ok(()));
    for dear in ["2000001", "2147483648", "4294967296", "99999999999999999999"] {
        assert_eq!(pbkdf2(dear), Err(HashFault::TooCostly), "{dear}");
    }
    for malformed in ["0", "-1", "+1", "01", "1.5", "", " 1", "0x10"] {
        assert_eq!(pbkdf2(malformed), Err(HashFault::Malformed), "{malformed}");
    }
    let argon2 = |cost: &str| PasswordHash::parse(&ARGON2ID.replace("m=8,t=1,p=1", cost)).map(|_| ());
    for legal in [
        "m=262144,t=8,p=1",
        "m=8,t=262144,p=1",
        "m=65536,t=3,p=4",
        "m=512,t=1,p=64",
    ] {
        assert_eq!(argon2(legal), Ok(()), "{legal}");
    }
    for dear in [
        "m=262145,t=1,p=1",
        "m=262144,t=9,p=1",
        "m=4294967295,t=1,p=1",
        "m=4294967296,t=1,p=1",
        "m=8,t=4294967295,p=1",
        "m=65536,t=1,p=65",
    ] {
        assert_eq!(argon2(dear), Err(HashFault::TooCostly), "{dear}");
    }
    for malformed in [
        "m=7,t=1,p=1",
        "m=511,t=1,p=64",
        "m=8,t=0,p=1",
        "m=8,t=1,p=0",
        "m=8,t=1",
        "t=1,m=8,p=1",
        "m=8,t=1,p=1,x=1",
        "m=08,t=1,p=1",
        "",
    ] {
        assert_eq!(argon2(malformed), Err(HashFault::Malformed), "{malformed}");
    }
}

#[test]
fn hashes_and_files_are_not_printed() {
    let file = PasswordFile::parse(MOSQUITTO.as_bytes()).unwrap();
    let users = file.users().unwrap();
    let hash = PasswordHash::parse(ARGON2ID).unwrap();
    let shown = format!("{file:?} {users:?} {hash:?}");
    for secret in [
        "21jQ",
        "gNPv",
        "YEEk",
        "alice",
        ARGON2ID.rsplit('$').next().unwrap(),
    ] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_change_keeps_all_other_lines_unchanged() {
    let text = MOSQUITTO.replace('\n', "\r\n") + "no colon\r\nlast:x";
    let mut file = PasswordFile::parse(text.as_bytes()).unwrap();
    let hash = PasswordHash::pbkdf2(b"new", [1; 12], 101).unwrap();
    file.set("bob", &hash).unwrap();
    file.set("carol", &hash).unwrap();
    let changed = file.text();
    for line in text.split('\n').filter(|line| !line.starts_with("bob")) {
        assert!(changed.split('\n').any(|found| found == line), "{line}");
    }
    assert_eq!(changed.matches("bob:").count(), 1);
    assert!(changed.ends_with(&format!("last:x\ncarol:{}\n", hash.text())));
    assert!(file.remove("bob") && file.remove("carol") && !file.remove("carol"));
    assert!(!file.text().contains("bob") && file.text().contains("# users of the broker\r\n"));
}

#[test]
fn names_that_could_not_be_read_back_are_refused() {
    let hash = PasswordHash::pbkdf2(b"new", [1; 12], 1).unwrap();
    let longest = "n".repeat(NAME_BYTES_MAX);
    for name in [
        "alice",
        "a b",
        "a#",
        "ann@example.com",
        "日本",
        "$7$",
        "a\"b\\",
        "*",
        "{name}",
        longest.as_str(),
    ] {
        let mut file = PasswordFile::default();
        file.set(name, &hash).unwrap();
        let users = users(&file.text()).unwrap();
        assert!(users.verify(name, b"new"), "{name}");
    }
    for name in [
        "",
        " ",
        " a",
        "a ",
        "a\u{a0}",
        "a\u{200b}",
        "\u{200e}a",
        "\u{2003}a",
        "a:b",
        ":",
        "#",
        "#a",
        "a\nb",
        "a\r",
        "\0",
        "a\u{7f}",
        "a\u{85}",
        &"n".repeat(NAME_BYTES_MAX + 1),
    ] {
        assert!(PasswordFile::default().set(name, &hash).is_err(), "{name:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_kept_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(file) = PasswordFile::parse(&bytes) {
            let text = file.text();
            let bytes = bytes.trim_ascii_end_of_lines();
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            prop_assert_eq!(text.trim_end_matches('\n').as_bytes(), bytes);
            let _ = file.users();
        }
    }

    #[test]
    fn texts_like_a_hash_are_refused_or_canonical(
        text in r"\$(6|7|argon2id|x)(\$(v=19|101|m=8,t=1,p=1|[0-9]{1,12}|[A-Za-z0-9+/]{0,24}={0,2})){0,5}"
    ) {
        if let Ok(hash) = PasswordHash::parse(&text) {
            prop_assert_eq!(hash.text(), text);
        }
    }

    #[test]
    fn written_entries_are_read_back(
        name in r"[^:#\s\pC][^:\pC]{0,20}[^:\s\pC]",
        password in r"[^\x00]{1,40}",
        salt in any::<[u8; SALT_BYTES_PBKDF2]>(),
    ) {
        let hash = PasswordHash::pbkdf2(password.as_bytes(), salt, 2).unwrap();
        let mut file = PasswordFile::default();
        file.set(&name, &hash).unwrap();
        let read = PasswordFile::parse(file.text().as_bytes()).unwrap();
        prop_assert_eq!(read.text(), file.text());
        prop_assert!(read.users().unwrap().verify(&name, password.as_bytes()));
    }
}

trait Lines {
    fn trim_ascii_end_of_lines(&self) -> &[u8];
}

impl Lines for Vec<u8> {
    fn trim_ascii_end_of_lines(&self) -> &[u8] {
        let end = self
            .iter()
            .rposition(|byte| *byte != b'\n')
            .map_or(0, |last| last + 1);
        &self[..end]
    }
}
