//! `isolde-bench`.
fn main() {}
