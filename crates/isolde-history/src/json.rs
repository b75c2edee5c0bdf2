//! Histories as JSON lines: a header, then one event a line.
//!
//! ```text
//! {"schema":1,"start":4,"initial":[["x","1"]],"order":[]}
//! {"begin":{"txn":7,"name":"T1","isolation":"serializable","mode":"optimistic","read_only":false}}
//! {"read":{"txn":7,"key":"x","version":{"committed":4},"value":"1","kind":"tracked","as_of":4}}
//! {"commit":{"txn":7,"ts":null,"resolved":[]}}
//! ```
//!
//! Keys and values are strings; bytes that are no printable ASCII are written `\xNN`, a backslash `\\`.

use std::fmt;

use bytes::Bytes;
use isolde_types::{Key, Span, Ts};
use serde_json::{Map, Value, json};

use crate::model::{Event, History, ReadKind, Row, TxnKey, Version};

/// The version of the format.
const SCHEMA: u64 = 1;

/// Why a text is no history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// The column there, from 1, in characters, where it is known.
    pub column: Option<usize>,
    /// What was wrong, and what was expected.
    pub words: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.words),
            None => write!(f, "line {}: {}", self.line, self.words),
        }
    }
}

impl std::error::Error for ReadError {}

impl History {
    /// The history as JSON lines.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        let initial: Vec<Value> = self.initial.iter().map(|(key, value)| json!([text(key), text(value)])).collect();
        let order: Vec<Value> = self
            .order
            .iter()
            .map(|(key, writes)| {
                json!([text(key), writes.iter().map(|(t, seq)| json!([t.0, seq])).collect::<Vec<_>>()])
            })
            .collect();
        let mut lines =
            json!({"schema": SCHEMA, "start": self.start.0, "initial": initial, "order": order}).to_string();
        for event in &self.events {
            lines.push('\n');
            lines.push_str(&event_to_json(event).to_string());
        }
        lines.push('\n');
        lines
    }

    /// Reads what [`to_json_lines`](History::to_json_lines) wrote.
    ///
    /// # Errors
    /// The line, what was wrong there, and what was expected.
    pub fn from_json_lines(text: &str) -> Result<History, ReadError> {
        let mut history = History::default();
        let mut seen_header = false;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fail = |words: String| ReadError { line: number + 1, column: None, words };
            let value: Value = serde_json::from_str(line).map_err(|error| not_json(number + 1, &error))?;
            if seen_header {
                history.events.push(event_from_json(&value).map_err(fail)?);
            } else {
                read_header(&value, &mut history).map_err(fail)?;
                seen_header = true;
            }
        }
        if seen_header {
            Ok(history)
        } else {
            Err(ReadError {
                line: 1,
                column: None,
                words: format!("expected a header such as {{\"schema\":{SCHEMA},..}}"),
            })
        }
    }
}

