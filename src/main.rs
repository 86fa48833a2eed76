//! The program: arguments, logging, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    signdrop::cli::run()
}
