//! Side-by-side benchmarks of xfer and its peers, and an emulated WAN. What it measures and how to run it is in
//! `docs/benchmarks.md`.

mod cli;
mod content;
mod error;
mod judge;
mod link;
mod machine;
mod peer;
mod process;
mod report;
mod run;
mod servers;
mod wan;
mod workload;

fn main() -> std::process::ExitCode {
    cli::main()
}
