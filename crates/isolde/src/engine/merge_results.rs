//! What merge operators have made of writes, by the number of the write.
//!
//! Hardly any transaction merges, and every one makes and drops this: so a sorted vector, of which an empty one costs
//! nothing, and not a tree.

use isolde_mvcc::Packed;

/// See the module.
#[derive(Default)]
pub(crate) struct MergeResults(Vec<(u32, Option<Packed>)>);

impl MergeResults {
    fn place(&self, seq: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&seq, |(seq, _)| *seq)
    }

    pub fn get(&self, seq: u32) -> Option<&Option<Packed>> {
        self.0.get(self.place(seq).ok()?).map(|(_, value)| value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Numbers grow, so this one mostly comes last.
    pub fn insert(&mut self, seq: u32, value: Option<Packed>) {
        match self.place(seq) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (seq, value)),
        }
    }

    pub fn remove(&mut self, seq: u32) {
        if let Ok(place) = self.place(seq) {
            self.0.remove(place);
        }
    }

    /// Takes more, in any order, in place of earlier ones of the same writes.
    pub fn append(&mut self, mut others: MergeResults) {
        if others.0.is_empty() {
            return;
        }
        // Stable: of the same number, the new one comes first, and stays.
        others.0.append(&mut self.0);
        others.0.sort_by_key(|(seq, _)| *seq);
        others.0.dedup_by_key(|(seq, _)| *seq);
        *self = others;
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<(u32, Option<Packed>)> for MergeResults {
    fn from_iter<I: IntoIterator<Item = (u32, Option<Packed>)>>(results: I) -> Self {
        let mut all = MergeResults::default();
        all.append(MergeResults(results.into_iter().collect()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_by_number_in_whatever_order_they_came() {
        let value = |n: u8| Some(Packed::copy(&[n]));
        let mut results: MergeResults = [(7, value(7)), (2, value(2)), (5, None)].into_iter().collect();
        results.append([(6, value(6)), (1, value(1)), (7, value(77))].into_iter().collect());
        assert_eq!(results.get(7), Some(&value(77)));
        results.insert(9, value(9));
        results.insert(7, value(70));
        results.remove(2);
        results.remove(3);
        let got = |seq| results.get(seq).map(|value| value.as_ref().map(|value| value[0]));
        let all: Vec<_> = (0..10).map(got).collect();
        let some = |n| Some(Some(n));
        assert_eq!(all, [None, some(1), None, None, None, Some(None), some(6), some(70), None, some(9)]);
        assert_eq!(results.len(), 5);
    }
}
