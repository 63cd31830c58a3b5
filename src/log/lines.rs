//! The queue of finished log lines, and the thread that writes them to standard error.
//!
//! ```text
//!   any thread ──push──► bounded channel ──► thread "log": whole lines, up to 4 KiB in one write ──► standard error
//!        └── no room: the line is dropped and counted
//! ```
//!
//! A thread that logs formats its line itself and copies it to the queue. It never waits: neither for the
//! reader of standard error nor for the writer, and it takes no lock. The writer only uses `try_recv` on the
//! channel, since a thread that waits in a channel makes senders take a lock to wake it; instead, the writer
//! parks.
//!
//! Invariants
//! 1. `queued_bytes` is the sum of the charges of all lines in the channel and in the writer's batch:
//!    [`Lines::push`] adds before it sends, and the writer subtracts after it has written. It is 0 exactly
//!    when all lines have been written.
//! 2. A line that is pushed while the writer sleeps wakes it: the writer sets `sleeping` before it checks the
//!    channel for the last time, a pusher reads `sleeping` after it has sent, and both have a `SeqCst` fence
//!    in between.
//!
//! Limits: [`QUEUE_BYTES_MAX`], [`DETAIL_BYTES_MAX`]; lines beyond them are counted by
//! `ringcast_log_lines_dropped_total`.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

/// The queue of lines, and the thread that writes them.
#[derive(Debug)]
pub(super) struct Lines {
    channel: Sender<Box<[u8]>>,
    shared: Arc<QueueState>,
    writer: Thread,
}

/// The state that the writer and the pushers share. The atomics are relaxed except where stated.
#[derive(Debug, Default)]
struct QueueState {
    /// Invariant 1. The writer subtracts with release order and `flush` reads with acquire order: lines no
    /// longer counted have been written.
    queued_bytes: AtomicUsize,
    /// Counts lines that pushers drop, and lines that the writer cannot write.
    dropped: AtomicU64,
    /// Counts written bytes, which show `flush` that lines are being read.
    written_bytes: AtomicU64,
    /// Invariant 2.
    sleeping: AtomicBool,
}

/// How much of the queue a line may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Importance {
    /// Only a part, so that a flood of details leaves room for other lines.
    Detail,
    /// All of it.
    Ordinary,
    /// Always accepted: the writer's own line about dropped lines, one for many.
    Notice,
}

impl Lines {
    /// Starts writing to `out`. When there is room again after lines were dropped, the writer's thread calls
    /// `report` with the number of lines that were dropped since the last call.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        report: impl FnMut(u64) + Send + 'static,
    ) -> io::Result<Lines> {
        let (channel, lines) = bounded(LINES_MAX + NOTICES_MAX);
        let shared = Arc::new(QueueState::default());
        let writer = Writer {
            lines,
            shared: Arc::clone(&shared),
            out,
            batch: Vec::with_capacity(BATCH_BYTES),
            charged: 0,
            reported: 0,
            written_since_report: 0,
        };
        // The writer's thread handles no signals: other threads do.
        let mut mask = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(report));
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        Ok(Lines {
            channel,
            shared,
            writer: thread?.thread().clone(),
        })
    }

    /// Queues a line, which ends with a line break; if there is no room, drops and counts it.
    pub(super) fn push(&self, line: &[u8], importance: Importance) {
        let room = match importance {
            Importance::Detail => DETAIL_BYTES_MAX,
            Importance::Ordinary => QUEUE_BYTES_MAX,
            Importance::Notice => usize::MAX,
        };
        let charge = charge(line);
        let before = self.shared.queued_bytes.fetch_add(charge, Ordering::Relaxed);
        if before.saturating_add(charge) > room || self.channel.try_send(line.into()).is_err() {
            self.shared.queued_bytes.fetch_sub(charge, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // SeqCst, between the send and the read of `sleeping`; the writer has its fence between the store and
        // its last check of the channel (invariant 2).
        fence(Ordering::SeqCst);
        if self.shared.sleeping.load(Ordering::Relaxed) && self.shared.sleeping.swap(false, Ordering::Relaxed)
        {
            self.writer.unpark();
        }
    }

    /// The number of dropped lines.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all pushed lines are written, but for at most `in_all`, and at most `without_progress` if
    /// nothing is read meanwhile. For the end of a process.
    pub(super) fn flush(&self, without_progress: Duration, in_all: Duration) {
        let (mut waited, mut silent) = (Duration::ZERO, Duration::ZERO);
        let mut written = self.written_bytes();
        while self.shared.queued_bytes.load(Ordering::Acquire) > 0 {
            if waited >= in_all || silent >= without_progress {
                return;
            }
            thread::sleep(CHECK_EVERY);
            waited += CHECK_EVERY;
            let now = self.written_bytes();
            silent = if now == written {
                silent + CHECK_EVERY
            } else {
                Duration::ZERO
            };
            written = now;
        }
    }

    fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }
}

