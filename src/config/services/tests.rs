use std::path::Path;

use super::read::read;
use super::*;
use crate::config::error::ListFault;
use crate::config::list::ListSource;

fn read_services(text: &str) -> Result<Vec<ServiceSpec>, Vec<ListFault>> {
    let table = toml::de::DeTable::parse(text).unwrap();
    let (services, faults) = read(ListSource {
        file: Path::new("f"),
        text,
        table: table.get_ref(),
    });
    if faults.is_empty() {
        Ok(services)
    } else {
        Err(faults)
    }
}

#[test]
fn a_row_is_read_as_it_is_written() {
    let text = "[[services]]\npattern = \"math.*\"\ntimeout_ms = 250\nqueue_calls = 0\nqueue_bytes = 7\nabsent = \"silent\"\n\
                sticky = true\n[[services]]\npattern = \"x\"\n";
    let expected = |pattern: &str, terms, line| ServiceSpec {
        pattern: pattern.to_owned(),
        terms,
        file: Some("f".into()),
        line,
    };
    let terms = Terms {
        timeout: Duration::from_millis(250),
        queue_calls: 0,
        queue_bytes: 7,
        absent: Absent::Silent,
        is_sticky: true,
    };
    let services = read_services(text).unwrap();
    assert_eq!(
        services,
        [expected("math.*", terms, 1), expected("x", Terms::default(), 8)]
    );
    assert_eq!(
        terms.to_string(),
        "answers within 250 ms; 0 calls, 7 bytes in the queue; absent: silent; sticky"
    );
}

#[test]
fn a_fault_names_the_line_and_the_key() {
    for (text, expected) in [
        ("timeout_ms = 5", "pattern is missing"),
        ("pattern = [\"a\", \"b\"]", "expected one pattern"),
        ("pattern = \"a\"\ntimeout_ms = 0", "timeout_ms: found 0"),
        ("pattern = \"a\"\nabsent = \"never\"", "error or silent"),
        ("pattern = \"a\"\nweight = 3", "weight is not known"),
    ] {
        let faults = read_services(&format!("[[services]]\n{text}")).unwrap_err();
        assert!(faults[0].to_string().contains(expected), "{text}: {}", faults[0]);
    }
}
