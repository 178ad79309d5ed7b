//! `workloadnet`: asks the daemon, shows the answer, and says what to do where it fails.
//!
//! ```text
//! args (what was typed) -> commands (asks) -> render (text) -> stdout
//!                                 '---------> hint   (text) -> stderr
//! ```

mod adopt;
mod answer;
mod args;
mod commands;
mod demo;
mod hint;
mod install;
mod output;
mod render;

use answer::Failure;
use anyhow::Context as _;
use args::{Cli, Command};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use hint::Exit;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Attach { labels, .. } = &cli.command
        && let Some(key) = args::twice(labels)
    {
        let text = format!("the label {key:?} is given twice");
        Cli::command().error(ErrorKind::ArgumentConflict, text).exit();
    }
    let outcome = match &cli.command {
        // Needs a process with one thread.
        Command::Demo => demo::run().map(|()| Exit::Done),
        Command::Completions { shell } => show(io::stdout(), &completions(*shell)),
        Command::Man { folder: Some(folder) } => write_man_pages(folder),
        Command::Man { folder: None } => man_page().and_then(|page| show(io::stdout(), &page)),
        Command::InstallCni(network) => install::install(network, &socket(&cli), cli.output)
            .and_then(|text| show(io::stdout(), text.as_bytes())),
        Command::UninstallCni(place) => {
            install::uninstall(place, cli.output).and_then(|text| show(io::stdout(), text.as_bytes()))
        }
        command => ask(&cli, command),
    };
    let exit = outcome.unwrap_or_else(|error| {
        // Nobody is left to hear that nobody hears.
        let text = hint::own_failure(&format!("{error:#}"), cli.output);
        let _ = io::stderr().write_all(text.as_bytes());
        Exit::Refused
    });
    ExitCode::from(exit as u8)
}

fn socket(cli: &Cli) -> PathBuf {
    cli.socket.clone().unwrap_or_else(client::default_socket)
}

fn ask(cli: &Cli, command: &Command) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let socket = socket(cli);
    match runtime.block_on(commands::answer(&socket, command, cli.output)) {
        Ok(answer) => {
            show(io::stdout(), answer.text.as_bytes())?;
            Ok(answer.exit)
        }
        Err(Failure::Daemon(error)) => {
            show(io::stderr(), hint::text(&error, cli.output).as_bytes())?;
            Ok(hint::exit(&error))
        }
        Err(Failure::Own(error)) => Err(error),
    }
}

/// A reader that has gone, as `head` does, has what it wanted.
fn show(mut to: impl Write, text: &[u8]) -> anyhow::Result<Exit> {
    match to.write_all(text).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer")
        }
        _ => Ok(Exit::Done),
    }
}

fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "workloadnet", &mut script);
    script
}

fn man_page() -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page)?;
    Ok(page)
}

fn write_man_pages(folder: &Path) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .with_context(|| format!("cannot write man pages into {}", folder.display()))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is() {
        assert!(show(Broken(io::ErrorKind::BrokenPipe), b"text").is_ok());
        assert!(show(Broken(io::ErrorKind::StorageFull), b"text").is_err());
    }
}
