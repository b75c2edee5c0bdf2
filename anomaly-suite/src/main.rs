//! `anomaly-suite`: see the library's documentation, or `anomaly-suite --help`.

fn main() -> std::process::ExitCode {
    anomaly_suite::cli::main()
}
