//! Tests of the TLS settings, with certificates and keys in files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::config::tls::OnListen;

/// Files of one test, removed at its end.
struct Files(PathBuf);

impl Files {
    fn new() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ringcast-policy-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Files(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Settings with one certificate that is valid from the first year to the second.
    fn settings(&self, years: (i32, i32)) -> TlsSettings {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).unwrap().pem();
        TlsSettings {
            on_listen: OnListen::Only,
            certificate_files: vec![self.write("certificate.pem", &certificate)],
            key_files: vec![self.write("key.pem", &key.serialize_pem())],
            ..TlsSettings::default()
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Files that are left behind do no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn byte_order_marks_blanks_and_line_ends_do_not_change_a_pem_file() {
    let files = Files::new();
    let good = files.settings((2020, 2090));
    let (certificate, key) = (&good.certificate_files[0], &good.key_files[0]);
    for file in [certificate, key] {
        let text = fs::read_to_string(file).unwrap();
        let other = format!("\u{feff}subject=M\u{fc}ller\r\n{}", text.replace('\n', " \t\r\n"));
        // Here the byte order mark stands directly before the section.
        let mark = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        for text in [other, mark] {
            fs::write(file, text).unwrap();
            assert!(
                TlsPolicy::read(Some(&good), None).unwrap().is_some(),
                "{}",
                file.display()
            );
        }
    }
    let text = fs::read_to_string(certificate).unwrap();
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(certificate, utf_16).unwrap();
    let error = TlsPolicy::read(Some(&good), None).unwrap_err().to_string();
    assert!(
        error.contains("certificate.pem: cannot be read: line 1: the file is UTF-16"),
        "{error}"
    );
}

const IN_2026_MS: u64 = 1_770_000_000_000;

#[test]
fn each_fault_of_a_file_names_it_and_says_what_to_do() {
    let files = Files::new();
    let good = files.settings((2020, 2090));
    let other_key = files.write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
    let empty = files.write("empty.pem", "nothing\n");
    let broken = files.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    let no_x509 = files.write(
        "none.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let missing = files.0.join("missing.pem");
    let certificate = |file: &PathBuf| TlsSettings {
        certificate_files: vec![file.clone()],
        ..good.clone()
    };
    let key = |file: &PathBuf| TlsSettings {
        key_files: vec![file.clone()],
        ..good.clone()
    };
    let authority = |file: &PathBuf| TlsSettings {
        client_auth: ClientAuth::Required,
        client_ca_file: Some(file.clone()),
        ..good.clone()
    };
    for (settings, words) in [
        (certificate(&missing), "missing.pem: cannot be read"),
        (certificate(&empty), "empty.pem: contains no certificate"),
        (certificate(&broken), "broken.pem: is not a PEM file"),
        (
            certificate(&no_x509),
            "none.pem: the first certificate cannot be used",
        ),
        (key(&missing), "missing.pem: cannot be read"),
        (key(&empty), "empty.pem: contains no usable private key"),
        (
            key(&good.certificate_files[0]),
            "certificate.pem: contains no usable private key",
        ),
        (key(&other_key), "other.pem is not the key of "),
        (authority(&missing), "missing.pem: cannot be read"),
        (authority(&empty), "empty.pem: contains no certificate"),
        (
            authority(&no_x509),
            "none.pem: is not a certificate authority for clients",
        ),
    ] {
        let text = TlsPolicy::read(Some(&settings), None).unwrap_err().to_string();
        assert!(text.contains(words), "{words}: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
    assert!(TlsPolicy::read(Some(&good), None).unwrap().is_some());
    assert!(TlsPolicy::read(None, None).unwrap().is_none());
}

#[test]
fn expired_certificates_and_keys_open_to_others_give_warnings() {
    let files = Files::new();
    let warnings = |years| {
        let tls = TlsPolicy::read(Some(&files.settings(years)), None)
            .unwrap()
            .unwrap();
        (tls.warnings(IN_2026_MS), tls.not_after_unix_s())
    };
    assert_eq!(warnings((2020, 2090)), (vec![], 3_786_912_000));
    for (years, words) in [
        ((2010, 2020), "certificate.pem has expired, "),
        ((2080, 2090), "certificate.pem is not valid yet"),
    ] {
        let (warnings, _) = warnings(years);
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{warnings:?}");
    }
    let tls = TlsPolicy::read(Some(&files.settings((2020, 2027))), None)
        .unwrap()
        .unwrap();
    let end_ms = u64::try_from(tls.not_after_unix_s()).unwrap() * 1000;
    let soon = |days: u64| tls.warnings(end_ms - days * 86_400_000);
    assert!(soon(6)[0].contains("expires in 6 days"), "{:?}", soon(6));
    assert!(soon(8).is_empty());

    let settings = files.settings((2020, 2090));
    for (mode, is_open) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        let key = &settings.key_files[0];
        fs::set_permissions(key, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = TlsPolicy::read(Some(&settings), None)
            .unwrap()
            .unwrap()
            .warnings(IN_2026_MS);
        assert_eq!(
            warnings
                .iter()
                .any(|warning| warning.contains("can be read by others")),
            is_open,
            "{mode:o}"
        );
    }
}

#[test]
fn ticket_keys_survive_a_reload_unless_the_demands_on_client_certificates_change() {
    let files = Files::new();
    let plain = files.settings((2020, 2090));
    let demanding = |client_auth| TlsSettings {
        client_auth,
        client_ca_file: Some(plain.certificate_files[0].clone()),
        ..plain.clone()
    };
    let first = TlsPolicy::read(Some(&plain), None).unwrap().unwrap();
    let survives = |before: &TlsPolicy, after: &TlsSettings| {
        let after = TlsPolicy::read(Some(after), Some(before)).unwrap().unwrap();
        Arc::ptr_eq(&before.tickets, &after.tickets)
    };
    assert!(survives(&first, &plain));
    assert!(!survives(&first, &demanding(ClientAuth::Optional)));
    let optional = TlsPolicy::read(Some(&demanding(ClientAuth::Optional)), None)
        .unwrap()
        .unwrap();
    assert!(survives(&optional, &demanding(ClientAuth::Optional)));
    assert!(!survives(&optional, &demanding(ClientAuth::Required)));
    // A ticket of an operator's connection must not be accepted on a client's connection either.
    assert!(!Arc::ptr_eq(&first.config.ticketer, &first.admin_config.ticketer));
}
