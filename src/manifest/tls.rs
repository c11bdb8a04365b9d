//! Stands between `tls` of a listener and the files that it names.
//!
//! Invariant: the files are there, can be read, and fit together. A path starts at the folder of the manifest.

use std::path::PathBuf;

use super::fields::{self, Fields};
use super::problem::Report;
use super::tree::Node;
use crate::edge::tls::{self, ClientAuthority, Part, TlsFiles, TlsVersion};

/// Reads it.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<TlsFiles> {
    let mut fields = Fields::open(node, report)?;
    let cert = fields.required("cert", report).and_then(|node| path(node, report));
    let key = fields.required("key", report).and_then(|node| path(node, report));
    let ca = fields.optional("client_ca").map(|node| path(node, report));
    let wanted = fields.optional("client_cert");
    let oldest = fields.optional("min").map(|node| {
        fields::choice(node, &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)], &[], report)
    });
    let required = wanted.map(|node| {
        fields::choice(node, &[("required", true), ("optional", false)], &[], report).unwrap_or(true)
    });
    if let (Some(node), None) = (wanted, &ca) {
        report.add(node.place, "`client_cert` needs `client_ca`: whose certificates are accepted");
    }
    let place = |part| match part {
        Part::Certificate => fields.place_of("cert"),
        Part::Key => fields.place_of("key"),
        Part::ClientAuthority => fields.place_of("client_ca"),
    };
    let client = match ca {
        None => None,
        Some(ca) => Some(ClientAuthority { ca: ca?, required: required.unwrap_or(true) }),
    };
    let oldest = oldest.map_or(Some(TlsVersion::default()), |oldest| oldest)?;
    let files = TlsFiles { cert: cert?, key: key?, client, oldest };
    if let Err(problem) = tls::check(&files) {
        report.add(place(problem.part()), problem.to_string());
    }
    fields.finish(&["acme"], report);
    Some(files)
}

fn path(node: &Node, report: &mut Report) -> Option<PathBuf> {
    let text = fields::text(node, report)?;
    if text.is_empty() || text.contains('\0') {
        return fields::expected(node, "the path of a file", report);
    }
    Some(report.folder(node.place).join(text))
}
