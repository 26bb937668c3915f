//! The `xfer` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    xfer::cli::main()
}
