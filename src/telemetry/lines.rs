//! A bounded queue of lines, and the thread that writes them.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for a slow reader of the log.
const QUEUE: usize = 8_192;

/// Where [`flush`] asks. One process has one log.
static CURRENT: OnceLock<Lines> = OnceLock::new();

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
    /// Lines that did not fit, and that nobody was told of yet.
    dropped: Arc<AtomicU64>,
}

/// One event on its way into the queue.
pub(super) struct Line {
    text: Vec<u8>,
    lines: Lines,
}

impl Lines {
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let told = dropped.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&items, &told, out))?;
        let lines = Self { queue, dropped };
        CURRENT.get_or_init(|| lines.clone());
        Ok(lines)
    }

    /// Waits until the lines so far are written.
    fn flush(&self, at_most: Duration) {
        let (done, wait) = sync_channel(1);
        // A full queue whose reader is stuck cannot be flushed; then there is nothing to wait for.
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            wait.recv_timeout(at_most).ok();
        }
    }

    fn push(&self, text: Vec<u8>) {
        match self.queue.try_send(Item::Line(text)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

pub(super) fn flush(at_most: Duration) {
    if let Some(lines) = CURRENT.get() {
        lines.flush(at_most);
    }
}

fn write_all(items: &Receiver<Item>, dropped: &AtomicU64, mut out: impl Write) {
    for item in items {
        // Nobody can be told that the log cannot be written.
        match item {
            Item::Line(text) => out.write_all(&text).ok(),
            Item::Flush(done) => out.flush().ok().and(done.send(()).ok()),
        };
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            writeln!(out, "{{\"level\":\"WARN\",\"message\":\"log lines dropped\",\"count\":{dropped}}}")
                .ok();
        }
    }
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.lines.push(std::mem::take(&mut self.text));
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::new(), lines: self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let out = Shared::default();
        let lines = Lines::start(out.clone()).unwrap();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).finish();
        tracing::subscriber::with_default(log, || {
            tracing::info!(value = "a\r\nb\u{1b}[31m\u{2028}", "first");
            tracing::info!("second");
        });
        lines.flush(Duration::from_secs(10));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(first["value"], "a\r\nb\u{1b}[31m\u{2028}");
        assert!(!lines[0].contains('\u{1b}') && lines[1].contains("second"));
    }

    #[test]
    fn a_log_that_nobody_reads_costs_lines_and_never_time() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.recv().ok();
                Ok(text.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = sync_channel(0);
        let lines = Lines::start(Stuck(stuck)).unwrap();
        for _ in 0..QUEUE * 2 {
            lines.push(vec![b'x']);
        }
        drop(release);
    }
}
