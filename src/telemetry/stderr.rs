//! Standard error as the log's writer: a reader that is gone, stuck or out of space costs lines of the
//! log, never the server. Lines that were lost are counted.
//!
//! Written in place, by whoever logs, so that the last words before a crash are not lost with a thread.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

/// What a pipe that says it can be written takes without blocking (POSIX allows no less than 512).
const ATOMIC_BYTES: usize = 4_096;

/// How long one line waits for a reader that is merely slow. Longer would add up: everybody who logs waits.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
const NO_PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Writes to standard error as long as somebody takes it.
#[derive(Debug, Default)]
pub(super) struct PatientStderr {
    /// The last line was lost: the next one waits for nobody.
    is_stuck: AtomicBool,
}

impl<'a> MakeWriter<'a> for PatientStderr {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &PatientStderr {
    /// Takes one whole event. Never fails: the formatting layer would complain to standard error itself,
    /// and panic when that cannot be written.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // Held from the question to the writing: another thread would fill what was found free.
        let mut stderr = io::stderr().lock();
        let was_stuck = self.is_stuck.load(Ordering::Relaxed);
        let written = write_patiently(&mut stderr, event, was_stuck);
        self.is_stuck.store(written.is_err(), Ordering::Relaxed);
        if written.is_err() {
            metrics::counter!("hubbub_log_lines_lost_total").increment(1);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what can be written without blocking for long.
fn write_patiently(
    out: &mut (impl Write + std::os::fd::AsFd),
    event: &[u8],
    was_stuck: bool,
) -> io::Result<()> {
    let patience = if was_stuck { NO_PATIENCE } else { PATIENCE };
    for piece in event.chunks(ATOMIC_BYTES) {
        let mut ready = [PollFd::new(out, PollFlags::OUT)];
        if poll(&mut ready, Some(&patience))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        out.write_all(piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_empties_takes_what_fits_and_blocks_nobody() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let line = vec![b'x'; 1_000];
        let mut written = 0;
        while write_patiently(&mut writer, &line, written > 0).is_ok() {
            written += 1;
            assert!(written < 100_000, "it never fills");
        }
        assert!(written > 0);
        // Read from, it takes lines again.
        let mut room = vec![0; 8_192];
        reader.read_exact(&mut room).unwrap();
        write_patiently(&mut writer, &line, true).unwrap();
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_and_no_more() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(write_patiently(&mut writer, b"line", false).is_err());
    }
}
