//! The catalogue: one schedule file per anomaly, and what the file says about it.
//!
//! To add an anomaly, write `anomalies/<id>.schedule` and add its line to `FILES`. The file is all
//! there is: its title is `ID: name. One sentence.`, and its comments hold four paragraphs, which
//! `explain` prints: *What happens*, *In real life*, *What stops it*, *Read more*.

use std::sync::LazyLock;

use isolde_history::schedule::Schedule;

/// One anomaly of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// What commands and reports call it.
    pub id: &'static str,
    /// Other names that commands accept.
    pub aliases: &'static [&'static str],
    /// A few words.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// The schedule that shows it.
    pub schedule: Schedule,
    /// The file, as it is.
    pub text: &'static str,
}

/// A paragraph about an anomaly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paragraph {
    /// Its heading, such as `In real life`.
    pub heading: String,
    /// Its text, on one line.
    pub text: String,
}

/// The headings of the paragraphs of every file, in order.
pub const HEADINGS: [&str; 4] = ["What happens", "In real life", "What stops it", "Read more"];

macro_rules! file {
    ($id:literal, $($alias:literal),*) => {
        ($id, &[$($alias),*] as &[&str], include_str!(concat!("../anomalies/", $id, ".schedule")))
    };
}

/// The files in the order of the matrix: id, other names, text.
const FILES: [(&str, &[&str], &str); 24] = [
    file!("G0", "dirty-write", "P0"),
    file!("P0-undo", "dirty-write-undone"),
    file!("G1a", "aborted-read", "dirty-read"),
    file!("G1b", "intermediate-read"),
    file!("G1c", "circular-flow"),
    file!("OTV", "observed-transaction-vanishes"),
    file!("P1", "inconsistent-sum"),
    file!("P2", "fuzzy-read", "non-repeatable-read"),
    file!("G-single", "read-skew", "A5A"),
    file!("P3", "phantom", "PMP"),
    file!("P4", "lost-update"),
    file!("P4-seq", "lost-update-seq"),
    file!("P4-blind", "lost-blind-update"),
    file!("P4-for-update", "get-for-update"),
    file!("P4-increment", "increment"),
    file!("P4-cas", "cas", "compare-and-set"),
    file!("long-fork", "LF"),
    file!("G2-item", "write-skew", "A5B"),
    file!("G2-item-seq", "write-skew-seq"),
    file!("G2-item-absent", "write-skew-absent"),
    file!("read-only", "read-only-anomaly", "fekete"),
    file!("G2", "predicate-write-skew"),
    file!("stale-read", "G-single-realtime"),
    file!("own-writes", "internal", "read-your-writes"),
];

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| FILES.iter().map(Entry::read).collect());

/// All anomalies, in the order of the matrix.
#[must_use]
pub fn all() -> &'static [Entry] {
    &ENTRIES
}

/// The anomaly of this id or other name; upper and lower case are the same.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    all().iter().find(|entry| entry.names().any(|known| known.eq_ignore_ascii_case(name)))
}

impl Entry {
    fn read((id, aliases, text): &(&'static str, &'static [&'static str], &'static str)) -> Entry {
        let schedule = Schedule::parse(text).unwrap_or_else(|error| panic!("anomalies/{id}.schedule: {error}"));
        let title = schedule.title.strip_prefix(&format!("{id}: ")).unwrap_or(&schedule.title);
        let (name, summary) = title.split_once(". ").unwrap_or((title, ""));
        Entry { id, aliases, name: name.to_owned(), summary: summary.to_owned(), schedule, text }
    }

    /// Its id and its other names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        std::iter::once(self.id).chain(self.aliases.iter().copied())
    }

    /// What the file says about the anomaly.
    #[must_use]
    pub fn paragraphs(&self) -> Vec<Paragraph> {
        let blocks = self.schedule.about.split(String::is_empty).filter(|lines| !lines.is_empty());
        blocks.filter_map(|lines| Paragraph::read(&lines.join(" "))).collect()
    }

    /// The text of the paragraph with this heading.
    #[must_use]
    pub fn paragraph(&self, heading: &str) -> String {
        let found = self.paragraphs().into_iter().find(|paragraph| paragraph.heading == heading);
        found.map_or_else(String::new, |paragraph| paragraph.text)
    }
}

impl Paragraph {
    fn read(text: &str) -> Option<Paragraph> {
        let (heading, text) = text.split_once(": ")?;
        Some(Paragraph { heading: heading.to_owned(), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_has_a_title_and_the_four_paragraphs() {
        for entry in all() {
            assert!(entry.schedule.title.starts_with(&format!("{}: ", entry.id)), "{}", entry.schedule.title);
            assert!(!entry.name.is_empty() && entry.summary.ends_with('.'), "{}: {:?}", entry.id, entry.summary);
            let headings: Vec<String> = entry.paragraphs().into_iter().map(|p| p.heading).collect();
            assert_eq!(headings, HEADINGS, "{}", entry.id);
            assert!(entry.schedule.hunts.is_some(), "{}", entry.id);
        }
    }

    /// "What stops it" is of use only if it says at which levels, and with which calls below them.
    #[test]
    fn what_stops_it_names_levels_and_calls() {
        let calls = ["get-for-update", "increment", "cas", "lock the span", "the call itself", "no call", "any call"];
        let levels = ["every level", "read committed", "repeatable read", "snapshot", "serializable"];
        for entry in all() {
            let text = entry.paragraph("What stops it").to_lowercase();
            assert!(levels.iter().any(|level| text.contains(level)), "{}: no level: {text}", entry.id);
            let nothing_to_do = text.contains("every level of isolde");
            assert!(nothing_to_do || calls.iter().any(|call| text.contains(call)), "{}: no call: {text}", entry.id);
        }
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_catalogue() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("anomalies");
        let stem = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().path().file_stem().unwrap().to_owned();
        let files: BTreeSet<_> = std::fs::read_dir(folder).unwrap().map(stem).collect();
        assert_eq!(files, all().iter().map(|entry| entry.id.into()).collect());
    }

    #[test]
    fn every_file_prints_back_to_itself() {
        for entry in all() {
            assert_eq!(Schedule::parse(&entry.schedule.to_string()).unwrap(), entry.schedule, "{}", entry.id);
        }
    }

    #[test]
    fn names_and_aliases_are_told_apart() {
        let names: Vec<String> = all().iter().flat_map(Entry::names).map(str::to_ascii_lowercase).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert_eq!(find("Write-Skew").unwrap().id, "G2-item");
        assert!(find("G3").is_none());
    }
}
