//! CPU time and memory of processes, from `/proc`.

use std::collections::HashSet;
use std::fs;
use std::pin::pin;
use std::time::Duration;

use tokio::time::interval;

/// Clock ticks a second in `/proc/<pid>/stat`: `USER_HZ`, 100 on every Linux platform we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time of the process itself, in seconds.
    pub cpu_seconds: f64,
    /// The same of the process and all its descendants: with a private PostgreSQL, that too.
    pub tree_cpu_seconds: f64,
    /// Of that, what a PostgreSQL among the descendants used.
    pub database_cpu_seconds: f64,
    /// Resident memory of the process itself, in bytes.
    pub rss_bytes: f64,
    /// Its proportional share of memory, in bytes; 0 where it cannot be read.
    pub pss_bytes: f64,
}

/// Samples a process; all zero when it is gone.
pub fn sample(pid: u32) -> Usage {
    let tree = descendants(pid);
    let seconds_of = |of: fn(u32) -> bool| {
        let pids = tree.iter().copied().filter(|pid| of(*pid));
        pids.map(cpu_seconds).sum()
    };
    Usage {
        cpu_seconds: cpu_seconds(pid),
        tree_cpu_seconds: seconds_of(|_| true),
        database_cpu_seconds: seconds_of(is_postgres),
        rss_bytes: rss_bytes(pid),
        pss_bytes: memory(pid, "smaps_rollup", "Pss:"),
    }
}

fn rss_bytes(pid: u32) -> f64 {
    memory(pid, "status", "VmRSS:")
}

fn memory(pid: u32, file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    field_kib(&text, key) * 1_024.0
}

/// The most memory a process had while `work` was done, in bytes; 0 if it is not known.
pub async fn peak_rss_while<T>(pid: Option<u32>, work: impl Future<Output = T>) -> (T, f64) {
    let mut work = pin!(work);
    let mut pace = interval(SAMPLE_EVERY);
    let mut peak: f64 = 0.0;
    loop {
        tokio::select! {
            done = &mut work => return (done, peak),
            _ = pace.tick() => {
                peak = peak.max(pid.map(rss_bytes).unwrap_or_default());
            }
        }
    }
}

/// Samples the harness itself.
pub fn sample_self() -> Usage {
    sample(std::process::id())
}

/// The value of `Key:   123 kB`.
fn field_kib(text: &str, key: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

/// Fields of `/proc/<pid>/stat` after the command's name: parent, user ticks, system ticks.
fn parse_stat(text: &str) -> Option<(u32, f64)> {
    // The name may contain spaces and parentheses: the last one closes it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let user: f64 = fields.nth(9)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((parent, (user + system) / TICKS_PER_SECOND))
}

fn stat(pid: u32) -> Option<(u32, f64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn is_postgres(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "postgres")
}

fn cpu_seconds(pid: u32) -> f64 {
    stat(pid).map_or(0.0, |(_, seconds)| seconds)
}

/// The process and everything below it.
fn descendants(root: u32) -> HashSet<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.0)))
        .collect();
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| found.contains(p))
                .map(|(c, _)| *c)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return found;
        }
    }
}

/// The clients' ports of all established local TCP connections to a server's port, as the server's
/// side sees them; `None` when the kernel's table cannot be read. Takes milliseconds when there are
/// many connections: call it off the thread that measures.
pub fn established_clients(server_port: u16) -> Option<HashSet<u16>> {
    let text = fs::read_to_string("/proc/net/tcp").ok()?;
    Some(established(&text, server_port))
}

fn established(table: &str, server_port: u16) -> HashSet<u16> {
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let client = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (port(fields.next()?)?, port(fields.next()?)?);
        (local == server_port && fields.next() == Some("01")).then_some(remote)
    };
    table.lines().filter_map(client).collect()
}

/// How often long scenarios sample.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_full_of_parentheses() {
        let text = "7 (a) b) (c) S 1 7 7 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(text), Some((1, 2.0)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn the_harness_itself_can_be_sampled() {
        assert!(sample_self().rss_bytes > 1_000_000.0);
        assert_eq!(sample(u32::MAX), Usage::default());
    }

    #[test]
    fn a_connection_is_found_from_the_servers_side_only() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 0100007F:C350 01 x\n   1: 0100007F:C350 0100007F:1F90 08 x\n";
        assert_eq!(established(table, 0x1F90), HashSet::from([0xC350]));
        assert_eq!(established(table, 0xC350), HashSet::new());
    }
}
