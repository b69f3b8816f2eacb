//! TLS of a listener, and redirects to it.

use super::read::{Section, Value};
use super::sections::{MOST_ENTRIES, file};
use super::settings::{CertificateFiles, Tls};

/// The TLS of an entry of `listen`, and whether it redirects to `https`.
pub(super) fn listen(entry: &Section<'_>) -> (Option<Tls>, bool) {
    let tls = entry.get("tls");
    let encrypted = tls.is_some();
    let tls = tls.and_then(|value| tls_of(&value));
    let redirect = entry.choice("redirect", false, &[("https", true)]);
    if redirect && encrypted {
        entry.refuse("redirect", "has no effect with `tls`");
    }
    (tls, redirect)
}

fn tls_of(value: &Value<'_>) -> Option<Tls> {
    if value.is_null() {
        return value.refuse("has no value: give `certificate` and `key`");
    }
    let section = value.clone().section()?;
    let client_ca = section.get("client_ca").and_then(|value| file(&value));
    let Some(list) = section.get("certificates") else {
        return Some(Tls {
            certificates: vec![files(&section)?],
            client_ca,
        });
    };
    for key in ["certificate", "key"] {
        section.refuse(
            key,
            "goes into an entry of `certificates` where there is that list",
        );
    }
    let entries = list.list(1..=MOST_ENTRIES).into_iter();
    let certificates: Vec<_> = entries
        .filter_map(|entry| files(&entry.section()?))
        .collect();
    Some(Tls {
        certificates,
        client_ca,
    })
}

fn files(section: &Section<'_>) -> Option<CertificateFiles> {
    let (certificate, key) = (section.need("certificate"), section.need("key"));
    let certificate = certificate.and_then(|value| file(&value));
    let key = key.and_then(|value| file(&value));
    Some(CertificateFiles {
        certificate: certificate?,
        key: key?,
    })
}
