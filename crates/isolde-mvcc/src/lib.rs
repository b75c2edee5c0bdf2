//! Isolde's version store: stand-in.
#![allow(missing_docs)]
use bytes::Bytes;
use isolde_types::sync::atomic::{AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex};
use isolde_types::{Key, RecordCell, Span, Ts, TxnId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::task::{Context, Poll, Waker};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposure {
    Exposed,
    Private,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Active,
    Ordered(Ts),
    Committed(Ts),
    Aborted,
}
#[derive(Debug)]
pub struct Status {
    writer: TxnId,
    exposure: Exposure,
    state: AtomicU64,
}
const TAG: u64 = 3;
impl Status {
    pub fn new(writer: TxnId, exposure: Exposure) -> Arc<Status> {
        Arc::new(Status { writer, exposure, state: AtomicU64::new(0) })
    }
    pub fn writer(&self) -> TxnId {
        self.writer
    }
    pub fn state(&self) -> State {
        let w = self.state.load(Ordering::Acquire);
        match w & TAG {
            0 => State::Active,
            1 => State::Ordered(Ts(w >> 2)),
            2 => State::Committed(Ts(w >> 2)),
            _ => State::Aborted,
        }
    }
    pub fn abort(&self) {
        self.state.store(3, Ordering::Release);
    }
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Committed,
    Aborted,
}
#[must_use]
pub struct Wakers(Vec<Waker>);
impl Wakers {
    pub fn wake(self) {
        for w in self.0 {
            w.wake()
        }
    }
}
#[derive(Default)]
pub struct VisibleWait;
#[derive(Default)]
pub struct Timeline {
    seq: Mutex<Seq>,
    visible: AtomicU64,
}
#[derive(Default)]
struct Seq {
    next: u64,
    open: VecDeque<(u64, bool)>,
    waiting: Vec<(u64, Waker)>,
}
impl Timeline {
    pub fn new() -> Self {
        Timeline::default()
    }
    pub fn visible(&self) -> Ts {
        Ts(self.visible.load(Ordering::SeqCst))
    }
    pub fn order(&self, status: &Arc<Status>) -> Ts {
        let mut s = self.seq.lock();
        s.next += 1;
        let ts = s.next;
        s.open.push_back((ts, false));
        status.state.store(ts << 2 | 1, Ordering::Release);
        Ts(ts)
    }
    pub fn finalize(&self, status: &Arc<Status>, outcome: Outcome) -> Wakers {
        let State::Ordered(ts) = status.state() else { return Wakers(vec![]) };
        let mut s = self.seq.lock();
        status.state.store(
            match outcome {
                Outcome::Committed => ts.0 << 2 | 2,
                Outcome::Aborted => 3,
            },
            Ordering::Release,
        );
        for e in s.open.iter_mut() {
            if e.0 == ts.0 {
                e.1 = true
            }
        }
        let mut v = self.visible.load(Ordering::SeqCst);
        while let Some((t, true)) = s.open.front().copied() {
            v = t;
            s.open.pop_front();
        }
        if s.open.is_empty() {
            v = s.next;
        }
        self.visible.store(v, Ordering::SeqCst);
        let mut out = vec![];
        let w = std::mem::take(&mut s.waiting);
        for (t, k) in w {
            if t <= v { out.push(k) } else { s.waiting.push((t, k)) }
        }
        Wakers(out)
    }
    pub fn commit_at_once(&self, status: &Arc<Status>) -> (Ts, Wakers) {
        let ts = self.order(status);
        (ts, self.finalize(status, Outcome::Committed))
    }
    pub fn poll_visible(&self, ts: Ts, cx: &mut Context<'_>, _w: &mut VisibleWait) -> Poll<()> {
        if self.visible() >= ts {
            return Poll::Ready(());
        }
        let mut s = self.seq.lock();
        if self.visible() >= ts {
            return Poll::Ready(());
        }
        s.waiting.push((ts.0, cx.waker().clone()));
        Poll::Pending
    }
}
#[derive(Default)]
pub struct Views {
    open: Mutex<BTreeMap<u64, usize>>,
}
pub struct View {
    ts: Ts,
    views: Arc<Views>,
}
impl View {
    pub fn ts(&self) -> Ts {
        self.ts
    }
}
impl Drop for View {
    fn drop(&mut self) {
        let mut o = self.views.open.lock();
        let c = o.get_mut(&self.ts.0).unwrap();
        *c -= 1;
        if *c == 0 {
            o.remove(&self.ts.0);
        }
    }
}
#[derive(Clone, Debug)]
pub struct Live {
    views: Vec<Ts>,
    upto: Ts,
}
impl Views {
    pub fn new() -> Self {
        Views::default()
    }
    pub fn register(self: &Arc<Self>, t: &Timeline) -> View {
        let mut o = self.open.lock();
        let ts = t.visible();
        *o.entry(ts.0).or_default() += 1;
        View { ts, views: self.clone() }
    }
    pub fn live(&self, t: &Timeline) -> Arc<Live> {
        let o = self.open.lock();
        Arc::new(Live { views: o.keys().map(|k| Ts(*k)).collect(), upto: t.visible() })
    }
    pub fn cached_live(&self, t: &Timeline) -> Arc<Live> {
        self.live(t)
    }
    pub fn oldest(&self) -> Option<Ts> {
        self.open.lock().keys().next().map(|k| Ts(*k))
    }
    pub fn count(&self) -> usize {
        self.open.lock().values().sum()
    }
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadAt {
    Dirty,
    Newest,
    At(Ts),
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundVersion {
    None,
    Committed(Ts),
    InFlight { writer: TxnId, seq: u32 },
}
#[derive(Clone, Debug)]
pub struct Found {
    pub version: FoundVersion,
    pub value: Option<Bytes>,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latest {
    Nothing,
    Committed(Ts, bool),
    Undecided(Ts),
}
enum Stamp {
    Committed(Ts),
    InFlight(Arc<Status>, u32),
}
struct Version {
    stamp: Stamp,
    value: Option<Bytes>,
}
pub struct Record<C> {
    key: Key,
    cell: C,
    chain: Mutex<VecDeque<Version>>,
}
impl<C: RecordCell> Record<C> {
    pub fn key(&self) -> &Key {
        &self.key
    }
    pub fn cell(&self) -> &C {
        &self.cell
    }
    pub fn read(&self, at: ReadAt, own: Option<&Arc<Status>>) -> Found {
        for v in self.chain.lock().iter() {
            let ts = match &v.stamp {
                Stamp::Committed(ts) => *ts,
                Stamp::InFlight(s, seq) => {
                    if own.is_some_and(|o| Arc::ptr_eq(o, s)) {
                        continue;
                    }
                    match s.state() {
                        State::Committed(ts) => ts,
                        State::Active | State::Ordered(_) if at == ReadAt::Dirty && s.exposure == Exposure::Exposed => {
                            return Found {
                                version: FoundVersion::InFlight { writer: s.writer, seq: *seq },
                                value: v.value.clone(),
                            };
                        }
                        _ => continue,
                    }
                }
            };
            if let ReadAt::At(limit) = at {
                if ts > limit {
                    continue;
                }
            }
            return Found { version: FoundVersion::Committed(ts), value: v.value.clone() };
        }
        Found { version: FoundVersion::None, value: None }
    }
    pub fn install(&self, status: &Arc<Status>, seq: u32, value: Option<Bytes>) {
        let mut c = self.chain.lock();
        c.retain(|v| !matches!(&v.stamp, Stamp::InFlight(s, _) if Arc::ptr_eq(s, status)));
        c.push_front(Version { stamp: Stamp::InFlight(status.clone(), seq), value });
    }
    pub fn withdraw(&self, status: &Arc<Status>) {
        self.chain.lock().retain(|v| !matches!(&v.stamp, Stamp::InFlight(s, _) if Arc::ptr_eq(s, status)));
    }
    pub fn settle(&self, ts: Ts, status: &Arc<Status>, live: &Live) {
        let mut c = self.chain.lock();
        for v in c.iter_mut() {
            if matches!(&v.stamp, Stamp::InFlight(s, _) if Arc::ptr_eq(s, status)) {
                v.stamp = Stamp::Committed(ts)
            }
        }
        prune(&mut c, live);
    }
    pub fn latest_at(&self, at: Ts, own: Option<&Arc<Status>>) -> Latest {
        for v in self.chain.lock().iter() {
            let ts = match &v.stamp {
                Stamp::Committed(ts) => *ts,
                Stamp::InFlight(s, _) => {
                    if own.is_some_and(|o| Arc::ptr_eq(o, s)) {
                        continue;
                    }
                    match s.state() {
                        State::Committed(ts) => ts,
                        State::Ordered(ts) if ts < at => return Latest::Undecided(ts),
                        _ => continue,
                    }
                }
            };
            if ts > at {
                continue;
            }
            return Latest::Committed(ts, v.value.is_none());
        }
        Latest::Nothing
    }
}
fn prune(c: &mut VecDeque<Version>, live: &Live) {
    let mut points: Vec<Ts> = live.views.clone();
    points.push(live.upto);
    points.sort();
    points.dedup();
    let mut keep: Vec<bool> = Vec::new();
    let mut newer = Ts::MAX;
    for v in c.iter() {
        match &v.stamp {
            Stamp::InFlight(..) => keep.push(true),
            Stamp::Committed(ts) => {
                keep.push(*ts > live.upto || points.iter().any(|p| *p >= *ts && *p < newer));
                newer = *ts;
            }
        }
    }
    let mut i = 0;
    c.retain(|_| {
        i += 1;
        keep[i - 1]
    });
}
pub struct Store<C> {
    map: Mutex<BTreeMap<Key, Arc<Record<C>>>>,
    _h: HashMap<(), ()>,
}
pub struct Cursor {
    span: Span,
    done: bool,
}
pub struct Swept;
#[derive(Clone, Copy, Debug)]
pub struct StoreStats {
    pub records: usize,
    pub versions: usize,
    pub bytes: usize,
}
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpanCheck {
    Unchanged,
    Changed { key: Key, ts: Ts },
    Undecided(Ts),
}
impl<C: RecordCell> Store<C> {
    pub fn new() -> Self {
        Store { map: Mutex::new(BTreeMap::new()), _h: HashMap::new() }
    }
    pub fn find(&self, key: &[u8]) -> Option<Arc<Record<C>>> {
        self.map.lock().get(key).cloned()
    }
    pub fn find_or_create(&self, key: &[u8]) -> Arc<Record<C>> {
        self.map
            .lock()
            .entry(Bytes::copy_from_slice(key))
            .or_insert_with(|| {
                Arc::new(Record {
                    key: Bytes::copy_from_slice(key),
                    cell: C::default(),
                    chain: Mutex::new(VecDeque::new()),
                })
            })
            .clone()
    }
    pub fn cursor(&self, span: Span) -> Cursor {
        Cursor { done: span.is_empty(), span }
    }
    pub fn next_batch(&self, cursor: &mut Cursor, out: &mut Vec<Arc<Record<C>>>) -> bool {
        if cursor.done {
            return false;
        }
        let m = self.map.lock();
        let end = cursor.span.end.clone();
        let mut n = 0;
        for (k, r) in m.range::<[u8], _>((
            Bound::Included(&cursor.span.start[..]),
            end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        )) {
            out.push(r.clone());
            n += 1;
            if n == 64 {
                cursor.span.start = Span::point(k).end.unwrap();
                cursor.done = cursor.span.is_empty();
                return !cursor.done;
            }
        }
        cursor.done = true;
        false
    }
    pub fn next_batch_back(&self, cursor: &mut Cursor, out: &mut Vec<Arc<Record<C>>>) -> bool {
        if cursor.done {
            return false;
        }
        let m = self.map.lock();
        let end = cursor.span.end.clone();
        let mut n = 0;
        for (k, r) in m
            .range::<[u8], _>((
                Bound::Included(&cursor.span.start[..]),
                end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
            ))
            .rev()
        {
            out.push(r.clone());
            n += 1;
            if n == 64 {
                cursor.span.end = Some(k.clone());
                cursor.done = cursor.span.is_empty();
                return !cursor.done;
            }
        }
        cursor.done = true;
        false
    }
    pub fn span_latest_after(&self, span: &Span, since: Ts, at: Ts, own: Option<&Arc<Status>>) -> SpanCheck {
        let mut c = self.cursor(span.clone());
        let mut out = vec![];
        while self.next_batch(&mut c, &mut out) {}
        for r in out {
            match r.latest_at(at, own) {
                Latest::Undecided(t) => return SpanCheck::Undecided(t),
                Latest::Committed(ts, _) if ts > since => return SpanCheck::Changed { key: r.key.clone(), ts },
                _ => {}
            }
        }
        SpanCheck::Unchanged
    }
    pub fn note_garbage(&self, _r: &Arc<Record<C>>) {}
    pub fn sweep(&self, _l: &Live, _b: usize) -> Swept {
        Swept
    }
    pub fn collect(&self, live: &Live) -> Swept {
        let mut m = self.map.lock();
        m.retain(|_, r| { let mut c = r.chain.lock(); prune(&mut c, live);
            let dead = c.is_empty() || (c.len() == 1 && c[0].value.is_none() && matches!(c[0].stamp, Stamp::Committed(ts) if ts <= live.upto && live.views.iter().all(|v| *v >= ts)));
            !(dead && r.cell.try_seal()) });
        Swept
    }
    pub fn stats(&self) -> StoreStats {
        let m = self.map.lock();
        StoreStats { records: m.len(), versions: m.values().map(|r| r.chain.lock().len()).sum(), bytes: m.len() * 200 }
    }
    pub fn check(&self, _v: Ts) -> Result<(), String> {
        Ok(())
    }
}
