//! The command line.

mod clients;
mod keys;
mod mail;
mod recover;
mod sessions;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;

use crate::config::Settings;
use crate::domain::clock::SystemClock;
use crate::domain::random::SystemRandom;
use crate::domain::user::ADMIN;
use crate::services::admin::NewPerson;
use crate::services::{Backend, demo};
use crate::startup::{self, Application, Purpose};

/// Sign-in and session server.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version)]
pub struct Cli {
    /// TOML file with settings; environment variables `MAYFLY__SECTION__KEY` win over it.
    #[arg(long, global = true, env = "MAYFLY_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; makes folder, secrets, database and keys on the first run.
    Serve {
        /// Fill an empty database with a demo realm first (5 roles, 60 people, a month of events).
        #[arg(long)]
        demo: bool,
    },
    /// Bring the database to this version's tables, or back to those of an older one.
    Migrate {
        /// Before going back to an older program, with every node stopped: the version of its tables, which it names when
        /// it refuses to start.
        #[arg(long, value_name = "VERSION")]
        back_to: Option<i64>,
    },
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Administrators.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Other software that gets tokens in its own name.
    #[command(subcommand)]
    Clients(clients::ClientsCommand),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Keys of tokens; while the server runs or while it does not.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Mails: whether they arrive, and what waits.
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Sessions; while the server runs or while it does not.
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// After a backup was restored, before serving again: signs everybody out and refuses every token there is.
    Recover,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check it and print it, secrets redacted.
    Check,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Add an administrator and print the one-time link to set the password with.
    Create {
        /// Sign-in name.
        #[arg(long)]
        username: String,
        /// E-mail address.
        #[arg(long, default_value = "")]
        email: String,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verify the whole seal; names the first row that does not fit.
    Verify,
}

/// Anything that ends the program, in one sentence.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command.
///
/// # Errors
/// One clear sentence.
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let settings = Settings::load(cli.config.as_deref())?;
    if let Command::Config(ConfigCommand::Check) = cli.command {
        println!("{settings}");
        return Ok(ExitCode::SUCCESS);
    }
    startup::install_logging(&settings);
    crate::http::error::install_panic_hook();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(execute(cli.command, settings))
}

/// The services, for a command that writes while nodes serve the same database: not by a clock that none of them has (F18).
async fn open_beside(
    settings: &Settings,
    clock: Arc<SystemClock>,
    random: Arc<SystemRandom>,
) -> Result<Backend, CliError> {
    let backend = startup::open_backend(settings, clock, random, Purpose::Command).await?;
    if let Some(ahead) = backend.clock_is_off().await? {
        return Err(format!(
            "this machine's clock is minutes from those of the nodes that serve ({} s ahead of the database's): not carried out; \
             set the clock, or run the command where a node runs",
            ahead / 1000
        )
        .into());
    }
    Ok(backend)
}

async fn execute(command: Command, settings: Settings) -> Result<ExitCode, CliError> {
    let clock = Arc::new(SystemClock);
    let random = Arc::new(SystemRandom::default());
    match command {
        Command::Config(ConfigCommand::Check) => {}
        Command::Serve { demo } => {
            if demo {
                demo::fill_if_empty(&settings, random.clone()).await?;
            }
            Application::build(settings, clock, random).await?.run().await?;
        }
        Command::Migrate { back_to: None } => {
            startup::open_store(&settings, Purpose::Serve).await?.close().await;
            println!("The database is at this version's tables.");
        }
        Command::Migrate { back_to: Some(version) } => {
            let store = startup::open_store_alone(&settings).await?;
            store.migrate_back(version).await?;
            store.close().await;
            println!("The database is at version {version} of the tables. Start the older program now, not this one.");
        }
        Command::Admin(AdminCommand::Create { username, email }) => {
            let backend = open_beside(&settings, clock, random).await?;
            let new = NewPerson {
                username,
                email,
                display_name: String::new(),
                roles: vec![ADMIN.to_owned()],
            };
            match backend.add_person(new).await? {
                Ok(link) => println!("Open this link once, within 24 hours: {}", link.expose_secret()),
                Err(refused) => return Err(format!("not added: {refused:?}").into()),
            }
        }
        Command::Keys(command) => {
            let backend = open_beside(&settings, clock, random).await?;
            let said = keys::execute(command, &backend).await?;
            backend.store().close().await;
            print!("{said}");
        }
        Command::Mail(command) => {
            let backend = startup::open_backend(&settings, clock, random, Purpose::Command).await?;
            let said = mail::execute(command, &backend).await;
            backend.store().close().await;
            print!("{}", said?);
        }
        Command::Clients(command) => {
            clients::execute(command, &open_beside(&settings, clock, random).await?).await?;
        }
        Command::Sessions(command) => {
            let backend = open_beside(&settings, clock, random).await?;
            let done = sessions::execute(command, &backend).await;
            backend.store().close().await;
            done?;
        }
        Command::Recover => {
            let (backend, tx) = startup::open_to_recover(&settings, clock, random).await?;
            let said = recover::execute(&backend, tx, &startup::checkpoint_path(&settings)).await?;
            backend.store().close().await;
            print!("{said}");
        }
        Command::Audit(AuditCommand::Verify) => {
            let backend = startup::open_backend(&settings, clock, random, Purpose::Command).await?;
            let report = backend.verify_audit(&startup::checkpoint_path(&settings)).await?;
            println!("{report}");
            return Ok(if report.is_intact() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}
