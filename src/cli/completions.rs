//! `completions` and `man`: what clap makes of the command line's own description.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

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
        let script = String::from_utf8_lossy(&script);
        say(match self.shell {
            Shell::Bash => with_one_spelling(&script),
            Shell::Elvish | Shell::Fish | Shell::PowerShell | Shell::Zsh | _ => script.into_owned(),
        }
        .trim_end());
        ExitCode::SUCCESS
    }
}

/// Spells the program's name in one way throughout a bash script.
///
/// The generator escapes a hyphen differently where it sets the state and where it looks at it, so
/// nothing below the first word would be completed (<https://github.com/clap-rs/clap/issues/6421>).
fn with_one_spelling(script: &str) -> String {
    script.replace("slack__soar__relay", "slack__subcmd__soar__subcmd__relay")
}

/// The sections that no parser knows, in the order of man(7).
const SECTIONS: &str = r".SH EXIT STATUS
.TP
\fB0\fR
Success.
.TP
\fB1\fR
Failure: the log or the last line says why.
.TP
\fB2\fR
A mistake in the command line or in the configuration.
.SH ENVIRONMENT
.TP
\fBRELAY_CONFIG\fR
The configuration file, unless \fB\-\-config\fR names one.
.TP
\fBRELAY_OPS_TOKEN\fR
The token of the running relay's API, for the commands that ask it.
.TP
\fBNO_COLOR\fR
No colour if it is set and not empty.
.PP
Variables that the configuration names as \fI{env: NAME}\fR hold secrets.
.SH FILES
.TP
\fIrelay.yaml\fR
The configuration, unless another is named.
.TP
\fIrelay.db\fR, \fIrelay.db\-wal\fR, \fIrelay.db\-shm\fR, \fIrelay.db.lock\fR
The store, beside the configuration unless \fIstore.sqlite.path\fR says otherwise.
.SH EXAMPLES
.TP
See the whole path at work, without configuration and network:
.B slack\-soar\-relay demo
.TP
Make a first configuration, and run the relay:
.B slack\-soar\-relay setup && slack\-soar\-relay serve
.TP
Find out what is wrong:
.B slack\-soar\-relay doctor
.TP
Send what was given up once more:
.B slack\-soar\-relay alerts retry \-\-all\-dead
";

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
                .and_then(|()| add_sections(&folder.join("slack-soar-relay.1")))
                .with_context(|| folder.display().to_string())?;
        } else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            page.extend(SECTIONS.as_bytes());
            say(String::from_utf8_lossy(&page).trim_end());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn add_sections(page: &Path) -> io::Result<()> {
    File::options().append(true).open(page)?.write_all(SECTIONS.as_bytes())
}
