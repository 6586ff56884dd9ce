//! One JSON object per line. The format of `tracing-subscriber` says the same at several times the
//! cost, and each accepted alert is a line.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
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

/// Formatter that writes `timestamp`, `level`, the event's fields and `target`, without spans. The
/// writer gets whole lines.
pub(super) struct Json<W>(pub(super) W);

impl<S: Subscriber, W: Fn(&[u8]) + 'static> Layer<S> for Json<W> {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        // Writing to a string does not fail.
        SystemTime.format_time(&mut Writer::new(&mut line)).unwrap_or_default();
        line.push_str("\",\"level\":\"");
        line.push_str(event.metadata().level().as_str());
        line.push('"');
        event.record(&mut Fields(&mut line));
        line.push_str(",\"target\":\"");
        line.push_str(event.metadata().target());
        line.push_str("\"}\n");
        (self.0)(line.as_bytes());
    }
}

/// Returns a line with a message alone, for use before logging has begun.
pub(super) fn line(level: &str, message: &str) -> String {
    let mut line = String::from("{\"timestamp\":\"");
    SystemTime.format_time(&mut Writer::new(&mut line)).unwrap_or_default();
    line.extend(["\",\"level\":\"", level, "\",\"message\":\""]);
    Escaped(&mut line).write_str(message).unwrap_or_default();
    line.extend(["\",\"target\":\"", env!("CARGO_CRATE_NAME"), "\"}"]);
    line
}

struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push_str(",\"");
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        write!(self.0, "{value}").unwrap_or_default();
    }

    fn quoted(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        self.0.push('"');
        write!(Escaped(self.0), "{value}").unwrap_or_default();
        self.0.push('"');
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.0.push('"');
        Escaped(self.0).write_str(value).unwrap_or_default();
        self.0.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.quoted(field, format_args!("{value:?}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // NaN and the infinities are not numbers in JSON.
        if value.is_finite() { self.plain(field, value) } else { self.quoted(field, value) }
    }
}

/// Writer for the inside of a JSON string, which escapes harmful characters.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape::push(self.0, text, b"\"\\");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(log: impl FnOnce()) -> Value {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&kept);
        let json = Json(move |line: &[u8]| lines.lock().unwrap().extend_from_slice(line));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), log);
        let text = String::from_utf8(kept.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.ends_with('}') && !line.chars().any(escape::is_harmful), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_line_has_every_field_by_its_type() {
        let absent: Option<&str> = None;
        let line = logged(|| {
            tracing::warn!(
                a.b = "c",
                n = 3_u64,
                below = -1_i64,
                yes = true,
                half = 0.5,
                broken = f64::NAN,
                absent,
                shown = %"x\"y",
                "it is {}",
                "so"
            );
        });
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"it is so".into()));
        assert_eq!((&line["a.b"], &line["n"]), (&"c".into(), &3.into()));
        assert_eq!(
            (&line["below"], &line["yes"], &line["half"]),
            (&(-1).into(), &true.into(), &0.5.into())
        );
        assert_eq!((&line["broken"], &line["shown"]), (&"NaN".into(), &"x\"y".into()));
        assert!(line.get("absent").is_none());
        assert_eq!(line["target"], "slack_soar_relay::logging::json::tests");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_line_of_json(text in any::<String>()) {
            let line = logged(|| tracing::info!(text, "{text}"));
            prop_assert_eq!(line["text"].as_str(), Some(&*text));
            prop_assert_eq!(line["message"].as_str(), Some(&*text));
        }
    }
}
