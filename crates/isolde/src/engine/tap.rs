//! Where the engine tells a recorder what happens; nothing without the feature `record`.

use bytes::Bytes;
use isolde_mvcc::FoundVersion;
use isolde_types::{Key, Span, Ts};

use super::TxnInner;

/// What a read promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tracking {
    Tracked,
    Untracked,
}

#[cfg(not(feature = "record"))]
mod imp {
    use super::*;

    /// A tap that nothing is drawn from.
    #[derive(Default)]
    pub(crate) struct Tap;

    #[allow(clippy::unused_self, reason = "the same calls as with the feature `record`")]
    impl Tap {
        #[inline]
        pub fn is_open(&self) -> bool {
            false
        }
        #[inline]
        pub fn begin(&self, _txn: &TxnInner) {}
        #[inline]
        pub fn read(
            &self,
            _txn: &TxnInner,
            _key: &[u8],
            _version: FoundVersion,
            _value: Option<&Bytes>,
            _tracking: Tracking,
            _as_of: Option<Ts>,
        ) {
        }
        #[inline]
        pub fn read_own(&self, _txn: &TxnInner, _key: &[u8], _seq: u32, _value: Option<&Bytes>) {}
        #[inline]
        pub fn scan(&self, _txn: &TxnInner, _span: Span, _row: Option<TapRow>, _tracking: Tracking, _as_of: Ts) {}
        #[inline]
        pub fn write(&self, _txn: &TxnInner, _key: &[u8], _seq: u32, _value: Option<&Bytes>, _blind: bool) {}
        #[inline]
        pub fn rollback_to(&self, _txn: &TxnInner, _seq: u32) {}
        #[inline]
        pub fn commit(&self, _txn: &TxnInner, _ts: Option<Ts>, _resolved: Vec<(Key, Bytes)>) {}
        #[inline]
        pub fn abort(&self, _txn: &TxnInner) {}
    }
}

#[cfg(feature = "record")]
mod imp {
    use isolde_history::{Event, ReadKind, Row, TxnKey, Version};
    use isolde_types::sync::Mutex;
    use isolde_types::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The events of the recording that is going on.
    #[derive(Default)]
    pub(crate) struct Tap {
        open: AtomicBool,
        events: Mutex<Vec<Event>>,
    }

    impl Tap {
        #[inline]
        pub fn is_open(&self) -> bool {
            // SeqCst: whoever begins registers first and then asks; a recorder opens the tap first
            // and then looks for registered transactions; one of them sees the other.
            self.open.load(Ordering::SeqCst)
        }

        /// Opens or closes the tap; says whether it was open.
        pub fn set_open(&self, open: bool) -> bool {
            self.open.swap(open, Ordering::SeqCst)
        }

        pub fn take(&self) -> Vec<Event> {
            std::mem::take(&mut *self.events.lock())
        }

        fn put(&self, event: impl FnOnce() -> Event) {
            if self.is_open() {
                let event = event();
                self.events.lock().push(event);
            }
        }

        pub fn begin(&self, txn: &TxnInner) {
            self.put(|| Event::Begin {
                txn: key_of(txn),
                name: txn.label.as_ref().map_or_else(|| txn.id().to_string(), ToString::to_string),
                isolation: txn.isolation,
                mode: txn.mode,
                read_only: txn.is_read_only(),
            });
        }

        pub fn read(
            &self,
            txn: &TxnInner,
            key: &[u8],
            version: FoundVersion,
            value: Option<&Bytes>,
            tracking: Tracking,
            as_of: Option<Ts>,
        ) {
            self.put(|| Event::Read {
                txn: key_of(txn),
                key: Key::copy_from_slice(key),
                version: version_of(version),
                value: value.cloned(),
                kind: kind_of(tracking),
                as_of,
            });
        }

        pub fn read_own(&self, txn: &TxnInner, key: &[u8], seq: u32, value: Option<&Bytes>) {
            self.put(|| Event::Read {
                txn: key_of(txn),
                key: Key::copy_from_slice(key),
                version: Version::Own(seq),
                value: value.cloned(),
                kind: ReadKind::Tracked,
                as_of: None,
            });
        }

        pub fn scan(&self, txn: &TxnInner, span: Span, row: Option<TapRow>, tracking: Tracking, as_of: Ts) {
            self.put(|| Event::Scan {
                txn: key_of(txn),
                span,
                rows: row.map_or_else(Vec::new, |row| {
                    vec![Row { key: row.key, version: row_version(row.version), value: row.value }]
                }),
                kind: kind_of(tracking),
                as_of: Some(as_of),
            });
        }

        pub fn write(&self, txn: &TxnInner, key: &[u8], seq: u32, value: Option<&Bytes>, blind: bool) {
            self.put(|| {
                let (txn, key) = (key_of(txn), Key::copy_from_slice(key));
                Event::Write { txn, key, seq, value: value.cloned(), blind }
            });
        }

        pub fn rollback_to(&self, txn: &TxnInner, seq: u32) {
            self.put(|| Event::RollbackTo { txn: key_of(txn), seq });
        }

        pub fn commit(&self, txn: &TxnInner, ts: Option<Ts>, resolved: Vec<(Key, Bytes)>) {
            self.put(|| Event::Commit { txn: key_of(txn), ts, resolved });
        }

        pub fn abort(&self, txn: &TxnInner) {
            self.put(|| Event::Abort { txn: key_of(txn) });
        }
    }

    fn key_of(txn: &TxnInner) -> TxnKey {
        TxnKey(txn.id().0)
    }

    fn kind_of(tracking: Tracking) -> ReadKind {
        match tracking {
            Tracking::Tracked => ReadKind::Tracked,
            Tracking::Untracked => ReadKind::Untracked,
        }
    }

    fn version_of(version: FoundVersion) -> Version {
        match version {
            FoundVersion::None => Version::None,
            FoundVersion::Committed(ts) => Version::Committed(ts),
            FoundVersion::InFlight { writer, seq } => Version::InFlight { txn: TxnKey(writer.0), seq },
        }
    }

    fn row_version(version: TapVersion) -> Version {
        match version {
            TapVersion::Found(found) => version_of(found),
            TapVersion::Own(seq) => Version::Own(seq),
        }
    }
}

pub(crate) use imp::Tap;

/// A row or tombstone that a scan met.
#[cfg_attr(not(feature = "record"), allow(dead_code, reason = "only a recorder reads it"))]
pub(crate) struct TapRow {
    pub key: Key,
    pub version: TapVersion,
    pub value: Option<Bytes>,
}

/// Whose version a row is.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "record"), allow(dead_code, reason = "only a recorder reads it"))]
pub(crate) enum TapVersion {
    Found(FoundVersion),
    Own(u32),
}
