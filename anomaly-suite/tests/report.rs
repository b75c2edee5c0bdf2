//! The HTML page: self-contained, whole, escaped, readable, equal from run to run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anomaly_suite::hazards::Hazards;
use anomaly_suite::report::html;
use anomaly_suite::report::json::{Detail, RunDoc};
use anomaly_suite::{Control, Expectations, Isolde, Outcome, Suite};

fn isolde() -> RunDoc {
    let report = Suite::new(&Isolde).expecting(Expectations::isolde()).run();
    RunDoc::of(&report, Some(&Hazards::run()), Detail::Steps)
}

fn control() -> RunDoc {
    RunDoc::of(&Suite::new(&Control).run(), None, Detail::Steps)
}

/// The values of an attribute, wherever it stands.
fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let start = format!(" {name}=\"");
    page.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn suite(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_anomaly-suite")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_page_asks_for_nothing_and_runs_nothing() {
    let page = html::page(&[isolde(), control()]);
    for word in
        ["http:", "https:", "src=", "url(", "@import", "<script", "<iframe", "<object", "javascript:", " onclick"]
    {
        assert!(!page.contains(word), "{word}");
    }
    let links = attributes(&page, "href");
    assert!(links.iter().all(|href| href.starts_with('#') || *href == "data:,"), "a link leads out of the page");
    assert!(page.contains("default-src 'none'"), "and the page says so to the browser");
}

#[test]
fn every_link_leads_somewhere_and_no_id_is_there_twice() {
    for page in [html::page(&[isolde()]), html::page(&[isolde(), control()]), html::page(&[isolde(), isolde()])] {
        let ids = attributes(&page, "id");
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(known.len(), ids.len(), "an id is there twice");
        let links: Vec<&str> =
            attributes(&page, "href").into_iter().filter_map(|href| href.strip_prefix('#')).collect();
        assert!(links.len() > 240);
        for link in links.iter().chain(&attributes(&page, "aria-labelledby")) {
            assert!(known.contains(link), "#{link} is nowhere");
        }
    }
}

#[test]
fn a_page_stays_small_and_two_are_equal_byte_for_byte() {
    let page = html::page(&[isolde()]);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert_eq!(page, html::page(&[isolde()]));
}

/// Each element is closed where it must be, so that no browser has to guess.
#[test]
fn elements_nest() {
    let page = html::page(&[isolde(), control()]);
    let (_, body) = page.split_once("</head>").unwrap();
    let (body, _) = body.split_once("</html>").unwrap();
    let mut open: Vec<&str> = Vec::new();
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} has no end"));
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0], "all are closed");
}

#[test]
fn every_cell_is_in_the_matrix_and_has_its_lanes() {
    let run = isolde();
    let page = html::page(std::slice::from_ref(&run));
    assert_eq!(page.matches("<table class=\"lanes\">").count(), run.cells.len());
    let story = |cell: &anomaly_suite::report::json::CellDoc| cell.told.clone().unwrap().story.unwrap();
    let moments: usize = run.cells.iter().map(|cell| story(cell).moments.len()).sum();
    let lanes: usize = page
        .split("<table class=\"lanes\">")
        .skip(1)
        .map(|t| t.split("</table>").next().unwrap().matches("<th scope=\"row\">").count())
        .sum();
    assert_eq!(lanes, moments, "a row for each moment");
    let shown = run.cells.iter().filter(|cell| cell.outcome == "possible").count();
    assert_eq!(page.matches("<svg class=\"cycle\"").count(), shown, "a cycle for each anomaly shown");
    assert_eq!(page.matches("Why no order of the transactions explains this").count(), shown);
    assert_eq!(page.matches("<h4>How it was prevented</h4>").count(), run.cells.len() - shown);
    for words in ["waits for T2", "✗ deadlock, aborted", "✗ conflict, aborted", "at first x=1 y=1", "starvation"] {
        assert!(page.contains(words), "{words}");
    }
}

