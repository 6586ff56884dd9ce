//! One JSON object a line. The format of `tracing-subscriber` says the same at several times the
//! cost, and each accepted alert is a line.

use std::fmt::{self, Write};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// `timestamp`, `level`, the event's fields, `target`. There are no spans.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(&mut line))?;
        line.push_str("\",\"level\":\"");
        line.push_str(event.metadata().level().as_str());
        line.push('"');
        event.record(&mut Fields(&mut line));
        line.push_str(",\"target\":\"");
        line.push_str(event.metadata().target());
        line.push_str("\"}\n");
        writer.write_str(&line)
    }
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
        // Writing to a string does not fail.
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
        self.quoted(field, value);
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
        // NaN and the infinities are no numbers in JSON.
        if value.is_finite() { self.plain(field, value) } else { self.quoted(field, value) }
    }
}

/// The inside of a JSON string.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
            let (plain, special) = rest.split_at(at);
            self.0.push_str(plain);
            let mut characters = special.chars();
            match characters.next() {
                Some('"') => self.0.push_str("\\\""),
                Some('\\') => self.0.push_str("\\\\"),
                Some('\n') => self.0.push_str("\\n"),
                Some(control) => write!(self.0, "\\u{:04x}", u32::from(control))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.push_str(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Value {
        let (kept, writer) = {
            let kept = Kept::default();
            (kept.clone(), kept)
        };
        let lines = tracing_subscriber::fmt().event_format(Json);
        let subscriber = lines.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
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
