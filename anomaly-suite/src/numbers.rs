//! Values as schedules write them: decimal numbers, and the merge operators that every database
//! under the suite offers: `append` (text after text) and `max` (the larger number).

use bytes::Bytes;

/// The number that a value spells; an absent value is 0.
pub(crate) fn parse(value: Option<&[u8]>) -> Result<i64, String> {
    let Some(value) = value else { return Ok(0) };
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("`{}` is no number", value.escape_ascii()))
}

/// The sum, spelled out.
pub(crate) fn add(value: Option<&[u8]>, by: i64) -> Result<Bytes, String> {
    let sum = parse(value)?.checked_add(by).ok_or("the sum is too large")?;
    Ok(Bytes::from(sum.to_string()))
}

/// What a merge operator makes of a value and an operand.
pub(crate) fn merge(operator: &str, value: Option<&[u8]>, operand: &[u8]) -> Result<Bytes, String> {
    match operator {
        "append" => Ok([value.unwrap_or_default(), operand].concat().into()),
        "max" => Ok(Bytes::from(parse(value)?.max(parse(Some(operand))?).to_string())),
        _ => Err(format!("there is no merge operator `{operator}`: append and max are known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_merges_are_spelled_out() {
        assert_eq!(add(None, 5).as_deref(), Ok(&b"5"[..]));
        assert_eq!(add(Some(b"-3"), 5).as_deref(), Ok(&b"2"[..]));
        assert!(add(Some(b"x"), 1).is_err() && add(Some(b"9223372036854775807"), 1).is_err());
        assert_eq!(merge("append", Some(b"ab"), b"c").as_deref(), Ok(&b"abc"[..]));
        assert_eq!(merge("max", None, b"7").as_deref(), Ok(&b"7"[..]));
        assert!(merge("min", None, b"7").is_err());
    }
}
