//! Remembers, for one destination, which recipients have which mail and which are refused: one bad
//! address must neither stop the mail to the others nor repeat it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use lettre::Address;

/// Most alerts that are remembered because only some recipients have the mail. The oldest is
/// forgotten first, and then sent to all again, with the same Message-ID.
const REMEMBERED: usize = 1_000;

/// A server's answer about one recipient.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) address: Address,
    /// SMTP status of the answer.
    pub(super) status: u16,
    /// Text of the answer with its status, without secrets.
    pub(super) text: String,
}

/// The recipients of one destination, between attempts.
#[derive(Debug, Default)]
pub(in crate::destination) struct Recipients(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    served: VecDeque<(String, BTreeSet<Address>)>,
    refused: BTreeMap<Address, String>,
}

impl Recipients {
    /// Returns the recipients in `all` that do not have the mail of this alert yet.
    pub(super) fn unserved(&self, key: &str, all: &[Address]) -> Vec<Address> {
        let known = self.known();
        let served = known.served.iter().find(|(alert, _)| alert == key).map(|(_, have)| have);
        let has = |one: &Address| served.is_some_and(|served| served.contains(one));
        all.iter().filter(|one| !has(one)).cloned().collect()
    }

    /// Notes that these recipients have the mail of this alert.
    pub(super) fn serve(&self, key: &str, taken: &[Address]) {
        let mut known = self.known();
        for address in taken {
            known.refused.remove(address);
        }
        let at = known.served.iter().position(|(alert, _)| alert == key);
        let (_, mut served) = at.and_then(|at| known.served.remove(at)).unwrap_or_default();
        served.extend(taken.iter().cloned());
        known.served.push_back((key.to_owned(), served));
        if known.served.len() > REMEMBERED {
            known.served.pop_front();
        }
    }

    /// Forgets the recipients of this alert's mail: all have it, or never will.
    pub(super) fn finish(&self, key: &str) {
        self.known().served.retain(|(alert, _)| alert != key);
    }

    /// Notes the refused recipients. Returns those that were not refused before.
    pub(super) fn refuse<'a>(&self, refused: &'a [Said]) -> Vec<&'a Said> {
        let mut known = self.known();
        let is_new =
            |one: &&Said| known.refused.insert(one.address.clone(), one.text.clone()).is_none();
        refused.iter().filter(is_new).collect()
    }

    /// Returns the refused recipients and the reasons; empty if none is refused.
    pub(in crate::destination) fn problem(&self) -> String {
        let known = self.known();
        let each = known.refused.iter().map(|(address, why)| format!("{address} ({why})"));
        match each.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => none,
            all => format!("the mail server refuses recipients, the others get the mail: {all}"),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn who_has_a_mail_is_remembered_by_alert_and_within_bounds() {
        let all = addresses(&["a@x.y", "b@x.y", "c@x.y"]);
        let recipients = Recipients::default();
        recipients.serve("k", &addresses(&["a@x.y"]));
        recipients.serve("k", &addresses(&["b@x.y"]));
        assert_eq!(recipients.unserved("k", &all), addresses(&["c@x.y"]));
        assert_eq!(recipients.unserved("l", &all), all);
        recipients.finish("k");
        assert_eq!(recipients.unserved("k", &all), all);
        for number in 0..2 * REMEMBERED {
            recipients.serve(&number.to_string(), &all);
        }
        assert_eq!(recipients.known().served.len(), REMEMBERED);
        assert_eq!(recipients.unserved("0", &all), all);
    }

    #[test]
    fn a_refused_recipient_is_new_once_until_it_is_served() {
        let said = Said { address: "a@x.y".parse().unwrap(), status: 550, text: "550 no".into() };
        let recipients = Recipients::default();
        assert_eq!(recipients.problem(), "");
        assert_eq!(recipients.refuse(std::slice::from_ref(&said)).len(), 1);
        assert_eq!(recipients.refuse(std::slice::from_ref(&said)).len(), 0);
        assert!(recipients.problem().ends_with("a@x.y (550 no)"));
        recipients.serve("k", &addresses(&["a@x.y"]));
        assert_eq!(recipients.problem(), "");
        assert_eq!(recipients.refuse(&[said]).len(), 1);
    }
}
