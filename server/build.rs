//! The folder of the built site is there before its files are taken into the binary.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let site = Path::new("../target/site");
    // rust-embed resolves the folder when this crate is compiled; one that appears later is never looked into.
    std::fs::create_dir_all(site)?;
    println!("cargo::rerun-if-changed=build.rs");
    // Debug builds read the files when they are asked for; release builds carry them, so they must be there, and a
    // change of theirs is a change of the binary.
    if std::env::var("PROFILE")? == "release" {
        let manifest = site.join("manifest.json");
        println!("cargo::rerun-if-changed={}", manifest.display());
        if !manifest.exists() {
            println!("cargo::error=the site is not built yet: `cargo xtask serve` builds it before the server");
        }
    }
    Ok(())
}
