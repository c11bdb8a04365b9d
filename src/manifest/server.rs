//! Stands between the section `server` and the listeners of the process.
//!
//! Invariant: without TLS the admin API listens on a loopback address only.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::fields::{self, Fields};
use super::model::{Listener, Server};
use super::problem::{Report, quoted};
use super::tls;
use super::tree::{Node, Value};

/// Most physical shards of one process.
const SHARDS_MAX: usize = 64;
/// Most public listeners.
const LISTENERS_MAX: usize = 16;

/// Reads the section.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Server> {
    let mut fields = Fields::open(node, report)?;
    let listen = fields.required("listen", report).and_then(|node| listeners(node, report));
    let admin_node = fields.required("admin", report);
    let admin = admin_node.and_then(|node| admin(node, report));
    let data = fields.required("data", report).and_then(|node| data(node, report));
    let shards = fields.count("shards", 1..=SHARDS_MAX, report);
    let public_url = fields.optional("public_url").map(|node| public_url(node, report));
    let shards_given = fields.place_of("shards").is_given();
    fields.finish(&[], report);
    let (listen, admin) = (listen?, admin?);
    let addr = admin.addr;
    if let Some(node) = admin_node
        && addr.port() != 0
        && listen.iter().any(|listener| listener.addr == addr)
    {
        report.add(node.place, format!("`{addr}` is a public address too: `admin` needs one of its own"));
    }
    Some(Server { listen, admin, public_url: public_url.flatten(), data: data?, shards, shards_given })
}

/// A list of listeners, or the one address of the only one.
fn listeners(node: &Node, report: &mut Report) -> Option<Vec<Listener>> {
    if matches!(node.value, Value::Text(_)) {
        return Some(vec![listener(node, report)?]);
    }
    let items = fields::list(node, report)?;
    if items.is_empty() || items.len() > LISTENERS_MAX {
        return fields::expected(node, &format!("1 to {LISTENERS_MAX} listeners"), report);
    }
    let mut listeners: Vec<Listener> = Vec::new();
    for item in items {
        let Some(listener) = listener(item, report) else { continue };
        let addr = listener.addr;
        if addr.port() != 0 && listeners.iter().any(|other| other.addr == addr) {
            report.add(item.place, format!("`{addr}` is listed twice"));
        }
        listeners.push(listener);
    }
    Some(listeners)
}

fn listener(node: &Node, report: &mut Report) -> Option<Listener> {
    if matches!(node.value, Value::Text(_)) {
        return Some(Listener { addr: address(node, report)?, tls: None });
    }
    let mut fields = Fields::open(node, report)?;
    let addr = fields.required("addr", report).and_then(|node| address(node, report));
    let tls = fields.optional("tls").map(|node| tls::read(node, report));
    fields.finish(&[], report);
    match tls {
        None => Some(Listener { addr: addr?, tls: None }),
        Some(tls) => Some(Listener { addr: addr?, tls: Some(tls?) }),
    }
}

fn admin(node: &Node, report: &mut Report) -> Option<Listener> {
    let listener = listener(node, report)?;
    let addr = listener.addr;
    if listener.tls.is_none() && !addr.ip().to_canonical().is_loopback() {
        let message = format!(
            "`{addr}` is not a loopback address: elsewhere `admin` needs `tls` with `cert` and `key`"
        );
        report.add(node.place, message);
        return None;
    }
    Some(listener)
}

fn data(node: &Node, report: &mut Report) -> Option<PathBuf> {
    let text = fields::text(node, report)?;
    if text.is_empty() || text.contains('\0') {
        return fields::expected(node, "the path of a directory", report);
    }
    Some(PathBuf::from(text))
}

/// Reads `https://api.example`, without a slash at its end.
fn public_url(node: &Node, report: &mut Report) -> Option<String> {
    let text = fields::text(node, report)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let legal = |c: char| c.is_ascii_graphic() && !"?#@\"<>\\^`{|}".contains(c);
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && text.chars().all(legal) => {
            Some(text.trim_end_matches('/').to_owned())
        }
        Some(_) | None => fields::expected(node, "an `https` or `http` URL without query", report),
    }
}

fn address(node: &Node, report: &mut Report) -> Option<SocketAddr> {
    if let Value::Text(text) = &node.value
        && let Ok(addr) = text.parse()
    {
        return Some(addr);
    }
    let suggestion = match &node.value {
        Value::Text(text) => text.strip_prefix("localhost").map(|port| format!("127.0.0.1{port}")),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => None,
    };
    let suggestion = suggestion.filter(|text| text.parse::<SocketAddr>().is_ok());
    let found = match &node.value {
        Value::Text(text) => quoted(text),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => node.kind(),
    };
    let message = format!("expected an address and port such as `127.0.0.1:8080`, found {found}");
    report.suggest(node.place, message, suggestion);
    None
}
