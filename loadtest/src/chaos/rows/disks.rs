//! Rows 34 to 36: a disk that is full, damaged, or not there for dead letters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;

use super::{AMPLE, FEW};
use crate::chaos::book::Fate;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, SUBJECT, Scene};
use crate::chaos::stage::Stage;
use crate::chaos::tools;
use crate::endpoint::scripts;

const MIB: usize = 1 << 20;

pub(in crate::chaos) async fn full(context: Context) -> anyhow::Result<Findings> {
    /// Size of the file system.
    const DISK: usize = 96 * MIB;
    /// Documents that are tried while it is full.
    const TRIES: usize = 40;
    let scratch = tempfile::Builder::new().prefix("lanekeeper-chaos-disk-").tempdir()?;
    let place = scratch.path().display().to_string();
    let wrapper = tools::mounted(&format!("mount -t tmpfs -o size={DISK} none '{place}'")).await?;
    let ill = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.wrapper = wrapper;
    scene.data = Some(scratch.path().join("data"));
    scene.document = 100_000;
    scene.manifest.shards = 1;
    scene.limit("log_segment", "8MiB").limit("checkpoint_bytes", "4MiB");
    scene.subscribe("ill", &ill, Retry::quick(30));
    let stage = scene.open().await?;
    stage.publish(10).await?;
    // The server's own view of its mounts, through which the disk can be filled from here.
    let disk = PathBuf::from(format!("/proc/{}/root{place}", stage.server()?.pid()));
    fill(&disk.join("ballast"))?;
    let answers = publish_all(&stage, TRIES).await?;
    let mut findings = Findings::default();
    // 507 is the status of HTTP for it; 503 is told where the view finds no room, or of a publishing topic.
    let refused = [503, 507].iter().filter_map(|status| answers.get(status)).sum::<usize>();
    let stored = answers.get(&201).copied().unwrap_or_default();
    findings.want(refused > 0, || format!("a full disk refused nothing: {answers:?}"));
    findings.want(refused + stored == TRIES, || format!("answers other than 201, 503 and 507: {answers:?}"));
    let admin = stage.admin()?.get("/healthz").await?;
    findings.want(admin.status == 200, || format!("healthz: {}", admin.told()));
    fs::remove_file(disk.join("ballast"))?;
    let begun = stage.now();
    let mut line = stage.gateway()?.line();
    let give_up = begun.plus(AMPLE);
    while publish_one(&stage, &mut line).await? != 201 && stage.now() < give_up {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let recovered = stage.now().since(begun);
    findings.want(recovered < AMPLE, || "no document was stored once there was room again".to_owned());
    stage.rest(AMPLE).await?;
    findings.join(stage.audit().await?);
    findings.tell(format!(
        "full: {stored} stored, {refused} refused; {:.1} s after there was room, documents are stored again",
        recovered.as_secs_f64()
    ));
    Ok(findings)
}

/// Writes until nothing more fits.
fn fill(file: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(file)?;
    let mut block = vec![b'x'; MIB];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    Ok(())
}

/// Publishes so many documents and counts the answers by their status.
async fn publish_all(stage: &Stage, count: usize) -> anyhow::Result<BTreeMap<u16, usize>> {
    let mut line = stage.gateway()?.line();
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        *answers.entry(publish_one(stage, &mut line).await?).or_default() += 1;
    }
    Ok(answers)
}

/// Publishes one document; gives the status.
async fn publish_one(stage: &Stage, line: &mut crate::api::Line) -> anyhow::Result<u16> {
    let key = stage.book.enter(SUBJECT);
    let fields = [("content-type", "application/json")];
    let answer = line.send(Method::POST, "/freight/v1/loads", &fields, stage.book.document(key)).await?;
    let fate = match answer.status {
        201 => Fate::Acknowledged,
        // What was not stored for lack of room must not appear later; an outcome that is unknown may.
        503 | 507 => Fate::Unknown,
        _ => Fate::Refused,
    };
    stage.book.note(key.number, fate);
    Ok(answer.status)
}

