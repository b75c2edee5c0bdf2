//! `anomaly-suite`: see the library's documentation, or `anomaly-suite --help`.

/// Each schedule of an exploration opens a database and drops it: much of its time is the allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    anomaly_suite::cli::main()
}
