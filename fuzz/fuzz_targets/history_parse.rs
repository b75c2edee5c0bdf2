//! A history's text, in each format: it is refused, or it can be judged; our own says the same when it is
//! written and read again.

#![no_main]

use isolde_history::foreign::{self, Format, Model};
use isolde_history::{History, check};
use isolde_types::Isolation;
use libfuzzer_sys::fuzz_target;

/// Judging takes longer than reading; what is longer is only read.
const JUDGED: usize = 4096;

fuzz_target!(|text: &str| {
    let _ = Format::of(text);
    if let Ok(history) = History::from_json_lines(text) {
        let written = history.to_json_lines();
        let again = History::from_json_lines(&written).expect("what was written can be read");
        assert_eq!(again.to_json_lines(), written);
        if text.len() <= JUDGED {
            let _ = check(&history);
        }
    }
    for format in [Format::Edn, Format::Json, Format::Registers] {
        let Ok(observed) = foreign::read(text, format) else { continue };
        if text.len() <= JUDGED {
            let _ = observed.judge(Model::of(Isolation::Serializable));
        }
    }
});