/// The thread that writes.
struct Writer<W> {
    lines: Receiver<Box<[u8]>>,
    shared: Arc<QueueState>,
    out: W,
    batch: Vec<u8>,
    /// The sum of the charges of the lines in the batch.
    charged: usize,
    /// How many dropped lines have been reported.
    reported: u64,
    written_since_report: usize,
}

impl<W: Write> Writer<W> {
    fn run(mut self, mut report: impl FnMut(u64)) {
        loop {
            let is_all = self.fill_batch();
            if self.batch.is_empty() {
                self.sleep();
                continue;
            }
            let is_written = self.write();
            // While lines keep being dropped, this is reported at most once for each full queue that has been
            // written. While nothing can be written, it is not reported at all: the report would be the next line that
            // is lost, and so on for ever.
            if is_written && (is_all || self.written_since_report >= QUEUE_BYTES_MAX) {
                let dropped = self.shared.dropped.load(Ordering::Relaxed);
                if dropped > self.reported {
                    report(dropped - self.reported);
                    self.reported = dropped;
                }
                self.written_since_report = 0;
            }
        }
    }

    /// Fills the batch with whole lines. True if the channel had no more.
    fn fill_batch(&mut self) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.charged += charge(&line);
            self.batch.extend_from_slice(&line);
            if self.batch.len() >= BATCH_BYTES - LINE_BYTES_USUAL {
                return false;
            }
        }
        true
    }

    /// Writes the batch. False if its lines are lost.
    fn write(&mut self) -> bool {
        let written = write_whole(&mut self.out, &self.batch, &self.shared.written_bytes);
        if written.is_err() {
            // The lines are lost: the other end is closed, or the disk is full.
            let lines = self.batch.iter().filter(|byte| **byte == b'\n').count();
            self.shared
                .dropped
                .fetch_add(u64::try_from(lines).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.shared
            .queued_bytes
            .fetch_sub(self.charged, Ordering::Release);
        self.written_since_report += self.batch.len();
        self.charged = 0;
        self.batch.clear();
        written.is_ok()
    }

    fn sleep(&self) {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        // SeqCst: as in `Lines::push` (invariant 2).
        fence(Ordering::SeqCst);
        if self.lines.is_empty() {
            thread::park();
        }
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }
}

/// Writes all bytes, however long that takes, also if standard error is non-blocking, which another process
/// can make it.
fn write_whole(out: &mut impl Write, mut bytes: &[u8], written: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                written.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The charge for a line: its bytes, and the memory for its slot.
fn charge(line: &[u8]) -> usize {
    line.len().max(LINE_BYTES_USUAL)
}

/// Most bytes of lines that wait for the reader of standard error; further lines are dropped.
pub(super) const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// The part of it that lines of `debug` and `trace` may use.
const DETAIL_BYTES_MAX: usize = QUEUE_BYTES_MAX / 4 * 3;
const LINE_BYTES_USUAL: usize = 256;
const LINES_MAX: usize = QUEUE_BYTES_MAX / LINE_BYTES_USUAL;
/// Most waiting notices: the next one comes at the earliest when a whole queue has been written.
const NOTICES_MAX: usize = 4;
/// A pipe accepts this many bytes as one piece (`PIPE_BUF`), so that lines of several processes do not mix.
const BATCH_BYTES: usize = 4096;
/// How often `flush` checks for progress.
const CHECK_EVERY: Duration = Duration::from_millis(2);
/// How long the writer pauses when a non-blocking standard error accepts nothing.
const FULL_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use crossbeam_channel::{Receiver, unbounded};

    use super::*;

    /// Lines that go to a pipe that is not read yet, and the reported numbers of dropped lines.
    fn piped() -> (Lines, PipeReader, Receiver<u64>) {
        let (reader, out) = pipe().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test gets all reports")]
        let (report, reported) = unbounded();
        let lines = Lines::start(out, move |count| report.send(count).unwrap()).unwrap();
        (lines, reader, reported)
    }

    fn read(reader: &mut PipeReader, bytes: usize) -> String {
        let mut text = vec![0; bytes];
        reader.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn flush_soon(lines: &Lines) {
        lines.flush(Duration::from_millis(20), Duration::from_millis(20));
    }

    #[test]
    fn lines_come_whole_and_in_order_however_they_are_batched() {
        let (lines, mut reader, reported) = piped();
        let text: String = (0..2000).map(|number| format!("line {number}\n")).collect();
        let expected = text.clone();
        let reading = thread::spawn(move || read(&mut reader, expected.len()));
        for line in text.split_inclusive('\n') {
            lines.push(line.as_bytes(), Importance::Ordinary);
        }
        assert_eq!(reading.join().unwrap(), text);
        lines.flush(Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(lines.shared.queued_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(lines.dropped(), 0);
        assert!(reported.is_empty());
    }

    #[test]
    fn while_nobody_can_read_lost_lines_are_not_reported_by_further_lines() {
        let (lines, reader, reported) = piped();
        drop(reader);
        for _ in 0..3 {
            lines.push(b"lost\n", Importance::Ordinary);
            lines.flush(Duration::from_secs(10), Duration::from_secs(10));
        }
        assert_eq!(lines.shared.queued_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(lines.dropped(), 3);
        // The writer reports after it has written a batch, so the first two reports would be here by now.
        assert!(reported.is_empty());
    }

    #[test]
    fn a_stopped_reader_costs_lines_and_no_time_and_their_number_is_reported() {
        let (lines, mut reader, reported) = piped();
        let line = [vec![b'x'; 1023], b"\n".to_vec()].concat();
        // More than the pipe and the queue together can hold.
        let count = 4096;
        for _ in 0..count {
            lines.push(&line, Importance::Ordinary);
        }
        let dropped = lines.dropped();
        assert!(dropped > 0 && dropped < count);
        assert!(lines.shared.queued_bytes.load(Ordering::Relaxed) <= QUEUE_BYTES_MAX);
        flush_soon(&lines);
        assert!(reported.is_empty(), "there is no room yet");
        let kept = usize::try_from(count - dropped).unwrap();
        read(&mut reader, kept * line.len());
        assert_eq!(reported.recv().unwrap(), dropped);
        // From here on nothing is dropped.
        lines.push(&line, Importance::Ordinary);
        read(&mut reader, line.len());
        assert_eq!(lines.dropped(), dropped);
    }

    #[test]
    fn a_flood_of_details_leaves_room_for_other_lines() {
        let (lines, reader, _told) = piped();
        let line = [b'x'; 1024];
        for _ in 0..4096 {
            lines.push(&line, Importance::Detail);
        }
        let dropped = lines.dropped();
        assert!(dropped > 0);
        lines.push(&line, Importance::Ordinary);
        lines.push(&line, Importance::Notice);
        assert_eq!(lines.dropped(), dropped);
        lines.push(&line, Importance::Detail);
        assert_eq!(lines.dropped(), dropped + 1);
        drop(reader);
    }

    #[test]
    fn lines_to_a_closed_reader_are_counted_and_do_not_block() {
        let (lines, reader, _told) = piped();
        drop(reader);
        for _ in 0..3 {
            lines.push(b"lost\n", Importance::Ordinary);
        }
        lines.flush(Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(lines.dropped(), 3);
    }

    /// Accepts one byte at a time, and nothing at every other call.
    struct OneByteWriter<W>(W, bool);

    impl<W: Write> Write for OneByteWriter<W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                Err(ErrorKind::WouldBlock.into())
            } else {
                self.0.write(&bytes[..1])
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn with_a_non_blocking_standard_error_no_line_is_lost() {
        let (mut reader, out) = pipe().unwrap();
        let lines = Lines::start(OneByteWriter(out, false), |_| {}).unwrap();
        lines.push(b"all of it\n", Importance::Ordinary);
        assert_eq!(read(&mut reader, 10), "all of it\n");
        lines.flush(Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(lines.dropped(), 0);
    }
}
