//! JUnit XML, for servers that show test results.
//!
//! One suite per level and mode, and one for the hazards; one test case per anomaly. A case fails
//! when its cell is not as it must be: it came out otherwise than declared, or its level forbids
//! what was shown. A schedule that could not be run to its end is an error. No times are written, so
//! that two runs are equal byte for byte.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::table::look_closer;
use crate::hazards::{Case, Hazard, Hazards};
use crate::suite::{Cell, Report};

/// A report as one XML document; hazards are there if they were run.
#[must_use]
pub fn junit(report: &Report, hazards: Option<&Hazards>) -> String {
    let mut document = quick_junit::Report::new(format!("anomaly-suite: {} {}", report.db, report.db_version));
    for setting in &report.settings {
        let mut suite = TestSuite::new(format!("{} {}", setting.isolation, setting.mode));
        let cells = report.cells.iter().filter(|cell| cell.setting == *setting);
        suite.add_test_cases(cells.map(|cell| test_case(report, cell)));
        document.add_test_suite(suite);
    }
    if let Some(hazards) = hazards {
        let mut suite = TestSuite::new("hazards");
        suite.add_test_cases(hazards.0.iter().flat_map(hazard_cases));
        document.add_test_suite(suite);
    }
    document.to_string().unwrap_or_else(|error| panic!("names and words are always XML: {error}")) + "\n"
}

fn test_case(report: &Report, cell: &Cell) -> TestCase {
    let mut case = TestCase::new(cell.entry.id, status(cell));
    case.set_classname(format!("{}.{}.{}", report.db, cell.setting.isolation, cell.setting.mode));
    if let Some(outcome) = cell.outcome() {
        let declared = if cell.declared.is_some() { "" } else { " (not declared)" };
        case.set_system_out(format!("{}: {outcome}{declared}", cell.entry.name));
    }
    case
}

fn status(cell: &Cell) -> TestCaseStatus {
    if cell.is_absent() {
        let mut skipped = TestCaseStatus::skipped();
        skipped.set_message("the database has no such operation");
        return skipped;
    }
    if let Err(error) = &cell.trial {
        return not_well(NonSuccessKind::Error, "inconclusive", &error.to_string(), &look_closer(cell));
    }
    match cell.faults().as_slice() {
        [] => TestCaseStatus::success(),
        [first, rest @ ..] => {
            let more: String = rest.iter().map(|fault| format!("{fault}\n")).collect();
            not_well(NonSuccessKind::Failure, "not as declared", first, &(more + &look_closer(cell)))
        }
    }
}

fn hazard_cases(hazard: &Hazard) -> Vec<TestCase> {
    let case = |case: &Case, what: &str| {
        let status = if case.as_declared {
            TestCaseStatus::success()
        } else {
            not_well(
                NonSuccessKind::Failure,
                "not as declared",
                &format!("the hazard was not {what}"),
                &case.measured(),
            )
        };
        let mut test = TestCase::new(format!("{}: {}", hazard.program, case.mechanism), status);
        test.set_classname(format!("hazards.{}", hazard.name)).set_system_out(case.measured());
        test
    };
    let first = std::iter::once(case(&hazard.without, "shown"));
    first.chain(hazard.with.iter().map(|with| case(with, "resolved"))).collect()
}

fn not_well(kind: NonSuccessKind, what: &str, message: &str, description: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_type(what).set_message(message).set_description(description);
    status
}
