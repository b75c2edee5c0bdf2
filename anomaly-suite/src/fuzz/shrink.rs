//! Making a failing schedule smaller, as long as it still fails.

use isolde_history::schedule::{Action, BeginWords, Schedule, Setting};

/// The smallest schedule that leaving out finds: whole transactions first, then single steps, then
/// initial keys, then differences of level and mode; again until nothing more can go.
pub(super) fn shrink(schedule: &Schedule, fails: impl Fn(&Schedule) -> bool) -> Schedule {
    let mut smallest = schedule.clone();
    loop {
        let smaller = candidates(&smallest).find(|candidate| fails(candidate));
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

fn candidates(schedule: &Schedule) -> impl Iterator<Item = Schedule> + '_ {
    let txns = (0..schedule.txns.len()).map(|txn| without_txn(schedule, txn));
    let steps = (0..schedule.steps.len()).filter_map(|step| without_step(schedule, step));
    let keys = (0..schedule.initial.len()).map(|key| {
        let mut smaller = schedule.clone();
        smaller.initial.remove(key);
        smaller
    });
    txns.chain(steps).chain(keys).chain(alike(schedule))
}

/// Without a transaction; those after it move up by one place and keep their names.
fn without_txn(schedule: &Schedule, txn: usize) -> Schedule {
    let mut smaller = schedule.clone();
    smaller.txns.remove(txn);
    smaller.steps.retain(|step| step.txn != txn);
    smaller.steps.iter_mut().filter(|step| step.txn > txn).for_each(|step| step.txn -= 1);
    smaller
}

/// Without a step that neither begins nor ends its transaction: everyone still ends.
fn without_step(schedule: &Schedule, step: usize) -> Option<Schedule> {
    let leaves_out = match &schedule.steps[step].action {
        Action::Begin(_) => false,
        Action::Do(operation) => !operation.ends(),
    };
    leaves_out.then(|| {
        let mut smaller = schedule.clone();
        smaller.steps.remove(step);
        smaller
    })
}

/// With all transactions at one level and mode, the weakest that still fails first.
fn alike(schedule: &Schedule) -> impl Iterator<Item = Schedule> + '_ {
    let mut begins = schedule.steps.iter().filter_map(|step| match &step.action {
        Action::Begin(words) => Some((words.isolation, words.mode)),
        Action::Do(_) => None,
    });
    let first = begins.next();
    let differ = begins.any(|begin| Some(begin) != first);
    Setting::all().filter(move |_| differ).map(|Setting { isolation, mode }| {
        let mut alike = schedule.clone();
        for step in &mut alike.steps {
            if let Action::Begin(words) = &mut step.action {
                *words = BeginWords { isolation: Some(isolation), mode: Some(mode), ..*words };
            }
        }
        alike
    })
}
