//! What the recorder of `metrics` is told: the names and labels on which dashboards and alarms rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use isolde::step::Session;
use isolde::{Db, Isolation, ManualClock, Mode};
use isolde_tests::{now, open, poll};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// All values that were told, by metric and labels.
#[derive(Clone, Default)]
struct Collector {
    told: Arc<Mutex<BTreeMap<String, Vec<f64>>>>,
    /// Panics at every metric.
    panics: bool,
}

struct Cell {
    name: String,
    collector: Collector,
}

impl Cell {
    fn tell(&self, value: f64) {
        assert!(!self.collector.panics, "a recorder that panics");
        self.collector.told.lock().unwrap().entry(self.name.clone()).or_default().push(value);
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.tell(value as f64);
    }
    fn absolute(&self, _: u64) {
        unreachable!("counters only go up")
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set")
    }
    fn decrement(&self, _: f64) {
        unreachable!("gauges are set")
    }
    fn set(&self, value: f64) {
        self.tell(value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.tell(value);
    }
}

impl Collector {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Cell { name: [&[key.name().to_owned()], &labels[..]].concat().join(" "), collector: self.clone() })
    }
}

impl Recorder for Collector {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// What is told while `work` runs on this thread.
fn told(work: impl FnOnce()) -> BTreeMap<String, Vec<f64>> {
    let collector = Collector::default();
    metrics::with_local_recorder(&collector, work);
    let told = collector.told.lock().unwrap();
    told.clone()
}

fn session(db: &Db, isolation: Isolation, mode: Mode) -> Session {
    now(Session::begin(db.txn().isolation(isolation).mode(mode))).unwrap()
}

/// Each call says it, and the commit; the transaction was aborted once.
#[test]
fn a_transaction_that_is_too_old_is_counted_once_however_often_it_is_used() {
    let clock = Arc::new(ManualClock::default());
    let db = open(|b| b.clock(Arc::clone(&clock) as Arc<dyn isolde::Clock>).max_snapshot_age(Duration::from_secs(5)));
    let told = told(|| {
        let t = db.txn().isolation(Isolation::Snapshot).mode(Mode::Optimistic).begin().unwrap();
        clock.advance(Duration::from_secs(6));
        db.collect();
        for _ in 0..2 {
            assert_eq!(t.put("k", b"1").unwrap_err().kind(), isolde::ErrorKind::SnapshotTooOld);
            assert_eq!(t.get("k").unwrap_err().kind(), isolde::ErrorKind::SnapshotTooOld);
        }
        assert_eq!(t.commit().unwrap_err().kind(), isolde::ErrorKind::SnapshotTooOld);
    });
    assert_eq!(told["isolde_aborts_total isolation=snapshot mode=optimistic kind=SnapshotTooOld"], [1.0]);
    db.check().unwrap();
}

#[test]
fn commits_and_aborts_are_counted_by_level_mode_and_kind() {
    let db = open(|b| b);
    let told = told(|| {
        let t = db.txn().isolation(Isolation::Snapshot).mode(Mode::Optimistic).begin().unwrap();
        t.put("k", b"1").unwrap();
        db.put("k", b"2").unwrap();
        t.commit().unwrap_err();
    });
    assert_eq!(told["isolde_commits_total isolation=serializable mode=optimistic"], [1.0]);
    assert_eq!(told["isolde_aborts_total isolation=snapshot mode=optimistic kind=Conflict"], [1.0]);
    assert_eq!(told.len(), 2, "{told:?}");
    db.check().unwrap();
}

#[test]
fn a_body_that_is_run_again_is_counted() {
    let db = open(|b| b);
    let told = told(|| {
        db.transact(|t| {
            let n = t.get("k")?.map_or(0, |value| value.len());
            if n == 0 {
                db.put("k", b"other")?;
            }
            t.put("k", b"mine")
        })
        .unwrap();
    });
    assert_eq!(told["isolde_retries_total kind=Conflict"], [1.0], "{told:?}");
    db.check().unwrap();
}

#[test]
fn a_lock_wait_is_measured_when_it_ends() {
    let clock = Arc::new(ManualClock::default());
    let db = Db::builder().in_memory().clock(clock.clone()).open().unwrap();
    let told = told(|| {
        let holder = session(&db, Isolation::ReadCommitted, Mode::Pessimistic);
        now(holder.put("k", b"1")).unwrap();
        let waiter = session(&db, Isolation::ReadCommitted, Mode::Pessimistic);
        let mut put = waiter.put("k", b"2");
        assert!(poll(&mut put).is_pending());
        clock.advance(Duration::from_millis(250));
        now(holder.commit()).unwrap();
        assert!(matches!(poll(&mut put), Poll::Ready(Ok(()))));
        drop(put);
        now(waiter.commit()).unwrap();
    });
    assert_eq!(told["isolde_lock_wait_seconds mode=exclusive"], [0.25], "{told:?}");
    db.check().unwrap();
}

#[test]
fn gauges_say_what_the_figures_say() {
    let db = open(|b| b);
    db.put("k", b"1").unwrap();
    let _open = db.snapshot().unwrap();
    let told = told(|| db.report_gauges());
    let stats = db.stats();
    assert_eq!(told["isolde_records"], [1.0]);
    assert_eq!(told["isolde_active_transactions"], [1.0]);
    assert_eq!(told["isolde_memory_bytes"], [stats.memory_bytes as f64]);
    assert_eq!(told["isolde_visible_ts"], [1.0]);
}

#[test]
fn a_recorder_that_panics_stops_no_transaction() {
    let db = open(|b| b);
    metrics::with_local_recorder(&Collector { panics: true, ..Collector::default() }, || {
        db.put("k", b"1").unwrap();
    });
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"1"[..]));
    db.check().unwrap();
}
