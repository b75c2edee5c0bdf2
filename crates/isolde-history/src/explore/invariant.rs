//! Invariants over a final state: `x + y >= 1`, `x == 3 and not (y < 0 or z != 2)`.
//!
//! ```text
//! either  =  both { "or" both }            sum    =  term { ("+" | "-") term }
//! both    =  fact { "and" fact }           term   =  NUMBER | KEY | "-" term | "(" sum ")"
//! fact    =  "not" fact | "(" either ")"   compare = "==" "!=" "<" "<=" ">" ">="
//!         |  sum compare sum
//! ```
//!
//! A key is a word of letters, digits, `_`, `/`, `.` and `:` that is no number; one that is absent
//! counts as 0. A value that is no number makes the invariant broken.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use isolde_types::Key;

/// An invariant; see the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invariant {
    text: String,
    fact: Fact,
}

/// Why a text is no invariant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: found {found}, expected {expected}")]
pub struct InvariantError {
    /// Where, from 1.
    pub column: usize,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: &'static str,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Fact {
    Or(Box<Fact>, Box<Fact>),
    And(Box<Fact>, Box<Fact>),
    Not(Box<Fact>),
    Compare(Sum, Compare, Sum),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Sum {
    Number(i64),
    Key(Key),
    Plus(Box<Sum>, Box<Sum>),
    Minus(Box<Sum>, Box<Sum>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How deep parentheses, `not` and signs may stand within each other.
const DEPTH: usize = 64;

impl Invariant {
    /// Reads an invariant.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    ///
    /// ```
    /// use isolde_history::explore::Invariant;
    /// let invariant = Invariant::parse("x + y >= 1")?;
    /// let state = [("x".into(), "0".into()), ("y".into(), "1".into())].into();
    /// assert!(invariant.holds(&state));
    /// assert_eq!(Invariant::parse("x >").unwrap_err().to_string(), "column 4: found the end, expected a number or a key");
    /// # Ok::<(), isolde_history::explore::InvariantError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Invariant, InvariantError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let fact = parser.either()?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("`and`, `or`, or the end"));
        }
        Ok(Invariant { text: text.to_owned(), fact })
    }

    /// The keys that it speaks of, each as often as it does.
    #[must_use]
    pub fn keys(&self) -> Vec<&Key> {
        let mut keys = Vec::new();
        self.fact.keys(&mut keys);
        keys
    }

    /// Whether a state keeps it.
    #[must_use]
    pub fn holds(&self, state: &BTreeMap<Key, Bytes>) -> bool {
        self.fact.holds(state).unwrap_or(false)
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fact {
    fn keys<'f>(&'f self, keys: &mut Vec<&'f Key>) {
        match self {
            Fact::Or(a, b) | Fact::And(a, b) => [a, b].iter().for_each(|fact| fact.keys(keys)),
            Fact::Not(fact) => fact.keys(keys),
            Fact::Compare(a, _, b) => [a, b].iter().for_each(|sum| sum.keys(keys)),
        }
    }

    /// `None`: some value is no number.
    fn holds(&self, state: &BTreeMap<Key, Bytes>) -> Option<bool> {
        Some(match self {
            Fact::Or(a, b) => a.holds(state)? || b.holds(state)?,
            Fact::And(a, b) => a.holds(state)? && b.holds(state)?,
            Fact::Not(fact) => !fact.holds(state)?,
            Fact::Compare(a, compare, b) => {
                let (a, b) = (a.value(state)?, b.value(state)?);
                match compare {
                    Compare::Equal => a == b,
                    Compare::Unequal => a != b,
                    Compare::Less => a < b,
                    Compare::LessOrEqual => a <= b,
                    Compare::Greater => a > b,
                    Compare::GreaterOrEqual => a >= b,
                }
            }
        })
    }
}

impl Sum {
    fn keys<'s>(&'s self, keys: &mut Vec<&'s Key>) {
        match self {
            Sum::Number(_) => {}
            Sum::Key(key) => keys.push(key),
            Sum::Plus(a, b) | Sum::Minus(a, b) => [a, b].iter().for_each(|sum| sum.keys(keys)),
        }
    }

    fn value(&self, state: &BTreeMap<Key, Bytes>) -> Option<i128> {
        match self {
            Sum::Number(number) => Some(i128::from(*number)),
            Sum::Key(key) => match state.get(key) {
                None => Some(0),
                Some(value) => std::str::from_utf8(value).ok()?.parse::<i64>().ok().map(i128::from),
            },
            Sum::Plus(a, b) => a.value(state)?.checked_add(b.value(state)?),
            Sum::Minus(a, b) => a.value(state)?.checked_sub(b.value(state)?),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// The word at this place: letters, digits and what keys may have.
    fn word(&mut self) -> &'t str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_/.:".contains(c))).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let is_word = token.chars().all(char::is_alphabetic);
        let here = if is_word { self.word() == token } else { self.rest().starts_with(token) };
        if here {
            self.at += token.len();
        }
        here
    }

    fn error(&mut self, expected: &'static str) -> InvariantError {
        self.skip_space();
        let found = match (self.word(), self.rest().chars().next()) {
            ("", None) => "the end".to_owned(),
            ("", Some(sign)) => format!("`{sign}`"),
            (word, _) => format!("`{word}`"),
        };
        let column = self.text.get(..self.at).unwrap_or_default().chars().count() + 1;
        InvariantError { column, found, expected }
    }

    /// One level deeper, if there is room.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, InvariantError>) -> Result<T, InvariantError> {
        if self.depth == DEPTH {
            return Err(self.error("fewer things within each other"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn either(&mut self) -> Result<Fact, InvariantError> {
        let mut fact = self.both()?;
        while self.take("or") {
            fact = Fact::Or(Box::new(fact), Box::new(self.both()?));
        }
        Ok(fact)
    }

    fn both(&mut self) -> Result<Fact, InvariantError> {
        let mut fact = self.fact()?;
        while self.take("and") {
            fact = Fact::And(Box::new(fact), Box::new(self.fact()?));
        }
        Ok(fact)
    }

    fn fact(&mut self) -> Result<Fact, InvariantError> {
        if self.take("not") {
            return self.deeper(|parser| Ok(Fact::Not(Box::new(parser.fact()?))));
        }
        // A parenthesis opens a fact or a sum: tried as a comparison first.
        let start = self.at;
        match self.compare() {
            Ok(fact) => Ok(fact),
            Err(error) => {
                self.at = start;
                if !self.take("(") {
                    return Err(error);
                }
                let fact = self.deeper(Self::either)?;
                if self.take(")") { Ok(fact) } else { Err(self.error("`)`")) }
            }
        }
    }

    fn compare(&mut self) -> Result<Fact, InvariantError> {
        const SIGNS: [(&str, Compare); 6] = [
            ("==", Compare::Equal),
            ("!=", Compare::Unequal),
            ("<=", Compare::LessOrEqual),
            (">=", Compare::GreaterOrEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ];
        let left = self.sum()?;
        let sign = SIGNS.into_iter().find(|(sign, _)| self.take(sign));
        let Some((_, compare)) = sign else { return Err(self.error("a comparison such as `>=`")) };
        Ok(Fact::Compare(left, compare, self.sum()?))
    }

    fn sum(&mut self) -> Result<Sum, InvariantError> {
        let mut sum = self.term()?;
        loop {
            if self.take("+") {
                sum = Sum::Plus(Box::new(sum), Box::new(self.term()?));
            } else if self.take("-") {
                sum = Sum::Minus(Box::new(sum), Box::new(self.term()?));
            } else {
                return Ok(sum);
            }
        }
    }

    fn term(&mut self) -> Result<Sum, InvariantError> {
        if self.take("-") {
            return self.deeper(|parser| Ok(Sum::Minus(Box::new(Sum::Number(0)), Box::new(parser.term()?))));
        }
        if self.take("(") {
            let sum = self.deeper(Self::sum)?;
            return if self.take(")") { Ok(sum) } else { Err(self.error("`)`")) };
        }
        let word = self.word();
        if word.is_empty() || ["and", "or", "not"].contains(&word) {
            return Err(self.error("a number or a key"));
        }
        let term = match word.parse() {
            Ok(number) => Sum::Number(number),
            Err(_) if word.bytes().all(|byte| byte.is_ascii_digit()) => return Err(self.error("a smaller number")),
            Err(_) => Sum::Key(Key::copy_from_slice(word.as_bytes())),
        };
        self.at += word.len();
        Ok(term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        let state = [("x", "3"), ("y", "-1"), ("acct/1", "10"), ("w", "word")];
        let state = state.map(|(key, value)| (Key::from(key), Bytes::from(value))).into();
        assert_eq!(Invariant::parse(text).unwrap().holds(&state), expected, "{text}");
    }

    #[test]
    fn sums_comparisons_and_words_mean_what_they_say() {
        check("x + y == 2", true);
        check("x - y - 1 == 3 and absent == 0", true);
        check("x < 3 or y < 0", true);
        check("x < 3 or y < 0 and acct/1 != 10", false);
        check("not (x < 3 or y < 0)", false);
        check("(x + y) >= (1 + 1) and -y == 1", true);
        check("w == 0", false);
        check("not w == 0", false);
    }

    #[test]
    fn errors_say_where_and_what() {
        let error = |text: &str| Invariant::parse(text).unwrap_err().to_string();
        assert_eq!(error("x = 3"), "column 3: found `=`, expected a comparison such as `>=`");
        assert_eq!(error("x == 3 y"), "column 8: found `y`, expected `and`, `or`, or the end");
        assert_eq!(
            error("x == 99999999999999999999"),
            "column 6: found `99999999999999999999`, expected a smaller number"
        );
        assert!(error(&"(".repeat(10_000)).contains("fewer things"));
        assert!(error("").contains("found the end"));
    }
}
