//! Isolde's lock manager: stand-in.
#![allow(missing_docs)]
use isolde_types::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use isolde_types::sync::{Arc, Mutex, Weak};
use isolde_types::{Key, LockMode, RecordCell, Span, TxnId};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub struct LockCell {
    users: AtomicU64,
}
const SEALED: u64 = 1 << 63;
impl RecordCell for LockCell {
    fn try_seal(&self) -> bool {
        self.users.compare_exchange(0, SEALED, Ordering::SeqCst, Ordering::SeqCst).is_ok() || self.is_sealed()
    }
    fn is_sealed(&self) -> bool {
        self.users.load(Ordering::SeqCst) & SEALED != 0
    }
}
pub trait Handle: Clone + Send + Sync + 'static {
    fn key(&self) -> &Key;
    fn cell(&self) -> &LockCell;
}
pub trait SpanRecords<H> {
    fn each(&self, span: &Span, visit: &mut dyn FnMut(H));
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    Youngest,
    Oldest,
    FewestLocks,
    Requester,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deadlocks {
    Detect { victim: Victim },
    WoundWait,
    WaitDie,
    NoWait,
    TimeoutOnly,
}
#[derive(Clone, Debug)]
pub struct LockConfig {
    pub deadlocks: Deadlocks,
    pub max_locks_per_txn: usize,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Read,
    Write,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitPolicy {
    Wait,
    NoWait,
}
pub trait OnWound: Send + Sync {
    fn wounded(&self, by: TxnId);
}
pub struct OwnerSpec {
    pub id: TxnId,
    pub age: u64,
    pub label: Option<Arc<str>>,
    pub on_wound: Option<Weak<dyn OnWound>>,
}
pub struct Owner<H> {
    id: TxnId,
    age: u64,
    label: Option<Arc<str>>,
    ended: AtomicBool,
    _h: PhantomData<fn() -> H>,
}
impl<H> Owner<H> {
    pub fn protect(&self) -> Result<(), TxnId> {
        Ok(())
    }
}
#[derive(Clone, Debug)]
pub struct Blocker {
    pub txn: TxnId,
    pub label: Option<Arc<str>>,
}
#[derive(Debug)]
pub struct DeadlockReport {
    pub text: String,
}
impl std::fmt::Display for DeadlockReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
#[derive(Debug, Clone)]
pub enum LockError {
    Deadlock(Arc<DeadlockReport>),
    Wounded { by: TxnId },
    Busy(Vec<Blocker>),
    Sealed,
    TooManyLocks { limit: usize },
    Timeout(Vec<Blocker>),
    Ended,
}
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    pub waited: bool,
}
pub struct LockMark(usize);
#[derive(Clone)]
struct Grant {
    span: Span,
    mode: LockMode,
    txn: TxnId,
    purpose: Purpose,
}
struct WaitEntry {
    id: u64,
    span: Span,
    mode: LockMode,
    txn: TxnId,
    purpose: Purpose,
    waker: Option<Waker>,
    age: u64,
}
#[derive(Default)]
struct St {
    grants: Vec<Grant>,
    waits: Vec<WaitEntry>,
    done: Vec<(u64, Result<(), LockError>)>,
    next: u64,
}
impl St {
    fn blockers(&self, span: &Span, mode: LockMode, txn: TxnId, before: usize, upgrade: bool) -> Vec<TxnId> {
        let mut b: Vec<TxnId> = self
            .grants
            .iter()
            .filter(|g| g.txn != txn && g.mode.conflicts(mode) && g.span.overlaps(span))
            .map(|g| g.txn)
            .collect();
        if !upgrade {
            b.extend(
                self.waits[..before]
                    .iter()
                    .filter(|w| w.txn != txn && w.mode.conflicts(mode) && w.span.overlaps(span))
                    .map(|w| w.txn),
            );
        }
        b
    }
    fn upgrade(&self, span: &Span, txn: TxnId) -> bool {
        self.grants.iter().any(|g| g.txn == txn && g.span == *span)
    }
    fn pump(&mut self) -> Vec<Waker> {
        let mut out = vec![];
        let mut i = 0;
        while i < self.waits.len() {
            let w = &self.waits[i];
            if self.blockers(&w.span, w.mode, w.txn, i, self.upgrade(&w.span, w.txn)).is_empty() {
                let w = self.waits.remove(i);
                self.grants.push(Grant { span: w.span, mode: w.mode, txn: w.txn, purpose: w.purpose });
                self.done.push((w.id, Ok(())));
                out.extend(w.waker);
                i = 0;
            } else {
                i += 1
            }
        }
        out
    }
    fn cycle_from(&self, start: TxnId) -> Option<Vec<TxnId>> {
        let mut stack = vec![(start, vec![start])];
        let mut seen = std::collections::HashSet::new();
        while let Some((t, path)) = stack.pop() {
            for (i, w) in self.waits.iter().enumerate().filter(|(_, w)| w.txn == t) {
                for b in self.blockers(&w.span, w.mode, w.txn, i, self.upgrade(&w.span, w.txn)) {
                    if b == start {
                        return Some(path);
                    }
                    if seen.insert(b) {
                        let mut p = path.clone();
                        p.push(b);
                        stack.push((b, p))
                    }
                }
            }
        }
        None
    }
}
pub struct LockManager<H> {
    st: Mutex<St>,
    config: LockConfig,
    _h: PhantomData<fn() -> H>,
}
pub struct Acquire<'a, H> {
    m: &'a LockManager<H>,
    owner: &'a Arc<Owner<H>>,
    req: Option<(Span, LockMode, Purpose, WaitPolicy)>,
    cell_sealed: bool,
    wait: Option<u64>,
}
impl<H: Handle> LockManager<H> {
    pub fn new(config: LockConfig) -> Self {
        LockManager { st: Mutex::default(), config, _h: PhantomData }
    }
    pub fn owner(&self, s: OwnerSpec) -> Arc<Owner<H>> {
        Arc::new(Owner { id: s.id, age: s.age, label: s.label, ended: AtomicBool::new(false), _h: PhantomData })
    }
    pub fn lock_key<'a>(
        &'a self,
        owner: &'a Arc<Owner<H>>,
        h: H,
        mode: LockMode,
        p: Purpose,
        w: WaitPolicy,
    ) -> Acquire<'a, H> {
        Acquire {
            m: self,
            owner,
            req: Some((Span::point(h.key()), mode, p, w)),
            cell_sealed: h.cell().is_sealed(),
            wait: None,
        }
    }
    pub fn lock_span<'a>(
        &'a self,
        owner: &'a Arc<Owner<H>>,
        span: Span,
        mode: LockMode,
        p: Purpose,
        w: WaitPolicy,
        _r: &dyn SpanRecords<H>,
    ) -> Acquire<'a, H> {
        Acquire { m: self, owner, req: Some((span, mode, p, w)), cell_sealed: false, wait: None }
    }
    pub fn mark(&self, o: &Owner<H>) -> LockMark {
        LockMark(self.st.lock().grants.iter().filter(|g| g.txn == o.id).count())
    }
    pub fn release_to(&self, o: &Arc<Owner<H>>, m: &LockMark) {
        let mut s = self.st.lock();
        let mut n = 0;
        let id = o.id;
        let m = m.0;
        s.grants.retain(|g| {
            if g.txn != id {
                return true;
            }
            n += 1;
            n <= m || g.purpose == Purpose::Read
        });
        let w = s.pump();
        drop(s);
        for k in w {
            k.wake()
        }
    }
    pub fn release_all(&self, o: &Arc<Owner<H>>) {
        o.ended.store(true, Ordering::SeqCst);
        let mut s = self.st.lock();
        let id = o.id;
        s.grants.retain(|g| g.txn != id);
        let mut w = vec![];
        let mut i = 0;
        while i < s.waits.len() {
            if s.waits[i].txn == id {
                let e = s.waits.remove(i);
                s.done.push((e.id, Err(LockError::Ended)));
                w.extend(e.waker)
            } else {
                i += 1
            }
        }
        w.extend(s.pump());
        drop(s);
        for k in w {
            k.wake()
        }
    }
    pub fn locks(&self) -> LockView {
        LockView(self.st.lock().grants.iter().map(|g| format!("{} {} {}", g.txn, g.mode, g.span)).collect())
    }
    pub fn waits_for(&self) -> WaitsForView {
        WaitsForView
    }
    pub fn recent_deadlocks(&self) -> Vec<Arc<DeadlockReport>> {
        vec![]
    }
    pub fn stats(&self) -> LockStats {
        LockStats {}
    }
}
impl<H: Handle> Future for Acquire<'_, H> {
    type Output = Result<Granted, LockError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let mut s = me.m.st.lock();
        if let Some(id) = me.wait {
            if let Some(i) = s.done.iter().position(|d| d.0 == id) {
                me.wait = None;
                return Poll::Ready(s.done.remove(i).1.map(|()| Granted { waited: true }));
            }
            if let Some(w) = s.waits.iter_mut().find(|w| w.id == id) {
                w.waker = Some(cx.waker().clone())
            }
            return Poll::Pending;
        }
        if me.owner.ended.load(Ordering::SeqCst) {
            return Poll::Ready(Err(LockError::Ended));
        }
        if me.cell_sealed {
            return Poll::Ready(Err(LockError::Sealed));
        }
        let (span, mode, purpose, policy) = me.req.take().unwrap();
        let txn = me.owner.id;
        if s.grants.iter().any(|g| g.txn == txn && g.mode >= mode && (g.span == span)) {
            return Poll::Ready(Ok(Granted { waited: false }));
        }
        let up = s.upgrade(&span, txn);
        let n = s.waits.len();
        let b = s.blockers(&span, mode, txn, n, up);
        if b.is_empty() {
            s.grants.push(Grant { span, mode, txn, purpose });
            return Poll::Ready(Ok(Granted { waited: false }));
        }
        if policy == WaitPolicy::NoWait || me.m.config.deadlocks == Deadlocks::NoWait {
            return Poll::Ready(Err(LockError::Busy(b.into_iter().map(|txn| Blocker { txn, label: None }).collect())));
        }
        s.next += 1;
        let id = s.next;
        let e = WaitEntry { id, span, mode, txn, purpose, waker: Some(cx.waker().clone()), age: me.owner.age };
        let _ = &me.owner.label;
        if up {
            s.waits.insert(0, e)
        } else {
            s.waits.push(e)
        }
        me.wait = Some(id);
        let mut wk = vec![];
        while let Some(c) = s.cycle_from(txn) {
            let v = *c.iter().max_by_key(|t| s.waits.iter().find(|w| w.txn == **t).map(|w| w.age)).unwrap();
            let rep = Arc::new(DeadlockReport { text: format!("{c:?}") });
            let mut i = 0;
            while i < s.waits.len() {
                if s.waits[i].txn == v {
                    let e = s.waits.remove(i);
                    s.done.push((e.id, Err(LockError::Deadlock(rep.clone()))));
                    wk.extend(e.waker)
                } else {
                    i += 1
                }
            }
            wk.extend(s.pump());
        }
        if let Some(i) = s.done.iter().position(|d| d.0 == id) {
            me.wait = None;
            let r = s.done.remove(i).1;
            drop(s);
            for k in wk {
                k.wake()
            }
            return Poll::Ready(r.map(|()| Granted { waited: true }));
        }
        drop(s);
        for k in wk {
            k.wake()
        }
        Poll::Pending
    }
}
impl<H: Handle> Acquire<'_, H> {
    pub fn time_out(mut self: Pin<&mut Self>) -> Result<(), LockError> {
        let me = &mut *self;
        let Some(id) = me.wait.take() else { return Err(LockError::Ended) };
        let mut s = me.m.st.lock();
        if let Some(i) = s.done.iter().position(|d| d.0 == id) {
            return s.done.remove(i).1;
        }
        s.waits.retain(|w| w.id != id);
        let w = s.pump();
        drop(s);
        for k in w {
            k.wake()
        }
        Err(LockError::Timeout(vec![]))
    }
}
impl<H> Drop for Acquire<'_, H> {
    fn drop(&mut self) {
        if let Some(id) = self.wait {
            let mut s = self.m.st.lock();
            if let Some(i) = s.done.iter().position(|d| d.0 == id) {
                s.done.remove(i);
            }
            s.waits.retain(|w| w.id != id);
            let w = s.pump();
            drop(s);
            for k in w {
                k.wake()
            }
        }
    }
}
pub struct LockView(Vec<String>);
impl LockView {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
impl std::fmt::Display for LockView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
pub struct WaitsForView;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockStats {}
