//! `aex-admin`: see the library. Here are only its command line and its exit codes.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aex_admin::doors::Callers;
use aex_admin::prices::{self, PricesError};
use aex_admin::{audit, policy, policy_check, restore, serve, views};
use aex_admin_proto::money::usd;
use aex_admin_proto::places::Places;
use aex_admin_proto::{HoldId, checkpoints, clock};
use aex_sandbox::{Network, Sandbox};
use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_CONFIG` of sysexits.h: the unit's RestartPreventExitStatus.
const BAD_CONFIGURATION: u8 = 78;

/// Owner of the AEX ledger and policy. Normally started by `aex daemon start`.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  aex-admin audit --db ~/.aex/aex.db")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the sockets below $AEX_HOME/run, or those that systemd hands over, until SIGTERM.
    Serve {
        /// As a service of the whole host: /etc/aex, /var/lib/aex, sockets from systemd.
        #[arg(long)]
        system: bool,
        /// With --system: the user whose processes may call as workers.
        #[arg(
            long,
            value_name = "USER",
            default_value = "aex-proxy",
            requires = "system"
        )]
        worker_user: String,
        /// With --system: the user whose processes may call as the egress.
        #[arg(
            long,
            value_name = "USER",
            default_value = "aex-egress",
            requires = "system"
        )]
        egress_user: String,
    },
    /// Check a models.yaml, the prices and the policies beside it; exit 1 and FILE:LINE:COLUMN on stderr when it is bad.
    ConfigCheck {
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Print {"providers":…,"models":…,"policies":…,"warnings":[…]} instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Check policies, for `aex policy check`: prints a JSON document, exit 1 when they are bad.
    PolicyCheck {
        /// The models.yaml whose models they may name, and beside which `policies/` is.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Another directory than that one.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// A ledger, that agents which are not there are told.
        #[arg(long, value_name = "FILE")]
        db: Option<PathBuf>,
    },
    /// Print every price that is known, for `aex prices list`, as a JSON document.
    PricesList {
        /// The models.yaml beside which the operator's own prices.yaml is.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
    },
    /// Print what is known of one model, for `aex prices show`; exit 4 when it is nothing.
    PricesShow {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        model: String,
    },
    /// Write LiteLLM's table as a prices.yaml beside models.yaml, for `aex prices import`.
    PricesImport {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Check a ledger read-only, with the daemon running or stopped; exit 1 when it does not hold.
    Audit {
        #[arg(long, value_name = "FILE")]
        db: PathBuf,
        /// Checkpoints that were kept elsewhere, one JSON document a line, as `aex ledger checkpoint`
        /// prints them.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// Warnings, such as changes made with somebody's own SQL, fail too.
        #[arg(long)]
        strict: bool,
        /// Print one JSON document instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in a ledger's place, for `aex ledger restore`. Reads the ids of requests that were
    /// sent from standard input, one a line, and prints a JSON document.
    Restore {
        #[arg(long, value_name = "FILE")]
        db: PathBuf,
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Restore although the backup lacks something; what it lacks is recorded.
        #[arg(long)]
        accept_loss: bool,
    },
}

fn main() -> ExitCode {
    let hardened = aex_sandbox::harden();
    let args = Args::parse();
    // Files are private.
    umask(Mode::from_bits_truncate(0o077));
    let filter = tracing_subscriber::EnvFilter::try_from_env("AEX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A full disk must not end the program: the log's own errors are dropped, not printed.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
    if matches!(args.command, Command::Serve { .. }) {
        end_on_panic();
    }
    let entered = hardened.and_then(|()| sandbox(&args.command).enter());
    if let Err(error) = entered {
        return fail(&error.to_string());
    }
    match args.command {
        Command::Serve {
            system,
            worker_user,
            egress_user,
        } => {
            let callers = system.then_some(Callers {
                worker_user,
                egress_user,
            });
            run_server(callers.as_ref())
        }
        Command::ConfigCheck { file, json } => check_config(&file, json),
        Command::PolicyCheck { config, dir, db } => {
            let checked = policy_check::check(&config, dir.as_deref(), db.as_deref());
            let text = serde_json::to_string(&checked).map_or_else(|e| e.to_string(), |t| t + "\n");
            match out(&text) {
                ExitCode::SUCCESS if checked.ok => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Command::PricesList { config, provider } => {
            tell(prices::list(&config, provider.as_deref()))
        }
        Command::PricesShow { config, model } => tell(prices::show(&config, &model)),
        Command::PricesImport { config, from } => {
            tell(prices::import(&config, &from, clock::wall_ms()))
        }
        Command::Audit {
            db,
            against,
            strict,
            json,
        } => run_audit(&db, against.as_deref(), strict, json),
        Command::Restore {
            db,
            from,
            accept_loss,
        } => run_restore(&db, &from, accept_loss),
    }
}

/// A thread that panics takes the process along: half of it could neither decide nor recover.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// What each command may reach.
fn sandbox(command: &Command) -> Sandbox {
    let files = Sandbox::new(Network::None);
    match command {
        Command::Serve { system, .. } => match Places::choose(*system) {
            // It says so and ends.
            None => files,
            Some(places) => serving(&places, *system),
        },
        Command::ConfigCheck { file: config, .. }
        | Command::PricesList { config, .. }
        | Command::PricesShow { config, .. } => files.reads_around(config),
        Command::PolicyCheck { config, dir, db } => {
            let with_dir = dir.iter().fold(files, |files, dir| files.reads(dir));
            let with_db = (db.iter()).fold(with_dir, |files, db| files.writes_around(db));
            with_db.reads_around(config)
        }
        Command::PricesImport { config, from } => files.writes_around(config).reads(from),
        // Reading a ledger that is being written means to share memory with its writer, in a file.
        Command::Audit { db, against, .. } => {
            let against = against.iter();
            against.fold(files.writes_around(db), |files, kept| files.reads(kept))
        }
        Command::Restore { db, from, .. } => files.writes_around(db).writes_around(from),
    }
}

fn serving(places: &Places, system: bool) -> Sandbox {
    let sandbox = Sandbox::new(Network::Unix)
        .writes_around(&places.ledger)
        .reads_around(&places.config_file)
        .reads("/proc/sys/kernel/random/boot_id");
    if system {
        // The users of the other programs are looked up once, at the start.
        let users = ["/etc/passwd", "/etc/nsswitch.conf"].iter();
        return users.fold(sandbox.for_system(), |sandbox, file| sandbox.reads(file));
    }
    // Rules are for directories that are there.
    let _ = std::fs::create_dir_all(&places.run);
    sandbox.writes(&places.run)
}

fn run_server(system: Option<&Callers>) -> ExitCode {
    let Some(places) = Places::choose(system.is_some()) else {
        return fail("neither AEX_HOME nor HOME is set");
    };
    match serve::serve(&places, system) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failed = fail(&error.to_string());
            if error.is_of_the_settings() {
                return ExitCode::from(BAD_CONFIGURATION);
            }
            failed
        }
    }
}

fn check_config(file: &Path, json: bool) -> ExitCode {
    match policy::load_all(file) {
        Ok((config, policies, warnings)) if json => out(&format!(
            "{}\n",
            serde_json::json!({
                "providers": config.providers.len(),
                "models": config.models.len(),
                "policies": policies.len(),
                "warnings": warnings,
                "provider_list": views::providers(&config),
            })
        )),
        Ok((config, policies, warnings)) => {
            let mut text = format!(
                "{}: ok, {} providers, {} models, {} policies\n",
                file.display(),
                config.providers.len(),
                config.models.len(),
                policies.len()
            );
            for warning in warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            out(&text)
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// An answer about prices, or why there is none, with `aex`'s own exit code.
fn tell<T: serde::Serialize>(answer: Result<T, PricesError>) -> ExitCode {
    match answer {
        Ok(answer) => {
            out(&serde_json::to_string(&answer).map_or_else(|e| e.to_string(), |text| text + "\n"))
        }
        Err(error) => {
            let _ = fail(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_audit(db: &Path, against: Option<&Path>, strict: bool, json: bool) -> ExitCode {
    let against = match against.map_or(Ok(Vec::new()), checkpoints::read) {
        Ok(against) => against,
        Err(error) => return fail(&error),
    };
    let report = match audit::of_file(db, &against) {
        Ok(report) => report,
        Err(error) => return fail(&format!("{}: {error}", db.display())),
    };
    let text = if json {
        serde_json::to_string(&report).map_or_else(|e| e.to_string(), |text| text + "\n")
    } else {
        let mut text = String::new();
        for (kind, findings) in [
            ("violation", &report.violations),
            ("warning", &report.warnings),
        ] {
            for finding in findings {
                let agent = finding.agent.as_deref().unwrap_or("-");
                let event = finding
                    .event
                    .map_or("-".to_owned(), |event| event.to_string());
                text.push_str(&format!(
                    "{kind}: {} agent {agent} event {event}: {}\n",
                    finding.property, finding.message
                ));
            }
        }
        let verdict = if report.ok { "ok" } else { "VIOLATED" };
        text.push_str(&format!(
            "audit {verdict}: {} events, {} agents, spent {}, head {}\n",
            report.events,
            report.agents,
            usd(report.spent_micro),
            report.head
        ));
        text
    };
    out(&text);
    let holds = report.ok && (!strict || report.warnings.is_empty());
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_restore(db: &Path, from: &Path, accept_loss: bool) -> ExitCode {
    let sent = match read_ids(std::io::stdin()) {
        Ok(sent) => sent,
        Err(error) => return fail(&format!("standard input: {error}")),
    };
    match restore::restore(db, from, sent, accept_loss) {
        Ok(report) => {
            out(&serde_json::to_string(&report).map_or_else(|e| e.to_string(), |text| text + "\n"));
            ExitCode::from(u8::from(!report.restored))
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// The egress's journal has at most some 200,000 of them.
fn read_ids(input: impl std::io::Read) -> Result<HashSet<HoldId>, String> {
    const MAX_BYTES: u64 = 64 * 1024 * 1024;
    let mut text = String::new();
    input
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    text.lines()
        .map(|line| {
            line.parse()
                .map_err(|_| format!("not a reservation id: {line}"))
        })
        .collect()
}

fn out(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "aex-admin: {message}");
    ExitCode::FAILURE
}
