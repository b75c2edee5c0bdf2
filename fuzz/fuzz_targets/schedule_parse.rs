//! A schedule's text: it is refused, or it says the same when it is printed and read again.

#![no_main]

use isolde_history::schedule::Schedule;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(schedule) = Schedule::parse(text) else { return };
    let printed = schedule.to_string();
    let again = Schedule::parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.to_string(), printed);
});