fn not_json(line: usize, error: &serde_json::Error) -> ReadError {
    // The parser saw one line, and names it "line 1".
    let words = error.to_string();
    let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    ReadError {
        line,
        column: Some(error.column()).filter(|column| *column > 0),
        words: format!("expected JSON: {words}"),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn event_to_json(event: &Event) -> Value {
    let value = |value: &Option<Bytes>| value.as_ref().map(|value| text(value));
    match event {
        Event::Begin { txn, name, isolation, mode, read_only } => json!({"begin": {
            "txn": txn.0, "name": name, "isolation": isolation.name(), "mode": mode.name(), "read_only": read_only}}),
        Event::Read { txn, key, version, value: read, kind, as_of } => json!({"read": {
            "txn": txn.0, "key": text(key), "version": version_to_json(*version), "value": value(read),
            "kind": kind_name(*kind), "as_of": as_of.map(|ts| ts.0)}}),
        Event::Scan { txn, span, rows, kind, as_of } => {
            let rows: Vec<Value> = rows
                .iter()
                .map(|row| json!({"key": text(&row.key), "version": version_to_json(row.version), "value": value(&row.value)}))
                .collect();
            json!({"scan": {
                "txn": txn.0, "start": text(&span.start), "end": span.end.as_ref().map(|end| text(end)), "rows": rows,
                "kind": kind_name(*kind), "as_of": as_of.map(|ts| ts.0)}})
        }
        Event::Write { txn, key, seq, value: written, blind } => json!({"write": {
            "txn": txn.0, "key": text(key), "seq": seq, "value": value(written), "blind": blind}}),
        Event::RollbackTo { txn, seq } => json!({"rollback_to": {"txn": txn.0, "seq": seq}}),
        Event::Commit { txn, ts, resolved } => {
            let resolved: Vec<Value> = resolved.iter().map(|(key, value)| json!([text(key), text(value)])).collect();
            json!({"commit": {"txn": txn.0, "ts": ts.map(|ts| ts.0), "resolved": resolved}})
        }
        Event::Abort { txn } => json!({"abort": {"txn": txn.0}}),
        Event::Unknown { txn } => json!({"unknown": {"txn": txn.0}}),
    }
}

fn kind_name(kind: ReadKind) -> &'static str {
    match kind {
        ReadKind::Tracked => "tracked",
        ReadKind::Untracked => "untracked",
    }
}

fn version_to_json(version: Version) -> Value {
    match version {
        Version::None => json!("none"),
        Version::Committed(ts) => json!({"committed": ts.0}),
        Version::InFlight { txn, seq } => json!({"in_flight": [txn.0, seq]}),
        Version::Own(seq) => json!({"own": seq}),
    }
}

/// A result whose error says what was expected.
type Read<T> = Result<T, String>;

fn read_header(value: &Value, history: &mut History) -> Read<()> {
    let header = Fields::of(value, "a header object")?;
    let schema = header.number("schema")?;
    if schema != SCHEMA {
        return Err(format!("expected schema {SCHEMA}, found {schema}"));
    }
    history.start = Ts(header.number("start")?);
    for pair in header.list("initial")? {
        history.initial.push(pair_from_json(pair)?);
    }
    for entry in header.list("order")? {
        let (key, writes) = match entry.as_array().map(Vec::as_slice) {
            Some([key, Value::Array(writes)]) => (bytes_from_json(key)?, writes),
            _ => return Err("expected [key, [[txn, seq], ..]] in order".to_owned()),
        };
        let writes = writes.iter().map(txn_and_seq).collect::<Read<Vec<_>>>()?;
        history.order.push((key, writes));
    }
    Ok(())
}

fn event_from_json(value: &Value) -> Read<Event> {
    let object = value.as_object().filter(|object| object.len() == 1);
    let (name, body) = object.and_then(|object| object.iter().next()).ok_or("expected an object with one event")?;
    let fields = Fields::of(body, "the event's fields")?;
    let txn = TxnKey(fields.number("txn")?);
    Ok(match name.as_str() {
        "begin" => Event::Begin {
            txn,
            name: fields.text("name")?.to_owned(),
            isolation: fields.text("isolation")?.parse().map_err(|error| format!("{error}"))?,
            mode: fields.text("mode")?.parse().map_err(|error| format!("{error}"))?,
            read_only: fields.truth("read_only")?,
        },
        "read" => Event::Read {
            txn,
            key: fields.bytes("key")?,
            version: version_from_json(fields.get("version")?)?,
            value: fields.value("value")?,
            kind: fields.kind()?,
            as_of: fields.time("as_of")?,
        },
        "scan" => Event::Scan {
            txn,
            span: Span::new(fields.bytes("start")?, fields.value("end")?),
            rows: fields.list("rows")?.iter().map(row_from_json).collect::<Read<_>>()?,
            kind: fields.kind()?,
            as_of: fields.time("as_of")?,
        },
        "write" => Event::Write {
            txn,
            key: fields.bytes("key")?,
            seq: fields.small("seq")?,
            value: fields.value("value")?,
            blind: fields.truth("blind")?,
        },
        "rollback_to" => Event::RollbackTo { txn, seq: fields.small("seq")? },
        "commit" => Event::Commit {
            txn,
            ts: fields.time("ts")?,
            resolved: fields.list("resolved")?.iter().map(pair_from_json).collect::<Read<_>>()?,
        },
        "abort" => Event::Abort { txn },
        "unknown" => Event::Unknown { txn },
        other => {
            return Err(format!(
                "expected begin, read, scan, write, rollback_to, commit, abort or unknown, found {other:?}"
            ));
        }
    })
}

fn row_from_json(value: &Value) -> Read<Row> {
    let fields = Fields::of(value, "a row")?;
    Ok(Row {
        key: fields.bytes("key")?,
        version: version_from_json(fields.get("version")?)?,
        value: fields.value("value")?,
    })
}

fn version_from_json(value: &Value) -> Read<Version> {
    let wrong = || {
        format!(
            "expected a version: \"none\", {{\"committed\":n}}, {{\"in_flight\":[txn,seq]}} or {{\"own\":seq}}, found {value}"
        )
    };
    if value.as_str() == Some("none") {
        return Ok(Version::None);
    }
    let object = value.as_object().filter(|object| object.len() == 1).ok_or_else(wrong)?;
    let (name, body) = object.iter().next().ok_or_else(wrong)?;
    match name.as_str() {
        "committed" => body.as_u64().map(|ts| Version::Committed(Ts(ts))).ok_or_else(wrong),
        "own" => body.as_u64().and_then(|seq| u32::try_from(seq).ok()).map(Version::Own).ok_or_else(wrong),
        "in_flight" => txn_and_seq(body).map(|(txn, seq)| Version::InFlight { txn, seq }),
        _ => Err(wrong()),
    }
}

fn txn_and_seq(value: &Value) -> Read<(TxnKey, u32)> {
    let pair = match value.as_array().map(Vec::as_slice) {
        Some([txn, seq]) => txn.as_u64().zip(seq.as_u64().and_then(|seq| u32::try_from(seq).ok())),
        _ => None,
    };
    pair.map(|(txn, seq)| (TxnKey(txn), seq)).ok_or_else(|| format!("expected [txn, seq], found {value}"))
}

fn pair_from_json(value: &Value) -> Read<(Key, Bytes)> {
    match value.as_array().map(Vec::as_slice) {
        Some([key, value]) => Ok((bytes_from_json(key)?, bytes_from_json(value)?)),
        _ => Err(format!("expected [key, value], found {value}")),
    }
}

fn bytes_from_json(value: &Value) -> Read<Bytes> {
    let text = value.as_str().ok_or_else(|| format!("expected a string, found {value}"))?;
    unescape(text)
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Read<Bytes> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(quoted @ (b'\\' | b'\'' | b'"')) => quoted,
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|d| (d as char).to_digit(16)));
                match digits {
                    [Some(high), Some(low)] => u8::try_from(high * 16 + low).unwrap_or_default(),
                    _ => return Err(format!("expected two hexadecimal digits after \\x in {text:?}")),
                }
            }
            _ => return Err(format!("expected \\\\, \\n, \\r, \\t, \\', \\\" or \\xNN in {text:?}")),
        });
    }
    Ok(bytes.into())
}

