//! Data as text: EDN, and JSON, which is nearly a part of it.
//!
//! One reader serves both, so that every error knows its line and column. It reads one item at a time,
//! allocates only for what it has read, and refuses to nest deeper than [`DEPTH`].

use super::decode;
use crate::json::ReadError;

/// How deep data may nest. A history needs four levels.
const DEPTH: usize = 32;

/// The language of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Syntax {
    Edn,
    Json,
}

/// A piece of data, and where its text begins.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Datum {
    pub at: usize,
    pub form: Form,
}

/// What a piece of data is.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Form {
    /// `nil`, `null`.
    Nil,
    /// `:ok`, without its colon; a string of JSON that stands for one is a `Text`.
    Keyword(String),
    /// `"ok"`.
    Text(String),
    /// A number, a symbol, a truth value: as it was written.
    Atom(String),
    /// A vector, list or set.
    List(Vec<Datum>),
    /// A map, in the order of its text.
    Map(Vec<(Datum, Datum)>),
}

impl Datum {
    /// The name that a keyword or a string gives.
    pub fn name(&self) -> Option<&str> {
        match &self.form {
            Form::Keyword(name) | Form::Text(name) => Some(name),
            _ => None,
        }
    }

    /// A value of one piece, written so that different values are written differently.
    pub fn scalar(&self) -> Option<String> {
        match &self.form {
            Form::Keyword(name) => Some(format!(":{name}")),
            Form::Text(text) => Some(format!("\"{}\"", text.escape_default())),
            Form::Atom(text) => Some(text.clone()),
            Form::Nil | Form::List(_) | Form::Map(_) => None,
        }
    }

    /// The value of a field of a map.
    pub fn field(&self, name: &str) -> Option<&Datum> {
        let Form::Map(entries) = &self.form else { return None };
        entries.iter().find(|(key, _)| key.name() == Some(name)).map(|(_, value)| value)
    }

    /// What it is, for an error.
    pub fn what(&self) -> String {
        match &self.form {
            Form::Nil => "nil".to_owned(),
            Form::List(_) => "a list".to_owned(),
            Form::Map(_) => "a map".to_owned(),
            Form::Keyword(_) | Form::Text(_) | Form::Atom(_) => self.scalar().unwrap_or_default(),
        }
    }
}

/// An error at a place of a text.
pub(super) fn error_at(text: &str, at: usize, words: impl Into<String>) -> ReadError {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..].chars().count() + 1;
    ReadError { line: before.matches('\n').count() + 1, column: Some(column), words: words.into() }
}

/// Reads the items of a text one by one: of one list that holds them all, or as they follow each other.
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    syntax: Syntax,
    within: Within,
    /// How deep what is being read nests, discarded data included.
    depth: usize,
}

/// Where a reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Start,
    /// One item after the other, with nothing around them.
    Sequence,
    /// In a list that ends with this character.
    List(char),
    End,
}

type Read<T> = Result<T, ReadError>;

