//! Sets the cfg by which the server's files know that they are built for loom.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ringcast_loom)");
    println!("cargo::rustc-cfg=ringcast_loom");
    println!("cargo::rerun-if-changed=build.rs");
}