/// In each lane the heights of the cells come to the height of the table.
#[test]
fn a_wait_is_as_tall_as_it_is_long() {
    let page = html::page(&[isolde()]);
    let mut tall = 0;
    for table in page.split("<table class=\"lanes\">").skip(1) {
        let table = table.split("</table>").next().unwrap();
        let lanes = table.matches("<th scope=\"col\">").count() - 1;
        let rows: Vec<&str> = table.split("<tr>").skip(2).collect();
        let span = |cell: &str| {
            let span =
                cell.split("rowspan=\"").nth(1).map_or(1, |rest| rest.split('"').next().unwrap().parse().unwrap());
            tall += usize::from(span > 1);
            span
        };
        let cells = rows.iter().flat_map(|row| row.split("<td").skip(1).map(|cell| cell.split('>').next().unwrap()));
        let heights: usize = cells.map(span).sum();
        assert_eq!(heights, lanes * rows.len(), "{table}");
    }
    assert!(tall > 50, "{tall} waits are drawn");
}

/// What runs, keys and messages say is text, never markup.
#[test]
fn everything_is_escaped() {
    let hostile = "<script>alert(1)</script>\\\"'&`<b>`";
    let text = serde_json::to_string(&isolde()).unwrap();
    let text = text.replace("room/a", hostile).replace("\"isolde\"", &format!("\"{hostile}\"")).replace("T1", hostile);
    let page = html::page(&[RunDoc::read(&text).unwrap()]);
    assert!(page.contains("&#60;script&#62;"), "it is there");
    assert!(!page.contains("<script") && !page.contains("<b>`"), "as text");
    assert!(
        attributes(&page, "class").iter().all(|class| !class.contains('&')),
        "and in no attribute that means something"
    );
}

#[test]
fn nothing_is_said_by_colour_alone() {
    let page = html::page(&[isolde()]);
    let matrix = page.split("<table class=\"matrix\">").nth(1).unwrap().split("</table>").next().unwrap();
    let cells: Vec<&str> = matrix
        .split("<td")
        .skip(1)
        .map(|cell| cell.split("</td>").next().unwrap())
        .filter(|cell| cell.contains("<a "))
        .collect();
    assert_eq!(cells.len(), 240);
    for cell in cells {
        let bad = cell.contains("class=\"bad\"");
        assert_eq!(bad, cell.contains(">✗<") && cell.contains(">possible<"), "{cell}");
        assert_eq!(!bad, cell.contains(">✓") && cell.contains(">prevented, "), "{cell}");
    }
    let heads = page.matches("<th ").count();
    assert_eq!(heads, page.matches("<th scope=\"").count(), "every head says what it is the head of");
    for query in ["prefers-color-scheme: dark", "@media print", "max-width: 46rem"] {
        assert!(page.contains(query), "{query}");
    }
}

/// WCAG's contrast of two colours.
fn contrast(one: &str, other: &str) -> f64 {
    let light = |colour: &str| {
        let digits = colour.trim_start_matches('#');
        let digits: String =
            if digits.len() == 3 { digits.chars().flat_map(|c| [c, c]).collect() } else { digits.into() };
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&digits[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4) + 0.05
    };
    let (one, other) = (light(one), light(other));
    one.max(other) / one.min(other)
}

#[test]
fn text_stands_out_in_light_and_in_dark() {
    let css = include_str!("../templates/report.css");
    let themes = css.split(":root {").skip(1).map(|block| block.split('}').next().unwrap());
    let themes: Vec<BTreeMap<&str, &str>> =
        themes.map(|block| block.split(';').filter_map(|line| line.trim().split_once(": ")).collect()).collect();
    assert_eq!(themes.len(), 2);
    for theme in &themes {
        let pairs = [
            ("ink", "paper"),
            ("ink", "card"),
            ("soft", "paper"),
            ("link", "paper"),
            ("good", "paper"),
            ("bad", "paper"),
        ];
        let on_own = [("good", "good-bg"), ("bad", "bad-bg"), ("odd", "odd-bg"), ("odd", "paper"), ("soft", "card")];
        for (text, ground) in pairs.iter().chain(&on_own) {
            let ratio = contrast(theme[format!("--{text}").as_str()], theme[format!("--{ground}").as_str()]);
            assert!(ratio >= 4.5, "{text} on {ground}: {ratio:.1}");
        }
    }
}

