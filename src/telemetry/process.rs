//! What the kernel says about this process, under the names every Prometheus client uses.
//!
//! Written as text at each scrape rather than kept in the recorder: its counters are integers, and
//! CPU time is not. On a system without `/proc` the lines are absent.

use std::fmt::Write as _;
use std::fs;

/// Ticks a second in `/proc/self/stat`: `USER_HZ`, 100 in the kernel's interface on every architecture
/// we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the process's metrics.
pub(super) fn render(text: &mut String) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let resident = field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1_024.0);
    let fds = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    // A count of descriptors is far below 2^32.
    let fds = fds
        .and_then(|count| u32::try_from(count).ok())
        .map(f64::from);
    let metrics = [
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory in RAM.",
            resident,
        ),
        (
            "process_threads",
            "gauge",
            "Threads.",
            field(&status, "Threads:"),
        ),
        ("process_open_fds", "gauge", "Open file descriptors.", fds),
        (
            "process_max_fds",
            "gauge",
            "Most open file descriptors.",
            field(&limits, "Max open files"),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the process was started, in seconds since 1970.",
            started(&stat),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time, user and system.",
            cpu(&stat),
        ),
    ];
    for (name, kind, help, value) in metrics {
        let Some(value) = value else { continue };
        // Writing to a String cannot fail.
        if writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        )
        .is_err()
        {
            return;
        }
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The kernel tells it in ticks since it was booted.
fn started(stat: &str) -> Option<f64> {
    let (_, after) = stat.rsplit_once(") ")?;
    let ticks: f64 = after.split(' ').nth(19)?.parse().ok()?;
    let booted = field(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(booted + ticks / TICKS_PER_SECOND)
}

fn cpu(stat: &str) -> Option<f64> {
    // The program's name, in parentheses, may itself contain spaces and parentheses.
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ').skip(11).map(str::parse::<f64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}
