//! Logs on standard error, one event a line, and panics as events.

use std::io::{self, Write};
use std::panic::PanicHookInfo;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::TelemetryError;
use super::stderr::PatientStderr;

/// The longest panic message that is logged, in bytes: it may quote what a client sent.
const PANIC_BYTES: usize = 1_024;

/// What of other crates says again what we say: the pool has a warning for each connection of a database
/// that went away, the workers a line for each of them at start and stop. A filter that names them shows it.
const QUIET: [(&str, Level); 2] = [("deadpool", Level::ERROR), ("actix_server", Level::WARN)];

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// Plain text for people.
    Pretty,
}

/// Sends events that pass `filter` (in the words of [`EnvFilter`]) to standard error.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let quiet: Vec<_> = QUIET
        .into_iter()
        .filter(|(module, _)| !filter.contains(module))
        .collect();
    let registry = tracing_subscriber::registry()
        .with(EnvFilter::try_new(filter)?)
        .with(filter_fn(move |event| {
            let of = quiet.iter();
            let mut of = of.filter(|(module, _)| event.target().starts_with(module));
            of.all(|(_, level)| event.level() <= level)
        }));
    match format {
        LogFormat::Json => {
            // The list of spans holds the current one too.
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false);
            registry
                .with(layer.with_writer(PatientStderr::default()))
                .try_init()?;
        }
        LogFormat::Pretty => {
            // No colours: an escape sequence in a field would look like one of them.
            let layer = tracing_subscriber::fmt::layer().with_ansi(false);
            registry
                .with(layer.with_writer(OneLine(PatientStderr::default())))
                .try_init()?;
        }
    }
    Ok(())
}

/// Logs each panic as an event instead of on bare standard error. The process goes on: what panicked
/// is restarted by its supervisor.
pub fn log_panics() {
    std::panic::set_hook(Box::new(report_panic));
}

fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("(not a text)");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("(unnamed)");
    ::metrics::counter!("hubbub_panics_total").increment(1);
    tracing::error!(
        location,
        thread,
        panic = truncated(message, PANIC_BYTES),
        "panicked"
    );
}

/// At most `bytes` of `text`, cut between characters.
pub(crate) fn truncated(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Makes writers that escape every control character of an event but its final line break: a line
/// break in a logged text would let its author forge lines, an escape sequence command a terminal.
/// `tracing-subscriber` itself escapes messages, but (0.3.23) not fields recorded by `Display`.
struct OneLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLineWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLineWriter(self.0.make_writer())
    }
}

/// Is given one whole event by each `write`: that is how the formatting layer works.
struct OneLineWriter<W>(W);

impl<W: Write> Write for OneLineWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let body = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
        if !body.contains(char::is_control) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut line = String::with_capacity(body.len() + 16);
        for character in body.chars() {
            if character.is_control() {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn control_characters_cannot_forge_lines_or_colours() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(OneLine(move || writer.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let hostile = "a\nERROR forged\r\x1b[31mred\x07\x7f\u{9b}";
            tracing::info!(%hostile, "said {hostile}");
        });
        let text = buffer.text();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let controls: Vec<_> = text.trim_end().chars().filter(|c| c.is_control()).collect();
        assert!(controls.is_empty(), "{text:?}");
        assert!(text.contains("ERROR forged"));
    }

    #[test]
    fn a_panic_becomes_an_event_and_the_process_lives() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let previous = std::panic::take_hook();
            log_panics();
            let caught = std::panic::catch_unwind(|| panic!("canary {}", 7));
            std::panic::set_hook(previous);
            assert!(caught.is_err());
        });
        let line = buffer.text();
        let event: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        assert_eq!(event["fields"]["panic"], "canary 7");
        assert!(
            event["fields"]["location"]
                .as_str()
                .unwrap()
                .contains("logs.rs")
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncated("aé", 2), "a");
        assert_eq!(truncated("aé", 3), "aé");
        assert_eq!(truncated("", 3), "");
    }
}
