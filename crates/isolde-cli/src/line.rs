//! A row as a line of JSON, without loss.
//!
//! ```text
//! {"key":"user/7","value":"Ada"}
//! {"key_base64":"AAECAw==","value":"text beside bytes"}
//! {"key":"n","value_base64":"AAAAAAAAACo="}
//! ```
//!
//! Printable UTF-8 is written as text; anything else as base64 (RFC 4648, with padding), in the field of
//! that name. Line breaks and tabs count as printable: JSON writes them as `\n`, `\r`, `\t`. Reading takes
//! either field for any bytes, so a line that was written by hand needs no base64 for its text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What a line must look like.
pub const EXPECTED: &str = r#"expected {"key": TEXT, "value": TEXT}, with "key_base64" or "value_base64" for bytes"#;

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Line<'l> {
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    key: Option<std::borrow::Cow<'l, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    key_base64: Option<String>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    value: Option<std::borrow::Cow<'l, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    value_base64: Option<String>,
}

/// The row's line, with its end.
pub fn encode(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut line = Line::default();
    match printable(key) {
        Some(text) => line.key = Some(text.into()),
        None => line.key_base64 = Some(STANDARD.encode(key)),
    }
    match printable(value) {
        Some(text) => line.value = Some(text.into()),
        None => line.value_base64 = Some(STANDARD.encode(value)),
    }
    let mut out = serde_json::to_vec(&line).expect("strings are always JSON");
    out.push(b'\n');
    out
}

/// The row of a line, or what is wrong with it.
pub fn decode(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let parsed: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let (text, column) = (error.to_string(), error.column());
        let what = text.split(" at line ").next().unwrap_or_default();
        if column == 0 { what.to_owned() } else { format!("{what} (column {column})") }
    })?;
    let key = bytes("key", parsed.key.as_deref(), parsed.key_base64)?;
    let value = bytes("value", parsed.value.as_deref(), parsed.value_base64)?;
    Ok((key, value))
}

fn bytes(name: &str, text: Option<&str>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.as_bytes().to_vec()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map_err(|error| format!("\"{name}_base64\" is no base64: {error}"))
        }
        (None, None) => Err(format!("the {name} is missing")),
        (Some(_), Some(_)) => Err(format!("it has both \"{name}\" and \"{name}_base64\"")),
    }
}

/// The bytes as text, if a person can read it, and a terminal shows it as it is.
fn printable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let hidden = |c: char| match c {
        '\n' | '\r' | '\t' => false,
        // Line separators, what changes the direction of writing, the byte order mark.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => true,
        _ => c.is_control(),
    };
    (!text.contains(hidden)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_back() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = (0..=255_u8).map(|byte| (vec![byte], vec![byte, b'x'])).collect();
        rows.push((Vec::new(), Vec::new()));
        rows.push(("grün \"\\ 🌳\n".into(), "\u{202e}rtl".into()));
        rows.extend((0..2_000).map(|_| {
            let bytes = |random: &mut fastrand::Rng| (0..random.usize(..12)).map(|_| random.u8(..)).collect();
            (bytes(&mut random), bytes(&mut random))
        }));
        for (key, value) in rows {
            let line = encode(&key, &value);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "one line: {line:?}");
            assert_eq!(decode(&line), Ok((key, value)));
        }
    }

    #[test]
    fn text_is_text_and_bytes_are_base64() {
        let line = |key: &[u8], value: &[u8]| String::from_utf8(encode(key, value)).unwrap();
        assert_eq!(line(b"k", "Gr\u{fc}\u{df}e\n".as_bytes()), "{\"key\":\"k\",\"value\":\"Gr\u{fc}\u{df}e\\n\"}\n");
        assert_eq!(line(&[0, 1], b""), "{\"key_base64\":\"AAE=\",\"value\":\"\"}\n");
        assert_eq!(line(b"k", &[0xff]), "{\"key\":\"k\",\"value_base64\":\"/w==\"}\n");
        assert_eq!(line(b"k", "\u{202e}".as_bytes()), "{\"key\":\"k\",\"value_base64\":\"4oCu\"}\n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |line: &str| decode(line.as_bytes()).unwrap_err();
        assert_eq!(wrong(r#"{"key":"k"}"#), "the value is missing");
        assert_eq!(wrong(r#"{"value":"k"}"#), "the key is missing");
        assert_eq!(wrong(r#"{"key":"k","key_base64":"aw==","value":""}"#), r#"it has both "key" and "key_base64""#);
        assert!(wrong(r#"{"key":"k","value_base64":"a"}"#).starts_with(r#""value_base64" is no base64"#));
        assert!(wrong(r#"{"key":"k","value":"v","ttl":"3"}"#).contains("unknown field `ttl`"));
        assert!(wrong(r#"{"key":"k","key":"k","value":"v"}"#).contains("duplicate field `key`"));
        assert!(wrong(r#"{"key":3,"value":"v"}"#).contains("(column 8)"), "{}", wrong(r#"{"key":3,"value":"v"}"#));
        assert!(wrong(r#"{"key":"k","value":"v"} x"#).starts_with("trailing characters"));
    }
}
