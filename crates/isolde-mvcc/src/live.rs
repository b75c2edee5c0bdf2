//! Which versions must stay: the timestamps of live views, and the predicate of I7.
//!
//! ```text
//!  version      5      9      12        20     31
//!  view            8            14                        live views: 8, 14
//!  upto                                    25             upto = 25
//!  stays        5      -      12        20     31
//! ```
//!
//! 5 is what view 8 reads, 12 what view 14 reads, 20 what a view at `upto` reads; 31 is after
//! `upto`, and views that begin later, and certification, may need it. 9 goes, although it lies
//! above the watermark (8): one long view costs one version a key, not a history (Boettcher et al.
//! 2019, "Steam").

use isolde_types::{Ts, mutant};
use smallvec::SmallVec;

/// The live views at some instant: which versions must stay.
///
/// A `Live` that is out of date only keeps too much: every view that is registered after it was
/// taken is at or after its `upto`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    views: SmallVec<[Ts; 8]>,
    upto: Ts,
}

impl Live {
    /// The live views `views`, in any order, and everything from `upto` on.
    #[must_use]
    pub fn new(views: impl IntoIterator<Item = Ts>, upto: Ts) -> Live {
        Live::of(views.into_iter().collect(), upto)
    }

    pub(crate) fn of(mut views: SmallVec<[Ts; 8]>, upto: Ts) -> Live {
        if views.len() > 1 {
            views.sort_unstable();
            views.dedup();
        }
        Live { views, upto }
    }

    /// The watermark: the oldest time at which somebody may still read.
    #[must_use]
    pub fn oldest(&self) -> Ts {
        self.views.first().map_or(self.upto, |first| self.upto.min(*first))
    }

    /// Everything at or after this is live, whether a view says so or not.
    #[must_use]
    pub fn upto(&self) -> Ts {
        self.upto
    }

    /// The timestamps of the views, ascending and each once.
    #[must_use]
    pub fn views(&self) -> &[Ts] {
        &self.views
    }

    /// Whether every view before `upto` that this has lives on in the later `now`: then only what came since can be
    /// dropped there and not here.
    #[must_use]
    pub fn holds_as_much_as(&self, now: &Live) -> bool {
        let before = self.views.iter().filter(|view| **view < self.upto);
        before.eq(now.views.iter().filter(|view| **view < self.upto))
    }

    /// Whether someone may read a version of `older` whose successor is of `newer` (I7): whether a
    /// live time lies in `[older, newer)`.
    #[must_use]
    pub fn needs(&self, older: Ts, newer: Ts) -> bool {
        debug_assert!(older < newer, "I1: chains are strictly ordered");
        if newer > self.upto {
            return true;
        }
        let first =
            self.views.partition_point(|view| *view < older || (mutant!("collect-one-too-many") && *view == older));
        self.views.get(first).is_some_and(|view| *view < newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_holds() {
        let live = Live::new([Ts(14), Ts(8), Ts(14)], Ts(25));
        let versions = [5, 9, 12, 20, 31, u64::MAX].map(Ts);
        let stays = versions.windows(2).filter(|pair| live.needs(pair[0], pair[1])).map(|pair| pair[0].0);
        assert_eq!(stays.collect::<Vec<_>>(), [5, 12, 20, 31]);
        assert_eq!((live.oldest(), live.views().len()), (Ts(8), 2));
    }

    #[test]
    fn a_view_at_the_very_time_of_a_version_reads_it() {
        let live = Live::new([Ts(5)], Ts(9));
        assert!(live.needs(Ts(5), Ts(6)));
        assert!(!live.needs(Ts(4), Ts(5)));
        assert!(!live.needs(Ts(6), Ts(9)));
        assert!(live.needs(Ts(6), Ts(10)));
    }

    #[test]
    fn without_views_the_watermark_is_where_everything_begins_to_be_live() {
        assert_eq!(Live::new([], Ts(3)).oldest(), Ts(3));
    }
}
