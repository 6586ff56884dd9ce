//! Log lines for a person. Every text in them is escaped, so text of Slack or of a receiver can
//! neither begin a line of its own nor give orders to a terminal.

use std::fmt::{self, Write};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
};

use super::escape;

/// Formatter that writes time, level, message, and each field as `name=value`, without spans.
pub(super) struct Text<W> {
    pub(super) colour: bool,
    /// Writer that gets whole lines.
    pub(super) write: W,
}

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for Text<W> {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = String::with_capacity(512);
        let mut time = String::new();
        // Writing to a string does not fail.
        SystemTime.format_time(&mut Writer::new(&mut time)).unwrap_or_default();
        let level = *event.metadata().level();
        if self.colour {
            let colour = colour(level);
            write!(line, "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{colour}m{level:>5}\u{1b}[0m")
        } else {
            write!(line, "{time} {level:>5}")
        }
        .unwrap_or_default();
        event.record(&mut Fields { line: &mut line, colour: self.colour });
        line.push('\n');
        (self.write)(line.as_bytes());
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

struct Fields<'a> {
    line: &'a mut String,
    colour: bool,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: &str) {
        self.line.push(' ');
        if field.name() == "message" {
            return escape::push(self.line, value, b"");
        }
        let name = field.name();
        if self.colour {
            write!(self.line, "\u{1b}[3m{name}\u{1b}[0m=").unwrap_or_default();
        } else {
            write!(self.line, "{name}=").unwrap_or_default();
        }
        let is_word = |byte: u8| byte.is_ascii_graphic() && !b"\"=".contains(&byte);
        if !value.is_empty() && value.bytes().all(is_word) {
            return self.line.push_str(value);
        }
        self.line.push('"');
        escape::push(self.line, value, b"\"\\");
        self.line.push('"');
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(colour: bool, log: impl FnOnce()) -> String {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&kept);
        let write = move |line: &[u8]| lines.lock().unwrap().extend_from_slice(line);
        let text = Text { colour, write };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(text), log);
        String::from_utf8(kept.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_the_message_and_then_every_field() {
        let log =
            || tracing::warn!(a.b = "c d", n = 3_u64, empty = "", id = %"x:1", "it is {}", "so");
        let line = logged(false, log);
        assert!(line.ends_with("  WARN it is so a.b=\"c d\" n=3 empty=\"\" id=x:1\n"), "{line}");
        assert!(logged(true, log).contains("\u{1b}[33m WARN\u{1b}[0m it is so"));
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_line_without_harmful_characters(text in any::<String>()) {
            let line = logged(false, || {
                tracing::info!(text, shown = %text, debug = ?text, "{text}");
            });
            let line = line.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(escape::is_harmful), "{}", line);
        }
    }
}
