//! Names for numbers in SQL: the stored numbers of states, and how rows are numbered.

use std::borrow::Cow;

use super::{
    Because, Source,
    stored::{CANCELLED, DEAD, DELIVERED, PENDING, PER_ALERT, because_number, source_number},
};

/// The number of an alert in PostgreSQL is `message * PER_MESSAGE + 0, 1, ...`, with the number of
/// its message.
pub(super) const PER_MESSAGE: i64 = 4096;

/// The names that SQL may use, written as `:NAME`.
const NUMBERS: [(&str, i64); 9] = [
    ("PENDING", PENDING),
    ("DELIVERED", DELIVERED),
    ("DEAD", DEAD),
    ("CANCELLED", CANCELLED),
    ("PER_MESSAGE", PER_MESSAGE),
    ("PER_ALERT", PER_ALERT),
    ("DESTINATION_FAULT", because_number(Because::Fault)),
    ("PUSH", source_number(Source::Push)),
    ("CATCH_UP", source_number(Source::CatchUp)),
];

/// Returns the SQL with each `:NAME` of the list above replaced by its number.
pub(super) fn with_numbers(sql: &str) -> Cow<'_, str> {
    if !sql.contains(':') {
        return sql.into();
    }
    let mut replaced = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once(':') {
        replaced.push_str(before);
        let is_part_of_name = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'_';
        let length = after.bytes().take_while(is_part_of_name).count();
        let (name, after) = after.split_at(length);
        match NUMBERS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => replaced.push_str(&number.to_string()),
            // Part of a cast or of a text.
            None => replaced.extend([":", name]),
        }
        rest = after;
    }
    replaced.push_str(rest);
    replaced.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers_and_other_colons_stay() {
        let sql = "SELECT ':' || key, a.seq::int8 FROM d WHERE state = :DEAD AND x = :DEADLY";
        let expected = "SELECT ':' || key, a.seq::int8 FROM d WHERE state = 2 AND x = :DEADLY";
        assert_eq!(with_numbers(sql), expected);
        assert_eq!(with_numbers("id / :PER_ALERT / :PER_MESSAGE"), "id / 65536 / 4096");
        assert_eq!(with_numbers("SELECT 1"), "SELECT 1");
    }
}
