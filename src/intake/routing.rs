//! Routing: the destinations of an incident, decided once, when it is accepted. Pure.

use crate::{
    code_defender::{incident::Incident, risk_level::RiskLevel},
    ids::{AppName, ChannelId, DestinationName},
};

/// Incidents that a destination wants. The default is every incident.
#[derive(Clone, Debug, Default)]
pub struct When {
    /// Lowest wanted severity.
    pub min_severity: Option<RiskLevel>,
    /// Wanted apps; every app if empty.
    pub apps: Vec<AppName>,
    /// Wanted channels; every channel if empty.
    pub channels: Vec<ChannelId>,
    /// Treatment of test incidents.
    pub test: TestIncidents,
}

/// Treatment of test incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TestIncidents {
    /// Test incidents are wanted like any other.
    #[default]
    Include,
    /// Test incidents are not wanted.
    Exclude,
    /// Only test incidents are wanted.
    Only,
}

/// A destination and its conditions.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name of the destination.
    pub destination: DestinationName,
    /// Conditions under which an incident is wanted.
    pub when: When,
}

/// Returns the destinations that want the incident, in the order of the routes. `channel` holds
/// every id of the incident's channel; any of them may be in a destination's list.
pub fn route(
    routes: &[Route],
    app: &AppName,
    channel: &[ChannelId],
    incident: &Incident,
) -> Vec<DestinationName> {
    let wanted = |route: &&Route| route.when.refusal(app, channel, incident).is_none();
    routes.iter().filter(wanted).map(|route| route.destination.clone()).collect()
}

impl When {
    /// Returns the key of `when` that refuses the incident, or `None` if it is wanted.
    pub fn refusal(
        &self,
        app: &AppName,
        channel: &[ChannelId],
        incident: &Incident,
    ) -> Option<&'static str> {
        let is_wanted = match self.test {
            TestIncidents::Include => true,
            TestIncidents::Exclude => !incident.is_test,
            TestIncidents::Only => incident.is_test,
        };
        if !is_wanted {
            Some("test")
        } else if self.min_severity.is_some_and(|min| incident.risk.level < min) {
            Some("min_severity")
        } else if !self.apps.is_empty() && !self.apps.contains(app) {
            Some("apps")
        } else if !self.channels.is_empty() && !channel.iter().any(|id| self.channels.contains(id))
        {
            Some("channels")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        code_defender::matcher::Matcher,
        slack::message::{Attachment, Field},
    };

    fn incident(risk: &str, text: &str) -> Incident {
        let fields = vec![Field { title: "Risk Level".into(), value: risk.into() }];
        let attachment = Attachment { text: text.into(), fields, ..Attachment::default() };
        Matcher::default().incident(&attachment)
    }

    fn app(name: &str) -> AppName {
        AppName::new(name).unwrap()
    }

    fn goes(when: When, incident: &Incident) -> bool {
        let destination = DestinationName::new("soar").unwrap();
        let routes = [Route { destination, when }];
        let channel = ["G1", "C1"].map(ChannelId::new);
        !route(&routes, &app("main"), &channel, incident).is_empty()
    }

    #[test]
    fn by_default_everything_goes_everywhere_in_order() {
        let routes = ["b", "a"].map(|name| Route {
            destination: DestinationName::new(name).unwrap(),
            when: When::default(),
        });
        let chosen = route(&routes, &app("main"), &[ChannelId::new("C1")], &incident("Low", ""));
        assert_eq!(chosen.iter().map(DestinationName::as_str).collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn the_least_severity_is_included_and_an_unknown_one_counts_as_high() {
        for (risk, min, goes_there) in [
            ("Medium", RiskLevel::Medium, true),
            ("Low", RiskLevel::Medium, false),
            ("Informative", RiskLevel::Informative, true),
            ("Severe", RiskLevel::High, true),
            ("", RiskLevel::High, true),
            ("Severe", RiskLevel::Critical, false),
        ] {
            let when = When { min_severity: Some(min), ..When::default() };
            assert_eq!(goes(when, &incident(risk, "")), goes_there, "{risk} {min:?}");
        }
    }

    #[test]
    fn apps_and_channels_are_lists_of_which_one_must_match() {
        for (apps, channels, goes_there) in [
            (vec!["other", "main"], vec![], true),
            (vec!["other"], vec![], false),
            (vec![], vec!["C2", "C1"], true),
            (vec![], vec!["C2"], false),
            (vec!["main"], vec!["C2"], false),
            (vec![], vec!["G1"], true),
        ] {
            let when = When {
                apps: apps.into_iter().map(app).collect(),
                channels: channels.into_iter().map(ChannelId::new).collect(),
                ..When::default()
            };
            assert_eq!(goes(when, &incident("High", "")), goes_there);
        }
    }

    #[test]
    fn tests_are_included_excluded_or_the_only_ones() {
        for (test, tests_go, others_go) in [
            (TestIncidents::Include, true, true),
            (TestIncidents::Exclude, false, true),
            (TestIncidents::Only, true, false),
        ] {
            let when = When { test, ..When::default() };
            assert_eq!(goes(when.clone(), &incident("High", "test from PerimeterX")), tests_go);
            assert_eq!(goes(when, &incident("High", "PII")), others_go);
        }
    }
}
