//! `noisy-tenant`: one tenant asks for many times its share of the models, and another must not notice.
//!
//! The quiet tenant is measured alone and beside the noisy one, twice each, against one server. Then two
//! tenants of different weights ask for more than there is, and what they get is compared.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::api;
use super::chats::{self, Chats};
use super::report::Report;
use super::rig::{Hubbub, Programs, Upstream};
use super::stats::{number, ratio};
use super::target::{Target, say};

/// The noisy tenant's chats begin over so long, and are left alone for so long before anything is measured.
const RAMP_SECONDS: f64 = 10.0;
const SETTLE: Duration = Duration::from_secs(4);
/// What the quiet tenant may notice, as a part of its time to first token alone.
const NOTICED: f64 = 0.10;
/// How far what two tenants get may be from their weights.
const OFF_WEIGHTS: f64 = 0.05;
/// Weights of the two tenants that are compared.
const WEIGHTS: [u32; 2] = [1, 3];

/// Parameters of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct NoisyTenant {
    /// What is run.
    #[command(flatten)]
    pub programs: Programs,
    /// Answers the upstream writes at once.
    #[arg(long, default_value_t = 100)]
    pub slots: u32,
    /// Chats of the noisy tenant, in times its share: half of the slots.
    #[arg(long, default_value_t = 100)]
    pub times: u32,
    /// Chats of the quiet tenant.
    #[arg(long, default_value_t = 20)]
    pub quiet: u32,
    /// Seconds of each of the four phases.
    #[arg(long, default_value_t = 20)]
    pub duration: u64,
    /// Seconds for which two tenants of different weights are compared.
    #[arg(long, default_value_t = 60)]
    pub compared: u64,
    /// Milliseconds to the upstream's first token.
    #[arg(long, default_value_t = 800)]
    pub ttft_ms: u64,
    /// Equal upstreams that share the slots. With more than one they have prefix caches, and questions follow one
    /// another in their sessions.
    #[arg(long, default_value_t = 1)]
    pub upstreams: u32,
}

/// Runs the scenario.
///
/// # Errors
/// When a server does not start or a phase cannot begin.
pub async fn run(options: &NoisyTenant, stop: &CancellationToken) -> anyhow::Result<Report> {
    let mut arguments = vec![
        format!("--ttft-ms={}", options.ttft_ms),
        "--token-interval-ms=10".to_owned(),
        "--tokens=40".to_owned(),
        // As models are: otherwise all slots are free at one moment, and none until the next.
        "--jitter=0.3".to_owned(),
    ];
    let equals = options.upstreams.max(1);
    if equals > 1 {
        arguments.extend([
            "--prefix-cache".to_owned(),
            "--prompt-token-us=500".to_owned(),
        ]);
    }
    let mut upstreams = Vec::new();
    for number in 1..=equals {
        let (name, slots) = (format!("sim-{number}"), options.slots / equals);
        upstreams.push(Upstream::start(&options.programs, &name, slots, &arguments).await?);
    }
    let settings = "limits.connections_per_tenant = 100000";
    let hubbub = Hubbub::start(&options.programs.hubbub()?, &upstreams, settings).await?;
    let mut report = Report::new(
        format!("noisy-tenant, {} times its share", options.times),
        "hubbub",
    );
    let outcome = async {
        phases(options, &hubbub, &upstreams, stop, &mut report).await?;
        weights(options, &hubbub, &upstreams, stop, &mut report).await
    };
    let outcome = outcome.await;
    hubbub.end().await;
    outcome?;
    Ok(report)
}

fn chats(upstreams: &[Upstream], concurrency: u32, duration: u64) -> Chats {
    Chats {
        fresh: upstreams.len() == 1,
        ..Chats::new(upstreams.first(), concurrency, duration)
    }
}

