//! What subscribers of `tracing` are told: the names and fields on which filters and dashboards rest.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use isolde::step::Session;
use isolde::{Db, ErrorKind, Isolation, Mode};
use isolde_tests::{now, open, poll};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// An event or a new span: its level, its name (an event's message), its fields.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    level: Level,
    name: String,
    fields: BTreeMap<String, String>,
}

#[derive(Default)]
struct Collector {
    told: Arc<Mutex<Vec<Told>>>,
    spans: AtomicU64,
    /// Panics at every event.
    panics: bool,
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Collector {
    fn tell(&self, metadata: &Metadata<'_>, mut fields: BTreeMap<String, String>) {
        assert!(!self.panics, "a subscriber that panics");
        let name = fields.remove("message").unwrap_or_else(|| metadata.name().to_owned());
        self.told.lock().unwrap().push(Told { level: *metadata.level(), name, fields });
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "isolde"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        self.tell(span.metadata(), fields.0);
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.tell(event.metadata(), fields.0);
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {
        assert!(!self.panics, "a subscriber that panics");
    }
}

/// What is told while `work` runs on this thread.
fn told(work: impl FnOnce()) -> Vec<Told> {
    let collector = Collector::default();
    let told = Arc::clone(&collector.told);
    tracing::subscriber::with_default(collector, work);
    let told = told.lock().unwrap();
    told.clone()
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| &*told.name).collect()
}

fn pessimistic(db: &Db, label: &str) -> Session {
    now(Session::begin(db.txn().isolation(Isolation::Serializable).mode(Mode::Pessimistic).label(label))).unwrap()
}

#[test]
fn a_body_is_told_with_its_attempts_and_its_commit() {
    let db = open(|b| b);
    let told = told(|| {
        let mut first = true;
        let first = std::cell::RefCell::new(&mut first);
        db.txn()
            .label("transfer")
            .run(|t| {
                t.get("k")?;
                if std::mem::take(*first.borrow_mut()) {
                    db.put("k", "in between")?;
                }
                t.put("k", "mine")
            })
            .unwrap();
    });
    let mine: Vec<&Told> =
        told.iter().filter(|told| told.fields.get("label").is_some_and(|label| label.contains("transfer"))).collect();
    let names: Vec<&str> = mine.iter().map(|told| &*told.name).collect();
    assert_eq!(names, ["transaction", "aborted", "retry", "transaction", "committed"], "{told:#?}");
    assert_eq!(mine[1].fields["kind"], "Conflict");
    assert_eq!((&*mine[0].fields["attempt"], &*mine[3].fields["attempt"]), ("1", "2"));
    let expected = ["isolation", "label", "mode", "ts", "txn"];
    assert_eq!(mine[4].fields.keys().collect::<Vec<_>>(), expected);
    assert!(mine.iter().all(|told| told.level == Level::DEBUG));
}

#[test]
fn waits_and_deadlocks_are_told_with_their_keys() {
    for redact in [false, true] {
        let db = open(|b| b.redact_keys(redact));
        let told = told(|| {
            let (a, b) = (pessimistic(&db, "a"), pessimistic(&db, "b"));
            now(a.put("alpha", "1")).unwrap();
            now(b.put("beta", "1")).unwrap();
            let mut waiting = a.put("beta", "2");
            assert!(poll(&mut waiting).is_pending());
            let mut victim = b.put("alpha", "2");
            let Poll::Ready(outcome) = poll(&mut victim) else { panic!("a deadlock is found when it arises") };
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Deadlock);
            now(waiting).unwrap();
            now(a.commit()).unwrap();
        });
        assert_eq!(names(&told), ["lock wait", "deadlock", "committed"], "{told:#?}");
        assert_eq!((told[0].level, told[1].level), (Level::TRACE, Level::WARN));
        assert_eq!(told[0].fields["target"].contains("beta"), !redact, "{told:#?}");
        assert_eq!(told[1].fields["error"].contains("alpha"), !redact, "{told:#?}");
    }
}

#[test]
fn opening_checkpoints_and_closing_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = told(|| {
        let db = Db::builder().path(folder.path().join("db")).no_threads().open().unwrap();
        db.put("k", "v").unwrap();
        db.checkpoint().unwrap();
        db.close().unwrap();
    });
    let info: Vec<&Told> = told.iter().filter(|told| told.level == Level::INFO).collect();
    assert_eq!(info.iter().map(|told| &*told.name).collect::<Vec<_>>(), ["opened", "checkpoint", "closed"]);
    assert_eq!(info[1].fields["rows"], "1");
    assert!(info[0].fields["path"].ends_with("db\""), "{info:#?}");
}

/// Nothing is lost but the event.
#[test]
fn a_subscriber_that_panics_loses_no_commit_and_no_lock() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let db = open(|b| b);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tracing::subscriber::with_default(Collector { panics: true, ..Collector::default() }, || {
            db.transact(|t| t.put("k", "v")).unwrap();
            let holder = pessimistic(&db, "holder");
            now(holder.put("k", "2")).unwrap();
            let other = pessimistic(&db, "other");
            let mut waiting = other.put("k", "3");
            assert!(poll(&mut waiting).is_pending());
            now(holder.commit()).unwrap();
            now(waiting).unwrap();
            now(other.commit()).unwrap();
        });
    }));
    std::panic::set_hook(hook);
    outcome.unwrap();
    assert_eq!(db.get("k").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!((db.stats().active, db.stats().locks.owners), (0, 0));
    db.check().unwrap();
}
