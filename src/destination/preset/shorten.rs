//! Shortens the texts of an alert for a receiver with a limit.

use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{alert::Alert, destination::preset::filters::cut};

/// Size of the attachment beyond which it is left out: cutting it would take tens of times its
/// size, and most receivers refuse it anyway. The store keeps all of it.
const ATTACHMENT_MAX_BYTES: usize = 1024 * 1024;

/// Returns the alert with at most that many characters in each text. The identity stays as it is.
pub(super) fn shortened(alert: &Alert, chars: usize) -> Alert {
    let mut alert = alert.clone();
    for text in [
        &mut alert.name,
        &mut alert.title,
        &mut alert.category,
        &mut alert.details,
        &mut alert.severity.raw,
        &mut alert.script.raw,
        &mut alert.script.url,
        &mut alert.script.host,
        &mut alert.host_domain.raw,
        &mut alert.host_domain.name,
        &mut alert.deep_link,
    ] {
        *text = cut(text, chars);
    }
    let attachment = Some(alert.attachment.get())
        .filter(|attachment| attachment.len() <= ATTACHMENT_MAX_BYTES)
        .and_then(|attachment| {
            let mut value = serde_json::from_str(attachment).ok()?;
            cut_within(&mut value, chars);
            to_raw_value(&value).ok()
        });
    alert.attachment = attachment.unwrap_or_else(|| RawValue::NULL.to_owned());
    alert
}

fn cut_within(value: &mut Value, chars: usize) {
    match value {
        Value::String(text) => *text = cut(text, chars),
        Value::Array(items) => items.iter_mut().for_each(|item| cut_within(item, chars)),
        Value::Object(map) => map.values_mut().for_each(|item| cut_within(item, chars)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