pub(in crate::chaos) async fn damage(context: Context) -> anyhow::Result<Findings> {
    /// Where the first record of a segment begins.
    const SEGMENT_HEADER: usize = 64;
    /// Bytes of a record that reached the disk: its header, and a little of what it holds.
    const TORN: usize = 56;
    let ill = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.manifest.shards = 1;
    scene.subscribe("ill", &ill, Retry::quick(30));
    let mut stage = scene.open().await?;
    stage.publish(50).await?;
    stage.rest(AMPLE).await?;
    stage.kill().await?;
    let mut findings = Findings::default();
    // A record that was being written when the power went: its beginning is there, the rest is not.
    let segment = last_segment(stage.data())?;
    let mut bytes = fs::read(&segment)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let torn: Vec<u8> = bytes.iter().skip(SEGMENT_HEADER).take(TORN).copied().collect();
    for (at, byte) in (end..).zip(torn) {
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    fs::write(&segment, &bytes)?;
    stage.start().await?;
    findings.join(readable(&stage).await?);
    stage.publish(10).await?;
    stage.rest(AMPLE).await?;
    findings.join(stage.audit().await?);
    stage.stop().await?;
    // A bit that flipped on the disk, in the middle of what was acknowledged.
    let segment = last_segment(stage.data())?;
    let mut bytes = fs::read(&segment)?;
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0b0001_0000;
    }
    fs::write(&segment, &bytes)?;
    let data = stage.data().display().to_string();
    let binary = context.binary.display().to_string();
    let verdict = tools::run(&binary, &["verify", &data]).await;
    findings.want(verdict.is_err(), || "`verify` does not find a flipped bit".to_owned());
    let found = verdict.err().map(|error| error.to_string()).unwrap_or_default();
    // With the flip the server may refuse to start; if it starts, it serves nothing that is wrong.
    let started = match stage.start().await {
        Ok(_) => {
            findings.join(readable(&stage).await?);
            "serves what is sound"
        }
        Err(_) => "refuses to start",
    };
    findings
        .tell(format!("torn tail dropped, 50 documents intact; flip found ({found}), the server {started}"));
    Ok(findings)
}

/// Wants every acknowledged document to be read as it was written.
async fn readable(stage: &Stage) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let gateway = stage.gateway()?;
    let mut line = gateway.line();
    let mut wrong = 0;
    for (number, entry) in (0_u64..).zip(stage.book.entries()) {
        if entry.fate != Fate::Acknowledged {
            continue;
        }
        let key = crate::schedule::DocumentKey { number, partition: entry.lane };
        let path = format!("/freight/v1/loads/{}/{}", crate::document::lane(entry.lane), stage.book.id(key));
        let answer = line.send(Method::GET, &path, &[], bytes::Bytes::new()).await?;
        let probe = crate::document::Probe::find(&answer.body);
        wrong += usize::from(answer.status != 200 || probe.is_none_or(|probe| probe.number != number));
    }
    findings.want(wrong == 0, || format!("{wrong} acknowledged documents are lost or wrong"));
    Ok(findings)
}

/// The newest segment of the only shard.
fn last_segment(data: &Path) -> anyhow::Result<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(data.join("shard-00/log"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments.pop().ok_or_else(|| anyhow::anyhow!("no segment in {}", data.display()))
}

pub(in crate::chaos) async fn unwritable_store(context: Context) -> anyhow::Result<Findings> {
    let scratch = tempfile::Builder::new().prefix("lanekeeper-chaos-letters-").tempdir()?;
    let store = scratch.path().join("letters");
    // A file where the directory should be cannot be written into, not even by root.
    fs::write(&store, "in the way")?;
    let ill = context.endpoint(scripts::always(400)).await?;
    let mut scene = Scene::new(&context).await?;
    let subscription = scene.subscribe("ill", &ill, Retry::quick(2));
    subscription.more = format!("dead_letter: {{ blob: \"{}\" }}", store.display());
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    let letters =
        stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.dead_lettered == FEW as u64)).await?;
    let mut findings = Findings::default();
    findings.want(letters, || "the events are not in the mailbox".to_owned());
    stage.until(Duration::from_secs(2), |_| false).await?;
    fs::remove_file(&store)?;
    fs::create_dir(&store)?;
    let give_up = stage.now().plus(AMPLE);
    let mut exported = 0;
    while exported < FEW && stage.now() < give_up {
        tokio::time::sleep(Duration::from_millis(100)).await;
        exported = events_below(&store);
    }
    findings.want(exported == FEW, || format!("{exported} of {FEW} exported once the store was there"));
    findings.join(stage.audit().await?);
    findings.tell(format!("{FEW} kept in the mailbox, {exported} exported once the store was there"));
    Ok(findings)
}

/// Events in the JSON files below a folder: each file is a list.
fn events_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return events_below(&path);
            }
            let text = fs::read(&path).unwrap_or_default();
            let list = serde_json::from_slice::<Vec<serde_json::Value>>(&text);
            list.map_or(0, |list| list.len())
        })
        .sum()
}
