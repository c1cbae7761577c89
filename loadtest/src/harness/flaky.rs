//! `flaky-upstream`: three upstreams under many chats; one is killed and comes back, another fails now and then.
//!
//! Answers that were being written by the one that died end as failed, once and with what was shown. Every other
//! question must be answered: those whose answer had not begun move to another upstream.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::chats::{self, Chats};
use super::report::Report;
use super::rig::{Hubbub, Programs, Upstream};
use super::target::say;
use super::{api, stats};

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct FlakyUpstream {
    /// What is run.
    #[command(flatten)]
    pub programs: Programs,
    /// Chats at once.
    #[arg(short, long, default_value_t = 300)]
    pub concurrency: u32,
    /// Seconds of it. The upstream is gone for the second third.
    #[arg(long, default_value_t = 30)]
    pub duration: u64,
    /// Share of the third upstream's requests that it answers with an error.
    #[arg(long, default_value_t = 0.02)]
    pub error_rate: f64,
}

/// Runs the scenario.
///
/// # Errors
/// When a server does not start or the chats cannot begin.
pub async fn run(options: &FlakyUpstream, stop: &CancellationToken) -> anyhow::Result<Report> {
    let programs = &options.programs;
    let arguments = ["--ttft-ms=300", "--token-interval-ms=20", "--tokens=60"].map(str::to_owned);
    let slots = options.concurrency;
    let a = Upstream::start(programs, "a", slots, &arguments).await?;
    let mut b = Upstream::start(programs, "b", slots, &arguments).await?;
    let mut erring = arguments.to_vec();
    erring.push(format!("--error-rate={}", options.error_rate));
    let c = Upstream::start(programs, "c", slots, &erring).await?;
    let hubbub = Hubbub::start(&programs.hubbub()?, [&a, &b, &c], "").await?;
    let target = hubbub.demo(500)?;
    let chats = Chats {
        ramp: 2.0,
        patient: false,
        no_read_back: false,
        ..Chats::new(Some(&a), options.concurrency, options.duration)
    };
    let third = Duration::from_secs(options.duration) / 3;
    let mishap = async {
        sleep(third).await;
        let running = api::control(&b.server.url).await?.counters.running;
        let listen = b.server.url.trim_start_matches("http://").to_owned();
        say(&format!(
            "flaky-upstream: b dies, writing {running} answers"
        ));
        b.server.kill().await?;
        sleep(third).await;
        say("flaky-upstream: b is back");
        let mut arguments = arguments.to_vec();
        arguments.push(format!("--listen={listen}"));
        b = Upstream::start(programs, "b", slots, &arguments).await?;
        anyhow::Ok(running)
    };
    let (found, running) = tokio::join!(chats::run(&target, &chats, stop), mishap);
    let back = api::control(&b.server.url)
        .await
        .map(|control| control.counters.started);
    let erred = api::control(&c.server.url)
        .await
        .map(|control| control.counters.spoiled);
    hubbub.end().await;
    let mut report = found?;
    "flaky-upstream".clone_into(&mut report.scenario);
    let (running, back) = (running?, back?);
    report.push(
        "answers b was writing when it died",
        stats::number(running),
        "",
    );
    report.push(
        "questions b was asked after it was back",
        stats::number(back),
        "",
    );
    report.push("errors of c", stats::number(erred?), "");
    let failed = report.value("refused or failed").unwrap_or_default();
    let unshown = report
        .value("failed before the first text")
        .unwrap_or_default();
    let broken = &mut report.violations;
    broken.check(unshown == 0.0, || {
        format!("{unshown} failed though nothing was shown of them")
    });
    broken.check(failed <= stats::number(running), || {
        format!("{failed} failed, but only {running} were being written")
    });
    broken.check(back > 0, || "b is not asked any more".to_owned());
    Ok(report)
}
