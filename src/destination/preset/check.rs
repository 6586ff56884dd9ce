//! Checks that find the mistakes of a preset when it is loaded.

use std::collections::BTreeSet;

use serde_json::Map;

use super::{Meaning, Preset};
use crate::destination::preset::{
    answer::{Class, Reply},
    sample::sample_alert,
    template::TemplateError,
};

impl Preset {
    /// Finds a misspelt field, even in a branch that no sample takes.
    pub(super) fn check_names(&self) -> Result<(), TemplateError> {
        let alert = serde_json::to_value(sample_alert("text"));
        let alert = alert.map_err(|error| TemplateError::new("body", error.to_string()))?;
        let reads: BTreeSet<_> = self.steps().flat_map(|step| step.templates.reads()).collect();
        for (part, name) in reads {
            let (root, field) = name.split_once('.').unwrap_or((&name, ""));
            let exists = match root {
                // Slack's attachment may have fields that the sample does not have.
                "alert" if field.is_empty() || field.starts_with("attachment") => true,
                "alert" => alert.pointer(&format!("/{}", field.replace('.', "/"))).is_some(),
                "params" => field.is_empty() || self.params.has(field),
                "severity" => field.is_empty() && !self.severity.is_empty(),
                _ => false,
            };
            if !exists {
                let reason =
                    format!("there is no `{name}`: templates see alert, params and severity");
                return Err(TemplateError::new(&part, reason));
            }
        }
        Ok(())
    }

    /// Tries every choice of every parameter, with the others at their defaults.
    pub(super) fn check_every_choice(&self) -> Result<(), TemplateError> {
        self.try_out(&self.params(&Map::new()))?;
        for (name, choice) in self.params.choices() {
            let given = Map::from_iter([(name.to_owned(), choice)]);
            self.try_out(&self.params(&given))?;
        }
        Ok(())
    }

    /// Checks that the rules read each example as the example says.
    pub(super) fn check_examples(&self) -> Result<(), TemplateError> {
        let params = self.params(&Map::new());
        let key = sample_alert("").id;
        for (index, example) in self.examples.iter().enumerate() {
            let wrong = |reason: String| TemplateError::new(&format!("examples[{index}]"), reason);
            let step = if example.lookup { self.lookup.as_ref() } else { Some(&self.request) };
            let step = step.ok_or_else(|| wrong("answers a look-up, and there is none".into()))?;
            let text = example.body.clone();
            let reply = Reply { status: example.status, text, ..Reply::default() };
            let read = match step.rules.read(&reply, &params, &key).class {
                Class::Delivered => Meaning::Delivered,
                Class::Duplicate => Meaning::Duplicate,
                Class::AlertFault => Meaning::AlertFault,
                // An example says what becomes of the alert, which is kept in all three cases.
                Class::Auth | Class::Throttled | Class::DestinationFault => Meaning::Retry,
            };
            if read != example.means {
                let meant = example.means;
                return Err(wrong(format!("is read as {read:?}, not {meant:?}: see `answer`")));
            }
        }
        Ok(())
    }
}