#[test]
fn two_runs_stand_side_by_side_and_where_they_differ_is_open() {
    let page = html::page(&[isolde(), control()]);
    assert!(page.contains("colspan=\"10\" class=\"first\">isolde 0.1.0</th><th scope=\"colgroup\" colspan=\"10\" class=\"first\">control 0.1.0"));
    let article = page.split("<article id=\"G0\"").nth(1).unwrap().split("</article>").next().unwrap();
    let opened: Vec<&str> =
        article.split("<details open>").skip(1).map(|rest| rest.split("</summary>").next().unwrap()).collect();
    assert_eq!(opened.len(), 2);
    assert!(
        opened[0].contains("<b>isolde</b> read uncommitted, pessimistic") && opened[0].contains("✓b"),
        "{}",
        opened[0]
    );
    assert!(
        opened[1].contains("<b>control</b> read uncommitted, pessimistic") && opened[1].contains("✗"),
        "{}",
        opened[1]
    );
}

#[test]
fn one_run_opens_where_it_goes_wrong_and_where_it_does_not() {
    let page = html::page(&[isolde()]);
    let report = Suite::new(&Isolde).run();
    for entry in report.entries() {
        let article =
            page.split(&format!("<article id=\"{}\"", entry.id)).nth(1).unwrap().split("</article>").next().unwrap();
        let shown = report.row(entry).any(|cell| cell.outcome() == Some(Outcome::Possible));
        assert_eq!(article.matches("<details open>").count(), if shown { 2 } else { 1 }, "{}", entry.id);
    }
}

#[test]
fn a_run_from_a_file_is_drawn_like_one_that_was_just_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (json, live, filed, beside) = (path("run.json"), path("live.html"), path("filed.html"), path("beside.html"));
    assert_eq!(suite(&["run", "--format", "json", "--steps", "--out", &json]).0, 0);
    assert_eq!(suite(&["report", "-o", &live]), (0, String::new(), String::new()));
    assert_eq!(suite(&["report", "--db", &json, "-o", &filed]).0, 0);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&live), read(&filed));
    assert_eq!(suite(&["report", "--beside", &json, "--anomaly", "write-skew", "-o", &beside]).0, 0);
    assert_eq!(read(&beside).matches("<table class=\"lanes\">").count(), 20);
}

#[test]
fn a_run_written_without_its_steps_is_in_the_matrix_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    let json = path.to_str().unwrap();
    assert_eq!(suite(&["run", "--format", "json", "--out", json]).0, 0);
    let (code, page, _) = suite(&["report", "--db", json]);
    assert_eq!(code, 0);
    assert!(page.contains("<code>run --format json --steps</code>") && page.contains("<svg class=\"cycle\""));
    assert!(!page.contains("<table class=\"lanes\">"));
}

#[test]
fn a_page_with_a_fault_says_so_and_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (expect, json) = (path("own.toml"), path("run.json"));
    let own = std::fs::read_to_string(format!("{}/expectations/isolde.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    std::fs::write(&expect, own.replacen("\"possible\"", "\"blocked\"", 1)).unwrap();
    for steps in [&["--steps"][..], &[]] {
        let run = ["run", "--format", "json", "--expect", &expect, "--out", &json];
        assert_eq!(suite(&[&run[..], steps].concat()).0, 1);
        let (code, page, _) = suite(&["report", "--db", &json]);
        assert_eq!(code, 1, "{steps:?}");
        assert!(page.contains("1 not as they must be"), "{steps:?}");
        assert!(page.contains("✗!</span><span class=\"vh\">possible, not as it must be"), "{steps:?}");
        let words = "declared prevented, by blocking, came out possible";
        assert_eq!(page.contains(words), !steps.is_empty(), "the words stand in the steps");
    }
}

#[test]
fn what_is_no_run_is_exit_code_2_and_says_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    for (text, says) in [
        ("{}", "missing field"),
        ("{\"schema\":2,\"suite\":\"\",\"db\":{\"name\":\"\",\"version\":\"\"},\"cells\":[]}", "schema 2 is not known"),
    ] {
        std::fs::write(&path, text).unwrap();
        let (code, out, err) = suite(&["report", "--beside", path.to_str().unwrap()]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(says) && err.contains("run --format json --steps"), "{err}");
    }
    assert_eq!(suite(&["report", "--db", "isolda"]).0, 2);
    assert_eq!(suite(&["run", "--steps"]).0, 2, "a table has no room for them");
}
