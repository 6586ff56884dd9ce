//! Completion scripts and man pages, in real shells.

use std::{fs, path::Path, process::Command};

fn relay(arguments: &[&str]) -> String {
    let binary = env!("CARGO_BIN_EXE_slack-soar-relay");
    let output = Command::new(binary).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a script and returns what it printed.
fn shell(shell: &str, script: &Path) -> String {
    let output = Command::new(shell).arg(script).output().expect("the shell is installed");
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shell}: {err}");
    String::from_utf8(out).unwrap()
}

/// A typed line, and the words that a shell must offer for its last word.
const TYPED: [(&str, &[&str]); 6] = [
    ("al", &["alerts"]),
    ("alerts re", &["retry"]),
    ("alerts list --st", &["--state"]),
    ("alerts list --state d", &["dead", "delivered"]),
    ("alerts list --severity m", &["medium"]),
    ("--log-format j", &["json"]),
];

#[test]
fn bash_completes_commands_options_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let completions = dir.path().join("completions");
    fs::write(&completions, relay(&["completions", "bash"])).unwrap();
    for (typed, offers) in TYPED {
        // `complete -p` names the function; bash itself would call it with these variables.
        let script = format!(
            "source {}\nfor word in $(complete -p slack-soar-relay); do\n  \
             [ \"$last\" = -F ] && function=$word\n  last=$word\ndone\n\
             COMP_WORDS=(slack-soar-relay {typed})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             $function slack-soar-relay \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            completions.display()
        );
        let path = dir.path().join("script");
        fs::write(&path, script).unwrap();
        let offered = shell("bash", &path);
        let mut offered: Vec<&str> = offered.lines().collect();
        offered.sort_unstable();
        assert_eq!(offered, offers, "{typed}");
    }
}

#[test]
fn zsh_completes_commands_options_and_values() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("_slack-soar-relay"), relay(&["completions", "zsh"])).unwrap();
    for (typed, offers) in TYPED {
        // A shell on a terminal of its own, in which a key is bound to listing what fits. It takes
        // what is typed once its editor shows the prompt; a list that never comes ends the script.
        let script = format!(
            "zmodload zsh/zpty\nzpty inner zsh -f -i\n\
             zpty -w inner 'TERM=dumb; fpath=({folder} $fpath); autoload -Uz compinit; \
             compinit -u -d {folder}/dump; setopt noautomenu nolistbeep; \
             bindkey \"^I\" list-choices; PS1=REA\"\"DY'\n\
             zpty -r inner out '*READY*'\n\
             zpty -w -n inner $'slack-soar-relay {typed}\\t'\n\
             zpty -r inner out $'*\\n*{offered}*'\nprint found\nzpty -d inner\n",
            folder = dir.path().display(),
            offered = offers.join("*"),
        );
        let path = dir.path().join("script");
        fs::write(&path, script).unwrap();
        let output = Command::new("timeout").args(["30", "zsh"]).arg(&path).output().unwrap();
        assert_eq!(output.stdout, b"found\n", "{typed}: {offers:?} are not offered");
    }
}

#[test]
fn the_man_page_has_the_sections_that_people_look_for() {
    let page = relay(&["man"]);
    for section in ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}");
    }
    let dir = tempfile::tempdir().unwrap();
    relay(&["man", "--out", dir.path().to_str().unwrap()]);
    let written = fs::read_to_string(dir.path().join("slack-soar-relay.1")).unwrap();
    assert!(written.contains(".SH EXIT STATUS"));
}

#[test]
fn help_tells_global_options_from_those_of_the_command() {
    let help = relay(&["alerts", "list", "--help"]);
    let (own, global) = help.split_once("Global options:").unwrap();
    assert!(own.contains("--state") && !own.contains("--log-format"), "{help}");
    assert!(global.contains("--config") && global.contains("--log-level"), "{help}");
}
