//! How many schedules a second the explorer runs, at each level and mode, on one core.
//!
//! `cargo bench -p anomaly-suite --bench explore` takes a minute and a half: in interleaved rounds, each level
//! and mode explores the same programs for a while. It prints the medians of the rounds, with PASS or FAIL,
//! and exits 1 on a FAIL. Three transactions of three operations each, which meet on two keys and in a scan.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anomaly_suite::Isolde;
use anomaly_suite::explore::{Exploring, survey};
use isolde_history::explore::Programs;
use isolde_history::schedule::{Schedule, Setting};

/// As in the command `anomaly-suite`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Schedules a second that every level and mode is to reach.
const BOUND: f64 = 20_000.0;

const PROGRAMS: [(&str, &str); 3] = [
    (
        "updates of two keys",
        "init: x=1 y=2\nT1: get x\nT1: get y\nT1: put x 11\nT2: get y\nT2: get x\nT2: put y 22\n\
         T3: get x\nT3: put x 31\nT3: put y 32\n",
    ),
    (
        "writes crosswise",
        "init: x=1 y=2\nT1: put x 11\nT1: put y 12\nT1: get x\nT2: put y 22\nT2: put x 21\nT2: get y\n\
         T3: get y\nT3: get x\nT3: put y 32\n",
    ),
    (
        "scans beside writes",
        "init: x=1 y=2\nT1: scan ..\nT1: put x 11\nT1: get z\nT2: get y\nT2: put z 23\nT2: put y 22\n\
         T3: get x\nT3: scan ..\nT3: put x 31\n",
    ),
];

/// How many rounds, if no number is given: `cargo bench .. -- 3`.
const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let given = std::env::args().skip(1).find_map(|word| word.parse::<usize>().ok());
    let rounds = given.unwrap_or(ROUNDS).max(1);
    let texts = PROGRAMS.map(|(name, text)| (name, Schedule::parse(text).expect("a schedule")));
    let programs = texts.map(|(name, schedule)| (name, Programs::of(&schedule).expect("programs")));
    let settings: Vec<Setting> = Setting::all().collect();
    let mut rates = vec![[const { Vec::new() }; PROGRAMS.len()]; settings.len()];
    for _ in 0..rounds {
        for (setting, rates) in settings.iter().zip(&mut rates) {
            for ((_, programs), rates) in programs.iter().zip(rates) {
                rates.push(rate(programs, *setting));
            }
        }
    }
    println!("explore: schedules a second on one core, medians of {rounds} rounds; at least {BOUND:.0}");
    let mut passes = true;
    for (setting, rates) in settings.iter().zip(&mut rates) {
        let medians = rates.each_mut().map(|rates| median(rates));
        let slowest = medians.iter().copied().fold(f64::INFINITY, f64::min);
        let word = if slowest >= BOUND { "PASS" } else { "FAIL" };
        passes &= slowest >= BOUND;
        let each = programs.iter().zip(medians).map(|((name, _), rate)| format!("{name} {rate:.0}"));
        let name = format!("{} {}", setting.isolation, setting.mode);
        println!("{word}  {name:<28} {}", each.collect::<Vec<_>>().join(", "));
    }
    if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Schedules a second of explorations, again and again for a while. On Linux they are seconds of CPU, so that
/// what else runs on the machine counts for less.
fn rate(programs: &Programs, setting: Setting) -> f64 {
    let (start, before) = (Instant::now(), cpu_seconds());
    let mut schedules = 0;
    while let Some(left) = SLICE.checked_sub(start.elapsed()) {
        let exploring = Exploring { time_limit: Some(left), ..Exploring::default() };
        let found = survey(&Isolde, programs, &[setting], &exploring, |_| ()).expect("programs that can be run");
        assert!(found.survey.faults.is_empty() && found.survey.stuck.is_none(), "{setting:?}: a promise is broken");
        schedules += found.explored.schedules;
    }
    let wall = start.elapsed().as_secs_f64();
    let seconds = before.zip(cpu_seconds()).map_or(wall, |(before, after)| after - before);
    schedules as f64 / seconds.max(1e-9)
}

/// CPU time that this process has used; `None` where the system does not say.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<u64>().ok().map(|nanos| nanos as f64 * 1e-9)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
