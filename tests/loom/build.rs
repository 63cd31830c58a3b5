//! The files of the server know that they are built for loom by this cfg.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ringcast_loom)");
    println!("cargo::rustc-cfg=ringcast_loom");
    println!("cargo::rerun-if-changed=build.rs");
}
