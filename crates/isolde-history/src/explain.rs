//! Findings in words.

use isolde_types::{Anomaly, Key};

use crate::check::{Edge, Finding};
use crate::graph::{EdgeKind, RawEdge};
use crate::resolve::{ReadRec, Resolved, Txn, shown};

fn name_of(key: &Key) -> String {
    key.escape_ascii().to_string()
}

/// "x=1", or "x absent".
fn holds(key: &Key, value: Option<&bytes::Bytes>) -> String {
    match value {
        Some(_) => format!("{}={}", name_of(key), shown(value)),
        None => format!("{} absent", name_of(key)),
    }
}

/// An edge, in words.
pub(crate) fn edge(resolved: &Resolved<'_>, from: usize, to: usize, edge: Option<&RawEdge>) -> Edge {
    let (first, second) = (resolved.txns[from].name, resolved.txns[to].name);
    let Some(edge) = edge else {
        let words = format!("{first} ended before {second} began");
        return Edge::new(resolved, from, to, EdgeKind::Realtime, &Key::new(), words);
    };
    let (named, versions) = (resolved.keys[edge.key], resolved.versions.of(edge.key));
    let value = |place: usize| versions[place].value;
    let key = name_of(named);
    let (before, after) = (value(edge.places.0), value(edge.places.1));
    let words = match edge.kind {
        EdgeKind::Ww => {
            format!("{first} wrote {}, and {second} overwrote it with {}", holds(named, before), shown(after))
        }
        EdgeKind::Wr => format!("{first} wrote {}, and {second} read it", holds(named, before)),
        EdgeKind::RwItem => match after {
            Some(_) => format!("{first} read {}, and {second} overwrote it", holds(named, before)),
            None => format!("{first} read {}, and {second} deleted it", holds(named, before)),
        },
        EdgeKind::RwPredicate => match after {
            Some(_) => format!("{first} scanned a span without {key}, and {second} put {key} into it"),
            None => format!("{first} scanned a span with {key}, and {second} took {key} out of it"),
        },
        EdgeKind::Realtime => format!("{first} ended before {second} began"),
    };
    Edge::new(resolved, from, to, edge.kind, named, words)
}

/// "T1 is before T2, because ...; but T2 is before T1, because ...: a contradiction."
pub(crate) fn cycle(edges: &[Edge]) -> String {
    let part = |edge: &Edge| format!("{} is before {}, because {}", edge.from, edge.to, edge.words);
    let parts: Vec<String> = edges.iter().map(part).collect();
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{}; but {last}: a contradiction.", rest.join("; ")),
        _ => parts.join(""),
    }
}

/// A read of a write that does not stand.
pub(crate) fn bad_read(
    resolved: &Resolved<'_>,
    anomaly: Anomaly,
    reader: usize,
    writer: usize,
    read: &ReadRec<'_>,
) -> Finding {
    let (who, from) = (&resolved.txns[reader].name, &resolved.txns[writer].name);
    let key = resolved.keys[read.key];
    let what = holds(key, read.value);
    let seen = format!("{from} wrote {what}, and {who} read it");
    let words = match anomaly {
        Anomaly::IntermediateRead => {
            format!("{who} read {what}, which {from} then overwrote itself: a value that was never to be seen.")
        }
        _ => format!("{who} read {what}, which {from} wrote and then undid: a value that never was."),
    };
    Finding { anomaly, cycle: vec![Edge::new(resolved, writer, reader, EdgeKind::Wr, key, seen)], words }
}

/// A read that did not give the own write.
pub(crate) fn internal(resolved: &Resolved<'_>, reader: usize, key: &Key, words: &str) -> Finding {
    let who = resolved.txns[reader].name;
    Finding {
        anomaly: Anomaly::Internal,
        cycle: vec![Edge::new(resolved, reader, reader, EdgeKind::Wr, key, words.to_owned())],
        words: format!("{who} does not see its own writes: {words}."),
    }
}

/// An older version after a newer one of the same writer.
pub(crate) fn vanishing(
    resolved: &Resolved<'_>,
    reader: usize,
    writer: usize,
    first: &Key,
    read: &ReadRec<'_>,
    place: usize,
) -> Finding {
    let (who, from) = (&resolved.txns[reader].name, &resolved.txns[writer].name);
    let key = resolved.keys[read.key];
    let old = holds(key, resolved.versions.of(read.key)[place].value);
    let seen = format!("{from} wrote {}, and {who} read it", name_of(first));
    let missed = format!("{who} then read {old}, from before {from} wrote {}", name_of(key));
    Finding {
        anomaly: Anomaly::TransactionVanishes,
        words: format!("{seen}; {missed}: {from} was seen, and then it was gone."),
        cycle: vec![
            Edge::new(resolved, writer, reader, EdgeKind::Wr, first, seen),
            Edge::new(resolved, reader, writer, EdgeKind::RwItem, key, missed),
        ],
    }
}

/// Two read one version, and both wrote.
pub(crate) fn lost_update(resolved: &Resolved<'_>, key: usize, place: usize, one: usize, other: usize) -> Finding {
    let order = |txn: usize| resolved.version_by(key, txn);
    let (first, second) = if order(one) <= order(other) { (one, other) } else { (other, one) };
    let (a, b) = (&resolved.txns[first].name, &resolved.txns[second].name);
    let what = holds(resolved.keys[key], resolved.versions.of(key)[place].value);
    let key = resolved.keys[key];
    let read = format!("{b} read {what}, and {a} overwrote it");
    let wrote = format!("{a} wrote {}, and {b} overwrote it", name_of(key));
    Finding {
        anomaly: Anomaly::LostUpdate,
        words: format!("{a} and {b} both read {what}, and both wrote {}: what {a} wrote is lost.", name_of(key)),
        cycle: vec![
            Edge::new(resolved, second, first, EdgeKind::RwItem, key, read),
            Edge::new(resolved, first, second, EdgeKind::Ww, key, wrote),
        ],
    }
}

/// An impossible state, seen by a transaction that was then aborted.
pub(crate) fn zombie(resolved: &Resolved<'_>, txn: &Txn<'_>, writer: usize, seen: &Key, missed: &Key) -> String {
    let from = resolved.name(Some(writer));
    let (seen, missed) = (name_of(seen), name_of(missed));
    format!("{} saw {seen} as {from} wrote it, and {missed} from before {from}; it was aborted later", txn.name)
}
