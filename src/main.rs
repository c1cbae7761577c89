//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use hubbub::app::{self, ServeOptions};
use hubbub::config::{self, Config, Inputs};
use hubbub::{cli, telemetry};
use hubbub_storage::private::guard;

/// Measured against the C library's and mimalloc: memory is given back after a rush, at the least memory
/// for an idle connection (docs/performance.md). A thread of its own gives it back: a server that has
/// nothing to do any more calls no allocator that could.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A real-time, multi-tenant chat server for AI assistants.
#[derive(Debug, Parser)]
#[command(name = "hubbub", version, arg_required_else_help = true)]
struct Arguments {
    /// The configuration file; without it, defaults and HUBBUB__SECTION__KEY variables.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where to keep things; overrides server.data_dir.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        /// Address and port; overrides server.listen.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,

        /// Make a demo tenant at the first start and serve its page at /.
        #[arg(long)]
        demo: bool,
    },
    /// Check the configuration and print the effective values.
    CheckConfig,
    /// Print an annotated example configuration.
    ExampleConfig,
    /// Change or show the database's schema.
    #[command(subcommand)]
    Migrate(cli::Migrate),
    /// Make and list tenants.
    #[command(subcommand)]
    Tenant(cli::tenants::Tenant),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(cli::tenants::Key),
    /// Set and list what models cost.
    #[command(subcommand)]
    Price(cli::usage::Price),
    /// Set, list and remove what may be spent.
    #[command(subcommand)]
    Budget(cli::usage::Budget),
    /// Show what answers took and cost.
    Usage(cli::usage::Usage),
    /// End the private PostgreSQL in HOME when standard input closes; the server runs this itself.
    #[command(name = guard::COMMAND, hide = true)]
    GuardPostgres {
        /// The cluster's folder.
        home: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up, or be JSON: a person at a terminal reads this.
            let _unwritable = writeln!(std::io::stderr(), "hubbub: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut inputs = Inputs::from_process(arguments.config);
    if let Some(data_dir) = &arguments.data_dir {
        inputs = inputs.with_flag("server.data_dir", data_dir.display().to_string());
    }
    // As it was given: what is shown of it need not be all of it.
    let load = |inputs: &Inputs| {
        let (mut config, effective) = Config::load(inputs)?;
        if let Some(data_dir) = arguments.data_dir {
            config.server.data_dir = data_dir;
        }
        anyhow::Ok((config, effective))
    };
    match arguments.command {
        Command::ExampleConfig => print(&config::example()),
        Command::CheckConfig => print(&load(&inputs)?.1.to_string()),
        Command::Serve { listen, demo } => {
            if let Some(listen) = listen {
                inputs = inputs.with_flag("server.listen", listen);
            }
            let (config, _) = load(&inputs)?;
            let metrics = set_up_telemetry(&config)?;
            let served = app::serve(config, ServeOptions { demo }, metrics);
            actix_rt::System::new().block_on(served)
        }
        Command::Migrate(migrate) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::migrate(&config, migrate))
        }
        Command::Tenant(command) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::tenants::tenant(&config, command))
        }
        Command::Key(command) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::tenants::key(&config, command))
        }
        Command::Price(command) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::usage::price(&config, command))
        }
        Command::Budget(command) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::usage::budget(&config, command))
        }
        Command::Usage(usage) => {
            let (config, _) = load(&inputs)?;
            report(&config, cli::usage::usage(&config, usage))
        }
        Command::GuardPostgres { home } => Ok(guard::run(&home)?),
    }
}

/// Runs a command that is not the server, and prints what it has to say.
fn report(
    config: &Config,
    command: impl Future<Output = anyhow::Result<String>>,
) -> anyhow::Result<()> {
    set_up_telemetry(config)?;
    print(&actix_rt::System::new().block_on(command)?)
}

fn set_up_telemetry(config: &Config) -> anyhow::Result<telemetry::Metrics> {
    let format = match config.log.format {
        config::LogFormat::Json => telemetry::LogFormat::Json,
        config::LogFormat::Pretty => telemetry::LogFormat::Pretty,
    };
    telemetry::init_logs(format, &config.log.level).context("the log cannot be set up")?;
    telemetry::log_panics();
    telemetry::Metrics::install().context("the metrics cannot be set up")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
