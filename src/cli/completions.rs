//! `completions` and `man`: what clap makes of the command line's own description.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, say};

/// Print a completion script.
#[derive(Args, Debug)]
pub struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> ExitCode {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        say(String::from_utf8_lossy(&script).trim_end());
        ExitCode::SUCCESS
    }
}

/// Print the man page, or write one a command.
#[derive(Args, Debug)]
pub struct Man {
    /// A folder for the pages of all commands; made if it does not exist.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let command: Command = Cli::command();
        if let Some(folder) = self.out {
            fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
                .with_context(|| folder.display().to_string())?;
        } else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            say(String::from_utf8_lossy(&page).trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }
}
