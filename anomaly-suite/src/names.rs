//! The engine numbers transactions; a schedule names them. Messages are told in the names.

/// A message with the engine's `T7 "transfer"` as `transfer`, and its bare `T7` likewise, wherever the
/// name of the number is known. What stands in quotes otherwise, such as a key, is left alone.
pub(crate) fn in_names(message: &str, name_of: impl Fn(u64) -> Option<String>) -> String {
    let (mut text, mut rest) = (String::with_capacity(message.len()), message);
    while let Some(first) = rest.chars().next() {
        let starts_word = !text.ends_with(|before: char| before.is_alphanumeric());
        let length = match number(rest).filter(|_| starts_word) {
            Some((number, length)) => match name_of(number) {
                Some(name) => {
                    text.push_str(&name);
                    let label = format!(" \"{name}\"");
                    rest = &rest[length..];
                    rest = rest.strip_prefix(&label).unwrap_or(rest);
                    continue;
                }
                None => length,
            },
            None if first == '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            None => first.len_utf8(),
        };
        text.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    text
}

/// The number of a transaction that the text starts with, and how long it is: `T17 `.
fn number(text: &str) -> Option<(u64, usize)> {
    let digits = text.strip_prefix('T')?;
    let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    Some((digits[..length].parse().ok()?, length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_names_and_keys_stay_as_they_are() {
        let name_of = |number| match number {
            2 => Some("T1".to_owned()),
            3 => Some("T2".to_owned()),
            _ => None,
        };
        for (message, told) in [
            (
                r#"T3 "T2" waits for X "T2", T2 "T1" waits; T3 gives way"#,
                r#"T2 waits for X "T2", T1 waits; T2 gives way"#,
            ),
            (r#"after T2 "T1"'s snapshot @1"#, "after T1's snapshot @1"),
            (r#"T9 "other" and XT3 and T"#, r#"T9 "other" and XT3 and T"#),
            ("", ""),
            (r#"an open " quote T2"#, r#"an open " quote T2"#),
        ] {
            assert_eq!(in_names(message, name_of), told);
        }
    }
}
