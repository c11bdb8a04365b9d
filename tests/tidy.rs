//! Keeps the house as `docs/architecture.md` draws it: floors, homes of crates, lengths, words, and pages that are
//! as complete as the code.
//!
//! Invariant: every exception stands in a list here with its reason, and one that is no longer needed fails too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops where its promise is broken"
)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules of the actors' crate and their floors. Imports go down, or stay inside the module.
const FLOORS: [(&str, u8); 19] = [
    ("model", 0),
    ("policy", 1),
    ("log", 1),
    ("store", 1),
    ("query", 1),
    ("kernel", 2),
    ("protocol", 3),
    ("gateway", 4),
    ("directory", 4),
    ("partition", 4),
    ("shard", 4),
    ("router", 4),
    ("subscriber", 4),
    ("topic", 4),
    ("reader", 4),
    ("upkeep", 4),
    ("system", 5),
    ("verify", 5),
    ("backup", 5),
];

/// Who may import whom on the same floor. All arrows lead to `shard`, or to whom the write meets earlier, so there
/// is no circle.
const SAME_FLOOR: [(&str, &[&str]); 9] = [
    ("store", &["log"]),
    ("gateway", &["shard"]),
    ("directory", &["partition", "shard"]),
    ("partition", &["shard"]),
    ("router", &["shard"]),
    ("subscriber", &["router", "shard"]),
    ("reader", &["directory", "partition", "shard"]),
    ("topic", &["router", "shard"]),
    ("upkeep", &["directory", "partition", "shard", "topic"]),
];

/// A crate that has a home, so that it can be exchanged: its name and the folders or files that may name it.
const HOMES: [(&str, &[&str]); 16] = [
    ("actix_http", &["src/http/listeners.rs"]),
    ("actix_service", &["src/http/listeners.rs"]),
    ("httparse", &["src/upstream/"]),
    ("object_store", &["src/blob/"]),
    ("geo", &["actors/src/query/functions/"]),
    ("redb", &["actors/src/store/"]),
    ("rmp_serde", &["actors/src/log/", "actors/src/store/"]),
    ("actix_web", &["src/http/"]),
    ("governor", &["actors/src/policy/rate.rs"]),
    (
        "actix",
        &[
            "actors/src/kernel/",
            "actors/src/protocol/",
            "actors/src/gateway/",
            "actors/src/directory/",
            "actors/src/partition/",
            "actors/src/shard/",
            "actors/src/router/",
            "actors/src/subscriber/",
            "actors/src/topic/",
            "actors/src/upkeep/mod.rs",
            "actors/src/system.rs",
        ],
    ),
    ("saphyr_parser", &["src/manifest/"]),
    ("reqwest", &["src/delivery/", "src/cli/", "src/identity/fetch.rs"]),
    ("jsonwebtoken", &["src/identity/"]),
    ("rustix", &["actors/src/log/disk.rs", "actors/src/reader/threads.rs"]),
    ("winnow", &["actors/src/query/"]),
    (
        "quick_cache",
        &["actors/src/shard/overlay.rs", "actors/src/directory/spending.rs", "src/identity/verifier.rs"],
    ),
];

/// Files that name a crate outside its home: crate, file, reason.
const AWAY_FROM_HOME: [(&str, &str, &str); 7] = [
    (
        "rmp_serde",
        "actors/src/reader/continuation.rs",
        "a continuation travels in a header, and has to be short",
    ),
    (
        "rmp_serde",
        "actors/src/subscriber/rows.rs",
        "the rows of deliveries are the subscriber's, coded in one place",
    ),
    ("actix_web", "src/app.rs", "holds the running servers and stops them in order"),
    ("actix_web", "src/app/testing.rs", "starts the servers as the app does, for tests"),
    ("actix_web", "src/cli/process.rs", "the runtime that a backend's thread runs on"),
    ("reqwest", "src/manifest/mock.rs", "its re-export of header names decides what a mock may send"),
    (
        "reqwest",
        "src/manifest/subscriptions/webhook.rs",
        "a webhook's URL and headers are read as the sender will read them",
    ),
];

