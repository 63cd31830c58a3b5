//! Arguments to `cli`, its answer to an exit code.

fn main() {}
