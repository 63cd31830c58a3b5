//! The load generator: how much load can a server bear? See README.md in this folder.

#[path = "mod.rs"]
mod load;

use std::io;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<ExitCode> {
    load::run(std::env::args_os().skip(1), &mut io::stdout())
}
