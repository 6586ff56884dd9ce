//! The reference page of the command line, generated from the parser's own description. Pure.

use clap::{Arg, Command};

const HEAD: &str = "\
# Command line

Generated from the output of `slack-soar-relay --help`; a test keeps this page current.

Results go to standard output, the log to standard error. Exit codes: 0 success, 1 failure, 2
invalid usage or configuration.
";

/// Returns the reference of a command and its subcommands as Markdown.
pub(super) fn page(mut command: Command) -> String {
    command.build();
    let mut page = HEAD.to_owned();
    page.extend([format!("\n{}\n", about(&command))]);
    page.push_str("\n## Global options\n\n");
    arguments(&mut page, &command, Arg::is_global_set);
    for inner in command.get_subcommands().filter(|command| is_shown(command)) {
        section(&mut page, command.get_name(), inner);
    }
    page
}

fn section(page: &mut String, above: &str, command: &Command) {
    let path = format!("{above} {}", command.get_name());
    page.extend([format!("\n## `{path}`\n\n{}\n\n", about(command))]);
    arguments(page, command, |argument| !argument.is_global_set());
    for inner in command.get_subcommands().filter(|command| is_shown(command)) {
        section(page, &path, inner);
    }
}

fn arguments(page: &mut String, command: &Command, is_listed: fn(&Arg) -> bool) {
    let is_shown =
        |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let mut arguments =
        command.get_arguments().filter(|arg| is_listed(arg)).filter(is_shown).peekable();
    if arguments.peek().is_none() {
        page.push_str("No arguments besides the global options.\n");
        return;
    }
    page.push_str("| argument | meaning |\n| --- | --- |\n");
    for argument in arguments {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let mut meaning = format!("{}.", help.trim_end_matches('.'));
        if let Some(variable) = argument.get_env() {
            meaning.extend([format!(" Environment variable: `{}`.", variable.display())]);
        }
        let defaults = argument.get_default_values();
        if argument.get_action().takes_values() && !defaults.is_empty() {
            let defaults: Vec<_> = defaults.iter().map(|one| one.to_string_lossy()).collect();
            meaning.extend([format!(" Default: `{}`.", defaults.join(" "))]);
        }
        page.extend([format!("| `{}` | {} |\n", name(argument), meaning.replace('|', "\\|"))]);
    }
}

/// Returns an argument in the form in which it is written, with the name of its value.
fn name(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let mut value: Vec<String> = values.iter().map(ToString::to_string).collect();
    if !argument.get_action().takes_values() {
        value.clear();
    }
    let flag = argument.get_long().map(|long| format!("--{long}"));
    let parts: Vec<String> = flag.into_iter().chain(value).collect();
    parts.join(" ").replace('|', "\\|")
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    format!("{}.", about.trim_end_matches('.'))
}

fn is_shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}