/// Lines of a file: told beyond the first, refused beyond the second.
const FILE_LINES: (usize, usize) = (400, 650);
/// The same for a function.
const FUNCTION_LINES: (usize, usize) = (60, 110);
/// Files or functions (`file` or `file:function`) that may be longer, and why.
const LONG: [(&str, &str); 1] =
    [("src/http/problem/tests.rs:table", "one table of everything that can go wrong, read line by line")];

/// Tracked text that is read for words.
const TEXTS: [&str; 7] = ["rs", "md", "toml", "yaml", "sh", "run", "lock"];

/// Files with one of these endings below `folder`, as paths from the repository's root with their texts.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "data", ".git"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name == *ending || name.ends_with(&format!(".{ending}"))) {
                let place = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.push((place, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "nothing below `{folder}`");
    found.sort();
    found
}

fn file(place: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{place}: {error}"))
}

fn is_test(place: &str) -> bool {
    place.ends_with("/tests.rs") || place.contains("/tests/")
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// What is wrong with an import of `to` in `from`, if anything.
fn misplaced(from: &str, to: &str) -> Option<String> {
    let floor = |name: &str| FLOORS.iter().find(|(module, _)| *module == name).map(|(_, floor)| *floor);
    let (Some(own), Some(other)) = (floor(from), floor(to)) else {
        return Some(format!(
            "`{from}` or `{to}` has no floor: give it one here and in docs/architecture.md"
        ));
    };
    let allowed = |(module, others): &(&str, &[&str])| *module == from && others.contains(&to);
    if from == to || other < own || (other == own && SAME_FLOOR.iter().any(allowed)) {
        return None;
    }
    Some(format!("`{from}` (floor {own}) may not import `{to}` (floor {other})"))
}

#[test]
fn imports_go_down_the_floors() {
    let (mut faults, mut arrows) = (Vec::new(), BTreeSet::new());
    for (place, text) in files("actors/src", &["rs"]) {
        let inside = place.strip_prefix("actors/src/").unwrap();
        let module = inside.split(['/', '.']).next().unwrap().to_owned();
        if module == "lib" {
            continue;
        }
        let code = source::code(&text);
        let mut names = source::names_after("crate", &code);
        if inside.ends_with("/mod.rs") && inside.matches('/').count() == 1 {
            let known = |name: &String| FLOORS.iter().any(|(module, _)| module == name);
            names.extend(
                source::names_after("super", &source::without_tests(&code)).into_iter().filter(known),
            );
        }
        for name in names {
            faults.extend(misplaced(&module, &name).map(|what| format!("{place}: {what}")));
            arrows.insert((module.clone(), name));
        }
    }
    for (from, to) in SAME_FLOOR.iter().flat_map(|(from, others)| others.iter().map(move |to| (*from, *to))) {
        if !arrows.contains(&(from.to_owned(), to.to_owned())) {
            faults.push(format!("nobody in `{from}` imports `{to}` any more: take the arrow away"));
        }
    }
    report(&faults);
}

#[test]
fn the_arrows_between_rooms_make_no_circle() {
    let next = |from: &str| SAME_FLOOR.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, to)| *to);
    for (start, _) in SAME_FLOOR {
        let (mut seen, mut open) = (BTreeSet::new(), next(start).to_vec());
        while let Some(at) = open.pop() {
            assert_ne!(at, start, "a circle through `{start}`");
            if seen.insert(at) {
                open.extend(next(at));
            }
        }
    }
}

