//! Those who wait for visible_ts are woken, whatever one of them does when it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use isolde_mvcc::{Exposure, Outcome, Status, Timeline, VisibleWait};
use isolde_types::TxnId;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker's own fault");
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_being_woken() {
    let timeline = Timeline::new();
    let first = Status::new(TxnId(1), Exposure::Exposed);
    timeline.order(&first, None);
    let (ts, none) = timeline.commit_at_once(&Status::new(TxnId(2), Exposure::Exposed), None);
    assert!(none.is_empty());
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let (panics, flagged) = (Waker::from(Arc::new(Panics)), Waker::from(Arc::clone(&flag)));
    let mut waits = [VisibleWait::default(), VisibleWait::default()];
    for (waker, wait) in [panics, flagged].iter().zip(&mut waits) {
        assert!(timeline.poll_visible(ts, &mut Context::from_waker(waker), wait).is_pending());
    }
    let wakers = timeline.finalize(&first, Outcome::Committed);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wakers.wake()));
    assert!(flag.0.load(Ordering::SeqCst), "one waker's panic kept another waiter from being woken");
}
