//! What can go wrong or stand still, and where an operator sees it. The modules that know list
//! theirs; docs/operations.md shows the lists, and a test provokes each. Pure.

/// Something that goes wrong or stands still.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// The word for it in the API.
    pub word: &'static str,
    /// What is so, in one sentence.
    pub what: &'static str,
    /// The log line that says it at the default level: ERROR, WARN or INFO, a blank, and a part of
    /// the message.
    pub log: &'static str,
    /// A part of what the command line says of it.
    pub said: &'static str,
    /// The series that shows it, without the prefix of all; its labels are a part of them.
    pub series: &'static str,
    /// Which values of the series are bad.
    pub bad: Bad,
}

/// Which values of a series are bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Those above 0.
    AboveZero,
    /// 0.
    Zero,
}

impl Bad {
    /// Whether a value is bad.
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

/// What can become of an event, and where an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The label `outcome` of the counter `events_total`.
    pub outcome: &'static str,
    /// Its label `reason`, or empty.
    pub reason: &'static str,
    /// What is so, in one sentence.
    pub what: &'static str,
    /// The log line that says it: its level, a blank, and a part of the message.
    pub log: &'static str,
    /// The value of the status that is not empty and not 0, as a path with dots; or empty.
    pub status: &'static str,
    /// A part of what the doctor says, or empty.
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