#[test]
fn a_crate_with_a_home_is_named_there_only() {
    let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
    for (place, text) in
        ["actors/src", "src", "loadtest/src"].iter().flat_map(|folder| files(folder, &["rs"]))
    {
        if is_test(&place) {
            continue;
        }
        let code = source::without_tests(&source::code(&text));
        for (name, homes) in HOMES {
            if !source::names_crate(name, &code) || homes.iter().any(|home| place.starts_with(home)) {
                continue;
            }
            match AWAY_FROM_HOME.iter().find(|(krate, file, _)| *krate == name && *file == place) {
                Some(exception) => {
                    used.insert(exception);
                }
                None => faults.push(format!("{place} names `{name}`, whose home is {homes:?}")),
            }
        }
    }
    for exception in AWAY_FROM_HOME.iter().filter(|exception| !used.contains(exception)) {
        faults.push(format!("no longer needed: {exception:?}"));
    }
    report(&faults);
}

#[test]
fn files_and_functions_stay_short() {
    let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
    let mut measure = |what: String, lines: usize, (told, refused): (usize, usize)| {
        if lines <= told {
            return;
        }
        println!("long: {what}: {lines} lines");
        let exception = LONG.iter().find(|(place, _)| *place == what);
        match exception {
            _ if lines <= refused => {}
            Some((place, _)) => {
                used.insert(*place);
            }
            None => faults.push(format!("{what} has {lines} lines, more than {refused}")),
        }
    };
    for (place, text) in ["actors", "src", "loadtest", "tests"].iter().flat_map(|f| files(f, &["rs"])) {
        for (name, _, lines) in source::functions(&source::code(&text)) {
            measure(format!("{place}:{name}"), lines, FUNCTION_LINES);
        }
        measure(place, text.lines().count(), FILE_LINES);
    }
    let stale = LONG.iter().filter(|(place, _)| !used.contains(place));
    faults.extend(stale.map(|(place, _)| format!("no longer needed: {place}")));
    report(&faults);
}

#[test]
fn every_message_names_its_sender_and_receiver() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for (place, text) in files("actors/src", &["rs"]) {
        for (name, docs) in source::messages(&text) {
            count += 1;
            if !place.starts_with("actors/src/protocol/") {
                faults.push(format!("{place}: the message `{name}` belongs into protocol/"));
            }
            if !(docs.contains("Sender: ") && docs.contains("Receiver: ")) {
                faults.push(format!("{place}: `{name}` does not name its sender and receiver"));
            }
        }
    }
    assert!(count > 10, "only {count} messages found");
    report(&faults);
}