async fn phases(
    options: &NoisyTenant,
    hubbub: &Hubbub,
    upstreams: &[Upstream],
    stop: &CancellationToken,
    report: &mut Report,
) -> anyhow::Result<()> {
    let noisy = hubbub.tenant("Noisy", 1, 500).await?;
    let quiet = hubbub.tenant("Quiet", 1, 500).await?;
    let measured = chats(upstreams, options.quiet, options.duration);
    let mut moved = Vec::new();
    for round in 1..=2 {
        say(&format!("noisy-tenant: the quiet one alone, round {round}"));
        let alone = chats::run(&quiet, &measured, stop).await?;
        say(&format!(
            "noisy-tenant: beside the noisy one, round {round}"
        ));
        let (beside, noise) = beside(options, &noisy, &quiet, upstreams, stop).await?;
        for (name, of) in [("alone", &alone), ("beside", &beside), ("noisy", &noise)] {
            for measure in [
                "time to first token p50",
                "time to first token p95",
                "answered",
            ] {
                let value = of.value(measure).unwrap_or_default();
                let unit = if measure == "answered" { "" } else { "ms" };
                report.push(format!("{name} {round}: {measure}"), value, unit);
            }
            report.violations.merge(&of.violations);
        }
        for entry in &noise.entries {
            if entry.name.starts_with("error ") || entry.name == "told when to try again" {
                report.push(format!("noisy {round}: {}", entry.name), entry.value, "");
            }
        }
        let told = noise.value("told when to try again").unwrap_or_default();
        report
            .violations
            .check(told > 0.0, || "the noisy tenant is told nothing".to_owned());
        let failed = beside.value("refused or failed").unwrap_or_default();
        report.violations.check(failed == 0.0, || {
            format!("{failed} of the quiet tenant's failed")
        });
        let p95 = |of: &Report| of.value("time to first token p95").unwrap_or_default();
        moved.push(ratio(p95(&beside), p95(&alone)) - 1.0);
    }
    if upstreams.len() > 1 {
        let (mut read, mut cached) = (0, 0);
        for upstream in upstreams {
            let counters = api::control(&upstream.server.url).await?.counters;
            read += counters.prompt_tokens;
            cached += counters.cached_tokens;
        }
        let share = ratio(number(cached), number(read)) * 100.0;
        report.push("prompt tokens read from a cache", share, "%");
    }
    let worst = moved.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    report.push("the quiet one's p95 moves by at most", worst * 100.0, "%");
    report.violations.check(worst < NOTICED, || {
        format!("the quiet tenant's p95 moves by {:.1} %", worst * 100.0)
    });
    Ok(())
}

/// Both at once; the quiet one is measured once the noisy one is at its height.
async fn beside(
    options: &NoisyTenant,
    noisy: &Target,
    quiet: &Target,
    upstreams: &[Upstream],
    stop: &CancellationToken,
) -> anyhow::Result<(Report, Report)> {
    let share = (options.slots / 2).max(1);
    let noise = Chats {
        ramp: RAMP_SECONDS,
        ..chats(upstreams, share * options.times, 3_600)
    };
    let enough = stop.child_token();
    let measured = async {
        tokio::time::sleep(Duration::from_secs_f64(RAMP_SECONDS) + SETTLE).await;
        let quiet = chats::run(
            quiet,
            &chats(upstreams, options.quiet, options.duration),
            stop,
        )
        .await;
        enough.cancel();
        quiet
    };
    let (noise, quiet) = tokio::join!(chats::run(noisy, &noise, &enough), measured);
    Ok((quiet?, noise?))
}

async fn weights(
    options: &NoisyTenant,
    hubbub: &Hubbub,
    upstreams: &[Upstream],
    stop: &CancellationToken,
    report: &mut Report,
) -> anyhow::Result<()> {
    say("noisy-tenant: weights 1 and 3");
    let [less, more] = WEIGHTS;
    let less = hubbub.tenant("Less", less, 500).await?;
    let more = hubbub.tenant("More", more, 500).await?;
    // In new sessions always: whoever is answered more often has longer conversations otherwise, and what is
    // divided is work.
    let both = Chats {
        fresh: true,
        ..chats(upstreams, options.slots * 3, options.compared)
    };
    let (less, more) = tokio::join!(
        chats::run(&less, &both, stop),
        chats::run(&more, &both, stop)
    );
    let (less, more) = (less?, more?);
    let answers = |of: &Report| of.value("answered in time").unwrap_or_default();
    let share = ratio(answers(&more), answers(&less));
    report.push("weight 1: answers of 40 tokens", answers(&less), "");
    report.push("weight 3: answers of 40 tokens", answers(&more), "");
    report.push("weight 3 gets", share, "times as much");
    let expected = ratio(f64::from(WEIGHTS[1]), f64::from(WEIGHTS[0]));
    report
        .violations
        .check((share / expected - 1.0).abs() <= OFF_WEIGHTS, || {
            format!("weights 1 and 3 get 1 and {share:.2}")
        });
    report.violations.merge(&less.violations);
    report.violations.merge(&more.violations);
    Ok(())
}
