//! `anomaly-suite`.
fn main() {}