/// The fields of an object, each asked for by name.
struct Fields<'v>(&'v Map<String, Value>);

impl<'v> Fields<'v> {
    fn of(value: &'v Value, what: &str) -> Read<Fields<'v>> {
        value.as_object().map(Fields).ok_or_else(|| format!("expected {what}, found {value}"))
    }

    fn get(&self, name: &str) -> Read<&'v Value> {
        self.0.get(name).ok_or_else(|| format!("expected a field {name:?}"))
    }

    fn number(&self, name: &str) -> Read<u64> {
        self.get(name)?.as_u64().ok_or_else(|| format!("expected a whole number for {name:?}"))
    }

    fn small(&self, name: &str) -> Read<u32> {
        u32::try_from(self.number(name)?).map_err(|_| format!("expected a smaller number for {name:?}"))
    }

    fn text(&self, name: &str) -> Read<&'v str> {
        self.get(name)?.as_str().ok_or_else(|| format!("expected a string for {name:?}"))
    }

    fn truth(&self, name: &str) -> Read<bool> {
        self.get(name)?.as_bool().ok_or_else(|| format!("expected true or false for {name:?}"))
    }

    fn list(&self, name: &str) -> Read<&'v Vec<Value>> {
        self.get(name)?.as_array().ok_or_else(|| format!("expected a list for {name:?}"))
    }

    fn bytes(&self, name: &str) -> Read<Bytes> {
        bytes_from_json(self.get(name)?)
    }

    fn value(&self, name: &str) -> Read<Option<Bytes>> {
        match self.get(name)? {
            Value::Null => Ok(None),
            value => bytes_from_json(value).map(Some),
        }
    }

    fn time(&self, name: &str) -> Read<Option<Ts>> {
        match self.get(name)? {
            Value::Null => Ok(None),
            value => value.as_u64().map(|ts| Some(Ts(ts))).ok_or_else(|| format!("expected a time for {name:?}")),
        }
    }

    fn kind(&self) -> Read<ReadKind> {
        match self.text("kind")? {
            "tracked" => Ok(ReadKind::Tracked),
            "untracked" => Ok(ReadKind::Untracked),
            other => Err(format!("expected tracked or untracked, found {other:?}")),
        }
    }
}
