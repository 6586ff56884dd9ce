//! An alert whose texts are cut, for a receiver that would not take the whole of it.

use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{alert::Alert, destination::filters::cut};

/// The alert with at most so many characters in each text. What identifies it stays as it is.
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
    let attachment = serde_json::from_str(alert.attachment.get()).map(|mut value| {
        cut_within(&mut value, chars);
        to_raw_value(&value)
    });
    alert.attachment = match attachment {
        Ok(Ok(attachment)) => attachment,
        Ok(Err(_)) | Err(_) => RawValue::NULL.to_owned(),
    };
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
