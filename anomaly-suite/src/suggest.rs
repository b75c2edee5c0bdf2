//! "Did you mean ...?"

/// The word closest to what was written, if one is close at all.
pub(crate) fn closest<'w>(written: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let written = written.to_ascii_lowercase();
    let distance = |word: &str| distance(&written, &word.to_ascii_lowercase());
    let (best, word) = words.map(|word| (distance(word), word)).min_by_key(|(distance, _)| *distance)?;
    (best * 2 < written.len().max(2)).then_some(word)
}

/// The number of letters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let words = ["write-skew", "lost-update", "G0"];
        assert_eq!(closest("wirte-skew", words.into_iter()), Some("write-skew"));
        assert_eq!(closest("LOST-UPDAT", words.into_iter()), Some("lost-update"));
        assert_eq!(closest("banana", words.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
