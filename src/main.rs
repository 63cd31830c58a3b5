//! Arguments to `cli`, its answer to an exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(ringcast::internals::cli::run(
        std::env::args_os().skip(1),
        std::env::vars_os(),
    ))
}