impl<'t> Reader<'t> {
    pub fn new(text: &'t str, syntax: Syntax) -> Reader<'t> {
        Reader { text, at: 0, syntax, within: Within::Start, depth: 0 }
    }

    /// The next item; none at the end.
    pub fn next_item(&mut self) -> Read<Option<Datum>> {
        self.skip_blank()?;
        let first = self.within == Within::Start;
        if first {
            self.within = Within::Sequence;
            if let Some(close) = self.list_close() {
                self.at += 1;
                self.within = Within::List(close);
                self.skip_blank()?;
            }
        }
        let Within::List(close) = self.within else { return self.next_of_sequence() };
        if self.take(close) {
            self.within = Within::End;
            return self.next_of_sequence();
        }
        if !first {
            self.comma()?;
        }
        self.datum().map(Some)
    }

    fn next_of_sequence(&mut self) -> Read<Option<Datum>> {
        self.skip_blank()?;
        match (self.peek(), self.within) {
            (None, _) => Ok(None),
            (Some(found), Within::End) => Err(self.error(format!("expected the end of the text, found {found:?}"))),
            _ => self.datum().map(Some),
        }
    }

    /// What closes the list that begins here, if one does.
    fn list_close(&self) -> Option<char> {
        match (self.peek()?, self.syntax) {
            ('[', _) => Some(']'),
            ('(', Syntax::Edn) => Some(')'),
            _ => None,
        }
    }

    pub fn error(&self, words: impl Into<String>) -> ReadError {
        error_at(self.text, self.at, words)
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn take(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    /// JSON asks for a comma between items; EDN takes it for blank.
    fn comma(&mut self) -> Read<()> {
        if self.syntax == Syntax::Json && !self.take(',') {
            return Err(self.error(format!("expected `,` or the end of the list, found {}", self.found())));
        }
        self.skip_blank()
    }

    fn found(&self) -> String {
        self.peek().map_or("the end of the text".to_owned(), |found| format!("{found:?}"))
    }

    /// Skips blanks, and in EDN commas, comments and what `#_` discards.
    fn skip_blank(&mut self) -> Read<()> {
        let edn = self.syntax == Syntax::Edn;
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || (edn && c == ','));
            self.at += rest.len() - trimmed.len();
            if edn && trimmed.starts_with(';') {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if edn && trimmed.starts_with("#_") {
                self.at += 2;
                self.discarded()?;
            } else {
                return Ok(());
            }
        }
    }

    /// What follows `#_`. One that itself begins with `#_` would be a way to nest without limit.
    fn discarded(&mut self) -> Read<()> {
        let rest = self.rest().trim_start();
        self.at = self.text.len() - rest.len();
        if rest.starts_with("#_") {
            return Err(self.error("expected data after `#_`, found another `#_`"));
        }
        self.datum().map(drop)
    }

    fn datum(&mut self) -> Read<Datum> {
        if self.depth == DEPTH {
            return Err(self.error(format!("expected data that nests at most {DEPTH} deep")));
        }
        self.depth += 1;
        let datum = self.any_datum();
        self.depth -= 1;
        datum
    }

    fn any_datum(&mut self) -> Read<Datum> {
        let at = self.at;
        let form = match (self.peek(), self.syntax) {
            (None, _) => return Err(self.error("expected data, found the end of the text")),
            (Some('['), _) => self.list(1, ']')?,
            (Some('{'), _) => self.map()?,
            (Some('"'), _) => Form::Text(self.string()?),
            (Some('('), Syntax::Edn) => self.list(1, ')')?,
            (Some('#'), Syntax::Edn) if self.rest().starts_with("#{") => self.list(2, '}')?,
            (Some('#'), Syntax::Edn) => return self.tagged(),
            _ => self.token()?,
        };
        Ok(Datum { at, form })
    }

    /// `#tag data`: the data, whatever the tag says.
    fn tagged(&mut self) -> Read<Datum> {
        self.at += 1;
        if !self.peek().is_some_and(char::is_alphabetic) {
            return Err(self.error(format!("expected a tag, `{{` or `_` after `#`, found {}", self.found())));
        }
        self.at += self.token_length();
        self.skip_blank()?;
        self.datum()
    }

    fn list(&mut self, opening: usize, close: char) -> Read<Form> {
        self.at += opening;
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            if self.take(close) {
                return Ok(Form::List(items));
            }
            if !items.is_empty() {
                self.comma()?;
            }
            items.push(self.datum()?);
        }
    }

    fn map(&mut self) -> Read<Form> {
        self.at += 1;
        let mut entries = Vec::new();
        loop {
            self.skip_blank()?;
            if self.take('}') {
                return Ok(Form::Map(entries));
            }
            if !entries.is_empty() {
                self.comma()?;
            }
            let key = self.datum()?;
            self.skip_blank()?;
            if self.syntax == Syntax::Json {
                if !matches!(key.form, Form::Text(_)) {
                    return Err(error_at(
                        self.text,
                        key.at,
                        format!("expected a name in quotes, found {}", key.what()),
                    ));
                }
                if !self.take(':') {
                    return Err(self.error(format!("expected `:`, found {}", self.found())));
                }
                self.skip_blank()?;
            }
            entries.push((key, self.datum()?));
        }
    }

    fn string(&mut self) -> Read<String> {
        let (text, length) =
            decode::string(self.rest()).map_err(|(at, words)| error_at(self.text, self.at + at, words))?;
        self.at += length;
        Ok(text)
    }

    fn token_length(&self) -> usize {
        let rest = self.rest();
        let ends = |c: char| c.is_whitespace() || "[](){}\",;".contains(c) || (self.syntax == Syntax::Json && c == ':');
        rest.find(ends).unwrap_or(rest.len())
    }

    fn token(&mut self) -> Read<Form> {
        let length = self.token_length();
        let token = &self.rest()[..length];
        let form = decode::token(token, self.syntax);
        let form = form.ok_or_else(|| match token {
            "" => self.error(format!("expected data, found {}", self.found())),
            _ => self.error(format!("expected data, found `{}`", token.escape_debug())),
        })?;
        self.at += length;
        Ok(form)
    }
}
