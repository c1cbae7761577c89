//! `load`: the load harness. Exits with 1 when a promise was broken.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hubbub_loadtest::harness::target::{Target, TargetArguments, say};
use hubbub_loadtest::harness::{
    bench, chats, fanout, flaky, idle, noisy, overload, report, run, slow, takeover,
};
use tokio_util::sync::CancellationToken;

/// Puts load on a Hubbub server and checks what it promised.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Many people talk to the bot at once.
    Chats(chats::Chats),
    /// Every message reaches every device of its session.
    Fanout(fanout::Fanout),
    /// Connections, or sessions, that do nothing.
    Idle(idle::Idle),
    /// Devices that do not read, beside devices that do.
    SlowDevice(slow::SlowDevice),
    /// One tenant asks for many times its share; another must not notice. Starts its servers itself.
    NoisyTenant(noisy::NoisyTenant),
    /// Many times as many chats as the models can serve. Starts its servers itself.
    Overload(overload::Overload),
    /// Operators take sessions over while answers stream. Starts its servers itself.
    Takeover(takeover::Takeover),
    /// One of three upstreams is killed and comes back, another fails now and then. Starts its servers itself.
    FlakyUpstream(flaky::FlakyUpstream),
    /// Starts the servers itself and runs scenarios against them, beside a bare reference.
    Run(run::Run),
    /// What is compared with a bare server, as a table with its goals. Starts its servers itself.
    Bench(bench::Bench),
}

// One thread: the harness shares the machine with the server it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    let listening = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            say("stopping; what was measured so far follows");
            interrupted.cancel();
        }
    });
    let target = || Target::new(&arguments.target);
    let reports = match &arguments.scenario {
        Scenario::Chats(options) => vec![chats::run(&target()?, options, &stop).await?],
        Scenario::Fanout(options) => vec![fanout::run(&target()?, options, &stop).await?],
        Scenario::Idle(options) => vec![idle::run(&target()?, options, &stop).await?],
        Scenario::SlowDevice(options) => vec![slow::run(&target()?, options, &stop).await?],
        Scenario::NoisyTenant(options) => vec![noisy::run(options, &stop).await?],
        Scenario::Overload(options) => vec![overload::run(options, &stop).await?],
        Scenario::Takeover(options) => vec![takeover::run(options, &stop).await?],
        Scenario::FlakyUpstream(options) => vec![flaky::run(options, &stop).await?],
        Scenario::Run(options) => run::run(options, arguments.target.connect_rate, &stop).await?,
        Scenario::Bench(options) => bench::run(options, &stop).await?,
    };
    listening.abort();
    let mut out = std::io::stdout();
    if matches!(arguments.scenario, Scenario::Bench(_)) {
        writeln!(out, "\n{}", bench::table(&reports))?;
    }
    for report in &reports {
        writeln!(out, "\n{}", report.markdown())?;
    }
    if let Some(path) = &arguments.target.report {
        report::write_json(path, &reports)?;
    }
    let kept = reports.iter().all(|report| report.violations.count == 0);
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