#[test]
fn every_file_says_what_it_is() {
    let all = ["actors", "src", "loadtest", "tests"].iter().flat_map(|folder| files(folder, &["rs"]));
    let silent = all
        .filter(|(_, text)| !text.trim().is_empty() && !text.starts_with("//! "))
        .map(|(place, _)| format!("{place} has no `//!`"));
    report(&silent.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later_and_no_workplace_shows() {
    // Put together here, so that this file does not find itself.
    let words = [
        ["todo", "!("],
        ["unimpl", "emented!("],
        ["FIX", "ME"],
        ["XX", "X"],
        ["/wo", "rk/"],
        ["/bash_", "jobs"],
        ["issues", " show"],
        ["issue", " #"],
        ["helper", " session"],
        ["sub", "agent"],
        ["work", "tree"],
        ["anth", "ropic"],
        ["cla", "ude"],
    ]
    .map(|parts| parts.concat());
    let mut faults = Vec::new();
    for (place, text) in files("", &TEXTS) {
        let small = text.to_lowercase();
        for word in &words {
            let is_found =
                if word.chars().any(char::is_uppercase) { text.contains(word) } else { small.contains(word) };
            if is_found {
                faults.push(format!("{place} contains `{word}`"));
            }
        }
    }
    report(&faults);
}

/// Every code of a problem, with its statuses, from the table that tests them.
fn statuses() -> BTreeMap<String, BTreeSet<String>> {
    let table = file("src/http/problem/tests.rs");
    let status = |before: &str| {
        let number = before.trim_end().strip_suffix(',')?.rsplit([',', ' ']).next()?;
        (number.len() == 3 && number.chars().all(|c| c.is_ascii_digit())).then(|| number.to_owned())
    };
    let parts: Vec<&str> = table.split('"').collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for i in (1..parts.len()).step_by(2) {
        if let (true, Some(status)) = (source::is_snake(parts[i]), status(parts[i - 1])) {
            found.entry(parts[i].to_owned()).or_default().insert(status);
        }
    }
    found
}

#[test]
fn every_code_of_a_problem_stands_in_its_page_with_its_status() {
    let mut codes = statuses();
    assert!(codes.len() > 40, "only {} codes found", codes.len());
    let answers = file("src/http/problem/answer.rs");
    let made = source::literals(&answers, source::is_snake, |before| {
        before.ends_with(", ") && before.contains("StatusCode::")
    });
    let places = [
        "src/http/problem.rs",
        "src/http/problem/configuration.rs",
        "src/http/problem/events.rs",
        "src/http/problem/upstream.rs",
        "src/identity/refusal.rs",
    ];
    let code: String = places.into_iter().map(file).collect();
    for name in source::literals(&code, source::is_snake, |_| true).into_iter().chain(made) {
        codes.entry(name.to_owned()).or_default();
    }
    let page = file("docs/status-codes.md");
    let sections: BTreeMap<&str, &str> =
        page.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let mut faults = Vec::new();
    for (code, statuses) in &codes {
        let Some(section) = sections.get(code.as_str()) else {
            faults.push(format!("`{code}` has no section"));
            continue;
        };
        let silent = statuses.iter().filter(|status| !section.contains(&format!("**{status}**")));
        faults.extend(silent.map(|status| format!("`{code}` does not name {status}")));
    }
    let stale = sections.keys().filter(|name| !codes.contains_key(**name));
    faults.extend(stale.map(|name| format!("`{name}` is no code any more")));
    report(&faults);
}

#[test]
fn every_limit_and_metric_stands_in_the_page_for_operators() {
    let page = file("docs/operations.md");
    let defaults = file("config/default.yaml");
    let limits: Vec<&str> = defaults
        .split_once("\nlimits:\n")
        .unwrap()
        .1
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(':'))
        .map(|(name, _)| name)
        .filter(|name| source::is_snake(name))
        .collect();
    assert!(limits.len() > 30, "only {} limits found", limits.len());
    let counted =
        ["src/http/admin/scrape.rs", "src/http/metrics.rs", "src/upstream/metrics.rs"].map(file).concat();
    let parts: Vec<&str> = counted.split('"').collect();
    let is_name = |i: &usize| {
        let help = parts
            .get(i + 2)
            .is_some_and(|help| help.starts_with(char::is_uppercase) || help.starts_with('1'));
        source::is_snake(parts[*i]) && help && parts[i + 1].trim() == ","
    };
    let metrics: Vec<&str> = (1..parts.len()).step_by(2).filter(is_name).map(|i| parts[i]).collect();
    assert!(metrics.len() > 25, "only {} metrics found: {metrics:?}", metrics.len());
    let metrics = metrics.into_iter().map(|name| format!("`lanekeeper_{name}"));
    let wanted = limits.into_iter().map(|name| format!("`{name}`")).chain(metrics);
    let missing =
        wanted.filter(|wanted| !page.contains(wanted)).map(|wanted| format!("{wanted} is not explained"));
    report(&missing.collect::<Vec<_>>());
}

#[test]
fn a_misplaced_import_is_seen() {
    assert!(misplaced("model", "policy").is_some());
    assert!(misplaced("log", "store").is_some());
    assert!(misplaced("shard", "partition").is_some());
    assert!(misplaced("router", "subscriber").is_some());
    assert!(misplaced("policy", "unknown").is_some());
    assert!(misplaced("store", "log").is_none());
    assert!(misplaced("subscriber", "router").is_none());
    assert!(misplaced("system", "gateway").is_none());
    assert!(misplaced("kernel", "kernel").is_none());
}
