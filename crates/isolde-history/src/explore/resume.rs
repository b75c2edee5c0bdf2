//! Where an exploration can go on later, without running again what lies before.
//!
//! The choices that lead to the next schedule are enough: which transactions could be chosen at each point, and
//! which of them were gone down before, follows from the programs, because the first choice is always the
//! transaction that comes first.

use std::fmt;
use std::str::FromStr;

use super::MAX_TXNS;

/// The next schedule of an exploration that was left: its number, and the choices that lead to it. It is good for
/// the same programs at the same levels and modes, on the same kind of database, with the same options.
///
/// ```
/// use isolde_history::explore::Resume;
///
/// let resume: Resume = "5000:1213".parse()?;
/// assert_eq!((resume.number, resume.moves.as_slice()), (5000, &[0, 1, 0, 2][..]));
/// assert_eq!(resume.to_string(), "5000:1213");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resume {
    /// The number of the next schedule.
    pub number: u64,
    /// The transactions to choose, in this order; after them the first choices.
    pub moves: Vec<usize>,
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.number)?;
        self.moves.iter().try_for_each(|txn| write!(f, "{}", txn + 1))
    }
}

impl FromStr for Resume {
    type Err = String;

    fn from_str(text: &str) -> Result<Resume, String> {
        let wrong = || format!("`{text}` is no resume point, such as 5000:1213");
        let (number, moves) = text.split_once(':').ok_or_else(wrong)?;
        let txn = |digit: char| {
            let txn = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()?.checked_sub(1));
            txn.filter(|txn| *txn < MAX_TXNS).ok_or_else(wrong)
        };
        let moves = moves.chars().map(txn).collect::<Result<Vec<usize>, String>>()?;
        Ok(Resume { number: number.parse().map_err(|_| wrong())?, moves })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_resume_point_is_refused() {
        for text in ["", "5", ":12", "5:102", "5:19", "x:12", "-1:12", "5:1 2", "99999999999999999999:1"] {
            assert!(text.parse::<Resume>().is_err(), "{text}");
        }
        assert_eq!("0:".parse(), Ok(Resume { number: 0, moves: Vec::new() }));
    }
}
