//! Everything that can go wrong or stand still, and where an operator sees it. Each module lists
//! its own; docs/operations.md shows the lists, and a test provokes each entry. Pure.

/// A condition that goes wrong or stands still.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Word of the condition in the API.
    pub word: &'static str,
    /// Description, one sentence.
    pub what: &'static str,
    /// Log line at the default level: ERROR, WARN or INFO, a blank, and a part of the message.
    pub log: &'static str,
    /// Part of the command line's output.
    pub said: &'static str,
    /// Series that shows the condition, without the common prefix, with some of its labels.
    pub series: &'static str,
    /// Values of the series that are bad.
    pub bad: Bad,
}

/// The values of a series that are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Every value above 0.
    AboveZero,
    /// The value 0.
    Zero,
}

impl Bad {
    /// Returns whether a value is bad.
    pub fn is(self, value: f64) -> bool {
        match self {
            Self::AboveZero => value > 0.0,
            Self::Zero => value.abs() < f64::EPSILON,
        }
    }
}

/// Returns a Markdown table of troubles. `said` is the head of the column for the command line.
pub fn table(said: &str, troubles: impl IntoIterator<Item = Trouble>) -> String {
    let mut table = format!("| | what is wrong | log | {said} | metric |\n");
    table += "| --- | --- | --- | --- | --- |\n";
    for Trouble { word, what, log, said, series, bad } in troubles {
        let (level, text) = log.split_once(' ').unwrap_or_default();
        let bad = match bad {
            Bad::AboveZero => "above 0",
            Bad::Zero => "is 0",
        };
        let cells = [
            format!("`{word}`"),
            what.to_owned(),
            format!("{level} \"... {text} ...\""),
            format!("\"... {said} ...\""),
            format!("`{series}` {bad}"),
        ];
        table.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    table
}

/// The outcome of an event, and where an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Label `outcome` of the counter `events_total`.
    pub outcome: &'static str,
    /// Label `reason` of the same counter, or empty.
    pub reason: &'static str,
    /// Description, one sentence.
    pub what: &'static str,
    /// Log line: level, a blank, and a part of the message.
    pub log: &'static str,
    /// Value of the status that is neither empty nor 0, as a path with dots; or empty.
    pub status: &'static str,
    /// Part of the doctor's output, or empty.
    pub doctor: &'static str,
}

/// Returns a Markdown table of outcomes.
pub fn outcomes(outcomes: impl IntoIterator<Item = Outcome>) -> String {
    let mut table =
        "| | what became of it | log | `status --json` | `doctor` | metric |\n".to_owned();
    table += "| --- | --- | --- | --- | --- | --- |\n";
    for Outcome { outcome, reason, what, log, status, doctor } in outcomes {
        let (level, text) = log.split_once(' ').unwrap_or_default();
        let status = status.replace(".0", "[]");
        let cells = [
            format!("`{}`", if reason.is_empty() { outcome } else { reason }),
            what.to_owned(),
            format!("{level} \"... {text} ...\""),
            if status.is_empty() { "-".to_owned() } else { format!("`{status}`") },
            if doctor.is_empty() { "-".to_owned() } else { format!("\"... {doctor} ...\"") },
            format!("`events_total{{outcome=\"{outcome}\",reason=\"{reason}\"}}`"),
        ];
        table.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    table
}
