//! The thread that writes the log.
//!
//! Invariants: a group of records is synced before anybody is told of it; a group that cannot be written leaves no
//! byte behind; the head is written after the group and so never ahead of it.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lanekeeper_actors::model::time::Timestamp;
use serde_json::json;

use super::head::Head;
use super::line::{self, Link};
use super::queue::{Batch, Entry};
use super::record::Record;
use super::recovery::{self, End, Shelved};
use super::{Shared, Unwritten, chain, reserve};

/// How long old files may outstay, while nothing else asks to look.
const TIDY: Duration = Duration::from_secs(3_600);

pub(super) struct Writer {
    shared: Arc<Shared>,
    end: Option<End>,
    /// Part of the open file that a failed write may have left behind.
    is_dirty: bool,
    tidied: Option<Duration>,
}

/// Ends the queue with the thread, so that nobody waits for a thread that is gone.
struct Ends<'a>(&'a Shared);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.queue.close();
        drop(self.0.queue.take());
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, end: None, is_dirty: false, tidied: None }
    }

    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        let _ends = Ends(&shared);
        loop {
            let batch = shared.queue.take();
            let is_last = batch.is_last;
            self.group(batch);
            if is_last {
                return;
            }
        }
    }

    /// Writes what was taken, and tells whoever waits.
    fn group(&mut self, batch: Batch) {
        let Batch { entries, dropped, .. } = batch;
        let untold = self.shared.sample.untold();
        if entries.is_empty() && dropped == 0 && untold == 0 {
            return;
        }
        let now = self.shared.clock.now();
        let mut all = Vec::with_capacity(entries.len() + 1);
        let mut answers = Vec::new();
        if dropped > 0 || untold > 0 {
            let after = Some(json!({ "records": dropped, "refusals_beyond_sample": untold }));
            all.push(Entry {
                at: now,
                record: Record { action: "audit.dropped", after, ..Record::default() },
            });
        }
        let mut notes = 0;
        for (entry, answer) in entries {
            match answer {
                Some(answer) => answers.push((all.len(), answer)),
                None => notes += 1,
            }
            all.push(entry);
        }
        match self.write(&all, !answers.is_empty()) {
            Ok(first) => {
                for (offset, answer) in answers {
                    let number = first + u64::try_from(offset).unwrap_or_default();
                    // Who does not wait any more need not be told.
                    answer.send(Ok(number)).ok();
                }
            }
            Err(error) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                self.shared.queue.lost(notes, dropped);
                self.shared.sample.give_back(untold);
                tracing::error!(%error, records = all.len(), "audit records not written");
                for (_, answer) in answers {
                    answer.send(Err(Unwritten::Disk)).ok();
                }
            }
        }
        self.tidy(now);
    }

    /// Writes records as a whole, and returns the number of the first. `is_urgent` makes the head durable too.
    fn write(&mut self, entries: &[Entry], is_urgent: bool) -> io::Result<u64> {
        self.open()?;
        self.rotate();
        self.append(entries, is_urgent)
    }

    /// Opens the files, and tells what was found.
    fn open(&mut self) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        let opened = recovery::open(&self.shared.folder);
        let (end, notes) = match opened {
            Err(error) if reserve::is_full(&error) && reserve::give_up(&self.shared.folder)? => {
                recovery::open(&self.shared.folder)?
            }
            opened => opened?,
        };
        self.shared.synced.store(end.link.sequence, Ordering::Release);
        self.end = Some(end);
        let at = self.shared.clock.now();
        let notes: Vec<_> = notes.into_iter().map(|record| Entry { at, record }).collect();
        for Entry { record, .. } in &notes {
            tracing::warn!(action = record.action, detail = ?record.asked, "audit log opened");
        }
        if !notes.is_empty() {
            let told = self.append(&notes, true);
            if told.is_err() {
                // They are found and told again.
                self.end = None;
            }
            told?;
        }
        Ok(())
    }

    fn append(&mut self, entries: &[Entry], is_urgent: bool) -> io::Result<u64> {
        let Some(end) = &mut self.end else { return Err(io::Error::other("the log is not open")) };
        let mut text = Vec::new();
        let first = end.link.sequence + 1;
        let link = entries
            .iter()
            .fold(end.link, |link, entry| line::write(&mut text, link, entry.at, &entry.record));
        let mut written = put(end, &text, &mut self.is_dirty);
        if written.as_ref().is_err_and(reserve::is_full)
            && is_urgent
            && reserve::give_up(&self.shared.folder)?
        {
            tracing::warn!("the disk is full: the audit log uses its reserve");
            written = put(end, &text, &mut self.is_dirty);
        }
        written?;
        if end.files.last().is_none_or(|file| file.number != end.number) {
            let begun = entries.first().map(|entry| entry.at.to_string()).unwrap_or_default();
            end.files.push(Shelved { number: end.number, bytes: 0, begun, before: end.link });
        }
        end.link = link;
        end.bytes += u64::try_from(text.len()).unwrap_or_default();
        if let Some(file) = end.files.last_mut() {
            file.bytes = end.bytes;
        }
        // The records are on disk. A head that is behind is no reason to say that they are not.
        let head = Head { link, file: end.number };
        let told = end.head.write(&head).and_then(|()| if is_urgent { end.head.sync() } else { Ok(()) });
        if let Err(error) = told {
            tracing::warn!(%error, "the head of the audit log is behind");
        }
        self.shared.synced.store(link.sequence, Ordering::Release);
        self.shared.records.fetch_add(u64::try_from(entries.len()).unwrap_or_default(), Ordering::Relaxed);
        Ok(first)
    }

    /// Begins a new file when the open one is large enough. Where there is no room for one, the old one goes on.
    fn rotate(&mut self) {
        let Some(end) = &mut self.end else { return };
        if end.bytes < self.shared.settings.file {
            return;
        }
        match recovery::create(&self.shared.folder, end.number + 1) {
            Ok(file) => {
                end.number += 1;
                (end.file, end.bytes) = (file, 0);
                self.is_dirty = false;
                self.tidied = None;
            }
            Err(error) => tracing::warn!(%error, "no new file for the audit log"),
        }
    }

    /// Takes old files away, and keeps some room back, now and then.
    fn tidy(&mut self, now: Timestamp) {
        let elapsed = self.shared.clock.elapsed();
        if self.end.is_none() || self.tidied.is_some_and(|before| elapsed.saturating_sub(before) < TIDY) {
            return;
        }
        self.tidied = Some(elapsed);
        while let Some((old, through)) = self.outdated(now) {
            if let Err(error) = self.retire(old, through) {
                tracing::warn!(%error, "old audit records stay");
                break;
            }
        }
        if let Err(error) = reserve::keep(&self.shared.folder) {
            tracing::warn!(%error, "the audit log has no reserve");
        }
    }

    /// The oldest file, if it is too old or one too many, and the end of the chain in it.
    fn outdated(&self, now: Timestamp) -> Option<(u64, Link)> {
        let end = self.end.as_ref()?;
        let [oldest, next, ..] = end.files.as_slice() else { return None };
        let settings = &self.shared.settings;
        let retain = u64::try_from(settings.retain.as_millis()).unwrap_or(u64::MAX);
        // All that is in it was written before the next one was begun. Times of this form sort as texts.
        let is_old = next.begun < Timestamp(now.0.saturating_sub(retain)).to_string();
        let total: u64 = end.files.iter().map(|file| file.bytes).sum();
        (is_old || total > settings.total).then_some((oldest.number, next.before))
    }

    /// Records that files are about to go, and takes them away.
    fn retire(&mut self, number: u64, through: Link) -> io::Result<()> {
        let record = Record {
            action: recovery::RETIRED,
            target: Some(chain::name(number)),
            through: Some(through.sequence),
            hash: Some(through.hash.text()),
            ..Record::default()
        };
        self.append(&[Entry { at: self.shared.clock.now(), record }], true)?;
        // Files that are of no use to readers go with it.
        for old in chain::numbers(&self.shared.folder)?.into_iter().take_while(|old| *old <= number) {
            fs::remove_file(chain::path(&self.shared.folder, old))?;
        }
        if let Some(end) = &mut self.end {
            end.files.retain(|file| file.number > number);
        }
        recovery::sync_folder(&self.shared.folder)
    }
}

/// Appends and syncs, or leaves the file as it was.
fn put(end: &mut End, text: &[u8], is_dirty: &mut bool) -> io::Result<()> {
    if *is_dirty {
        end.file.set_len(end.bytes)?;
        *is_dirty = false;
    }
    let written = end.file.write_all_at(text, end.bytes).and_then(|()| end.file.sync_data());
    if written.is_err() {
        *is_dirty = end.file.set_len(end.bytes).is_err();
    }
    written
}
