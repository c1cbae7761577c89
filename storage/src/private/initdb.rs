//! Making a cluster: `initdb`, beside the place where the data will be.

use std::time::Duration;

use tokio::time::timeout;

use super::survey::Survey;
use super::{DATA, PrivateError, SUPERUSER, UNFINISHED};

/// `initdb` takes half a second; a slow disk may take much longer.
const DEADLINE: Duration = Duration::from_mins(2);

/// What it would say after the reason, which is of no use to whoever reads our error.
const ADVICE: &[&str] = &[
    "initdb: removing",
    "child process exited",
    "This user must also own",
];

/// Makes the data beside its place and moves it there whole: one that was interrupted is never taken for
/// a cluster. What fails leaves nothing.
pub(super) async fn make(survey: &Survey) -> Result<(), PrivateError> {
    let made = run(survey).await;
    for name in ["initdb.passwd", "initdb.group"] {
        // Only there for a user without a name.
        drop(std::fs::remove_file(survey.home.join(name)));
    }
    if made.is_err() {
        // Above all from a disk that is full: its space is needed.
        drop(std::fs::remove_dir_all(survey.home.join(UNFINISHED)));
    }
    made
}

async fn run(survey: &Survey) -> Result<(), PrivateError> {
    let (home, unfinished) = (&survey.home, survey.home.join(UNFINISHED));
    let folder = |source| PrivateError::Folder {
        path: unfinished.clone(),
        source,
    };
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(folder)?;
    }
    let mut command = survey.binaries.command("initdb");
    command
        .args(["--username", SUPERUSER, "--auth", "trust"])
        .args(["--encoding", "UTF8", "--no-locale", "--no-instructions"])
        // Relative, so that no character of the whole path matters to the shell that it uses.
        .args(["--pgdata", UNFINISHED])
        .current_dir(home)
        .kill_on_drop(true);
    survey.user.apply(&mut command);
    if let Some(name) = &survey.to_make {
        name.show(&mut command, home)?;
    }
    let failed = |reason: String| PrivateError::NotMade {
        home: home.clone(),
        reason,
    };
    let output = timeout(DEADLINE, command.output())
        .await
        .map_err(|_| failed(format!("initdb was not done within {DEADLINE:?}")))?
        .map_err(|error| failed(format!("initdb cannot be run: {error}")))?;
    if !output.status.success() {
        let said = reason(&String::from_utf8_lossy(&output.stderr));
        return Err(failed(format!("initdb failed ({}): {said}", output.status)));
    }
    // An empty folder may be in its place.
    std::fs::rename(&unfinished, home.join(DATA)).map_err(folder)
}

/// The lines that say what went wrong, in one.
fn reason(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim);
    let useful = lines
        .filter(|line| !line.is_empty() && !ADVICE.iter().any(|advice| line.starts_with(advice)));
    useful.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_line_without_advice() {
        let said = "2026-11-25 FATAL:  could not write: No space left on device\n\
            child process exited with exit code 1\n\ninitdb: removing data directory \"data.new\"\n";
        assert_eq!(
            reason(said),
            "2026-11-25 FATAL:  could not write: No space left on device"
        );
    }
}
