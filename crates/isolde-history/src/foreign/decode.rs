//! Strings and single words of EDN and JSON.

use super::datum::{Form, Syntax};

/// The string at the beginning of a text, and how many bytes it takes there; else where it goes wrong,
/// and how.
pub(super) fn string(text: &str) -> Result<(String, usize), (usize, &'static str)> {
    let mut decoded = String::new();
    let mut rest = text.char_indices().skip(1);
    while let Some((at, found)) = rest.next() {
        match found {
            '"' => return Ok((decoded, at + 1)),
            '\\' => match rest.next() {
                Some((_, 'u')) => decoded.push(unicode(&mut rest).ok_or((at, "expected four hexadecimal digits"))?),
                Some((_, quoted)) => decoded.push(escaped(quoted).ok_or((at, "expected an escape such as \\n"))?),
                None => break,
            },
            other => decoded.push(other),
        }
    }
    Err((0, "expected a closing quote, found the end of the text"))
}

fn escaped(quoted: char) -> Option<char> {
    Some(match quoted {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '\\' | '"' | '/' | '\'' => quoted,
        _ => return None,
    })
}

/// The character of `XXXX`, or of `XXXX\uXXXX` where the first is half of a pair.
fn unicode(rest: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let first = four_digits(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    let pair = (rest.next()?.1, rest.next()?.1) == ('\\', 'u');
    let second = four_digits(rest).filter(|second| pair && (0xdc00..0xe000).contains(second))?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

fn four_digits(rest: &mut impl Iterator<Item = (usize, char)>) -> Option<u32> {
    (0..4).try_fold(0, |number, _| Some(number * 16 + rest.next()?.1.to_digit(16)?))
}

/// The form of a word that is no list, map or string; none if it is no word of the language.
pub(super) fn token(token: &str, syntax: Syntax) -> Option<Form> {
    let first = token.chars().next()?;
    let second = token.chars().nth(1);
    let signed = matches!(first, '-' | '+') && second.is_some_and(|digit| digit.is_ascii_digit());
    if first.is_ascii_digit() || signed {
        return number(token, syntax).map(Form::Atom);
    }
    match (token, syntax) {
        ("null", Syntax::Json) | ("nil", Syntax::Edn) => Some(Form::Nil),
        ("true" | "false", _) => Some(Form::Atom(token.to_owned())),
        (_, Syntax::Json) => None,
        _ => match token.strip_prefix(':') {
            Some(name) => (!name.is_empty()).then(|| Form::Keyword(name.to_owned())),
            // A symbol, or a character such as `\a`.
            None => (!token.contains(['^', '`', '~', '@', '#'])).then(|| Form::Atom(token.to_owned())),
        },
    }
}

/// A number as it is shown: whole ones the same however they were written.
fn number(token: &str, syntax: Syntax) -> Option<String> {
    let digits = match syntax {
        Syntax::Edn => token.strip_suffix(['N', 'M']).unwrap_or(token),
        Syntax::Json => token,
    };
    if let Ok(whole) = digits.parse::<i128>() {
        return Some(whole.to_string());
    }
    let plausible = digits.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    (plausible && digits.parse::<f64>().is_ok()).then(|| digits.to_owned())
}
