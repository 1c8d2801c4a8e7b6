//! The site: islands as WebAssembly and the style sheet, with the hash of their content in their names and
//! compressed copies beside them.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen_cli_support::Bindgen;

use crate::run::run;
use crate::{Failure, install, root, target_dir};

/// All islands together, compressed with brotli, in bytes.
pub const BUDGET: usize = 90_000;

/// Names and paths: `[[workspace.metadata.leptos]]` in `Cargo.toml` is their one place.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Names {
    bin_package: String,
    bin_target: String,
    lib_package: String,
    lib_profile_release: String,
    output_name: String,
    site_root: PathBuf,
    site_pkg_dir: String,
    style_file: PathBuf,
}

/// Package and binary of the server.
///
/// # Errors
/// When `Cargo.toml` does not say.
pub fn server() -> Result<(String, String), Failure> {
    let names = Names::read()?;
    Ok((names.bin_package, names.bin_target))
}

impl Names {
    fn read() -> Result<Self, Failure> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(root())
            .output()?;
        let mut metadata: Value = serde_json::from_slice(&output.stdout)?;
        let site = metadata["metadata"]["leptos"][0].take();
        serde_json::from_value(site).map_err(|error| format!("[[workspace.metadata.leptos]]: {error}").into())
    }
}

/// What was built.
#[derive(Debug)]
pub struct Site {
    /// Islands and their glue, compressed with brotli, bytes.
    pub compressed: usize,
    /// Names of the exported islands.
    pub islands: Vec<String>,
}

/// Builds what has changed.
///
/// # Errors
/// When something does not build, or the islands are larger than [`BUDGET`] or not all there.
pub fn build() -> Result<Site, Failure> {
    let names = Names::read()?;
    let folder = root().join(&names.site_root);
    let stamp = folder.join("stamp");
    let sources = format!("{:016x}", hash_sources()?);
    let kept = fs::read_to_string(&stamp).unwrap_or_default();
    let site = match kept
        .strip_prefix(&sources)
        .map(|rest| rest.split_whitespace().collect::<Vec<_>>())
    {
        Some(words) if words.len() > 1 => Site {
            compressed: words[0].parse()?,
            islands: words[1..].iter().map(ToString::to_string).collect(),
        },
        _ => {
            let site = build_all(&names, &folder)?;
            fs::write(
                &stamp,
                format!("{sources} {} {}\n", site.compressed, site.islands.join(" ")),
            )?;
            site
        }
    };
    let written = count_islands(&root().join("app/src"))?;
    if site.islands.len() != written {
        return Err(format!(
            "{written} islands are written, {} reach the browser: {:?}",
            site.islands.len(),
            site.islands
        )
        .into());
    }
    if site.compressed > BUDGET {
        return Err(format!(
            "the islands take {} bytes compressed; the budget is {BUDGET}",
            site.compressed
        )
        .into());
    }
    eprintln!(
        "• site: {} islands, {} of {BUDGET} bytes (brotli)",
        site.islands.len(),
        site.compressed
    );
    Ok(site)
}

fn build_all(names: &Names, folder: &Path) -> Result<Site, Failure> {
    install::wasm_target()?;
    eprintln!("• islands (WebAssembly)");
    run(Command::new("cargo")
        .args(["build", "--package", &names.lib_package])
        .args(["--target", "wasm32-unknown-unknown"])
        .args(["--profile", &names.lib_profile_release])
        .current_dir(root()))?;
    let wasm = target_dir()
        .join("wasm32-unknown-unknown")
        .join(&names.lib_profile_release)
        .join(format!("{}.wasm", names.lib_package));
    let work = target_dir().join("bindgen");
    let _ = fs::remove_dir_all(&work);
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(&wasm)
        .web(true)?
        .typescript(false)
        .out_name(&names.output_name)
        .remove_name_section(true);
    bindgen.generate(&work)?;
    // A page loads one script and one binary; inline scripts of a dependency would be files of their own beside them.
    if work.join("snippets").exists() {
        return Err("a dependency of the islands brings scripts of its own, which no page loads".into());
    }
    let binary = work.join(format!("{}_bg.wasm", names.output_name));
    shrink(&binary)?;
    let script = fs::read(work.join(format!("{}.js", names.output_name)))?;
    let binary = fs::read(binary)?;
    let style_file = root().join(&names.style_file);
    // The values come first, the rules that use them after.
    let style = [style_file.with_file_name("tokens.css"), style_file]
        .map(fs::read)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .concat();

    let package = folder.join(&names.site_pkg_dir);
    let _ = fs::remove_dir_all(&package);
    fs::create_dir_all(&package)?;
    let name = format!("{}-{:016x}", names.output_name, hash_of(&(&script, &binary)));
    let style_name = format!("main-{:016x}.css", hash_of(&style));
    let mut compressed = write(&package.join(format!("{name}.js")), &script)?;
    compressed += write(&package.join(format!("{name}_bg.wasm")), &binary)?;
    write(&package.join(&style_name), &style)?;
    let manifest = serde_json::json!({ "style": format!("/{}/{style_name}", names.site_pkg_dir), "islands": name });
    fs::write(folder.join("manifest.json"), serde_json::to_vec_pretty(&manifest)?)?;
    Ok(Site {
        compressed,
        islands: exported_islands(&String::from_utf8_lossy(&script)),
    })
}

/// With wasm-opt where it is installed (npm `binaryen`); without it the binary is larger, but the same.
fn shrink(binary: &Path) -> Result<(), Failure> {
    let tool = root().join("end2end/node_modules/.bin/wasm-opt");
    if !tool.exists() {
        return Ok(());
    }
    run(Command::new(tool)
        .args([
            "-Oz",
            "--enable-bulk-memory",
            "--enable-nontrapping-float-to-int",
            "--enable-reference-types",
        ])
        .args([
            "--enable-sign-ext",
            "--enable-mutable-globals",
            "--enable-multivalue",
            "-o",
        ])
        .args([binary, binary]))
}

/// Writes a file and its compressed copies; the size with brotli.
fn write(path: &Path, content: &[u8]) -> Result<usize, Failure> {
    fs::write(path, content)?;
    let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", path.display()));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    fs::write(beside("gz"), gzip.finish()?)?;
    let mut packed = Vec::new();
    brotli::CompressorWriter::new(&mut packed, 1 << 16, 11, 22).write_all(content)?;
    fs::write(beside("br"), &packed)?;
    Ok(packed.len())
}

/// `export function CodeInput_2675912214688182053` in the glue: a component's name and a hash.
fn exported_islands(script: &str) -> Vec<String> {
    let named = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("export function "));
    let is_island = |name: &&str| {
        name.split_once('_').is_some_and(|(component, hash)| {
            component.starts_with(char::is_uppercase) && !hash.is_empty() && hash.bytes().all(|b| b.is_ascii_digit())
        })
    };
    named
        .filter_map(|rest| rest.split('(').next())
        .filter(is_island)
        .map(str::to_owned)
        .collect()
}

fn count_islands(folder: &Path) -> Result<usize, Failure> {
    let mut count = 0;
    for path in files(folder)? {
        let text = fs::read_to_string(path)?;
        count += text.lines().filter(|line| line.trim() == "#[island]").count();
    }
    Ok(count)
}

fn hash_sources() -> Result<u64, Failure> {
    let mut hasher = DefaultHasher::new();
    for place in ["app/src", "frontend/src", "style"] {
        for path in files(&root().join(place))? {
            path.strip_prefix(root())?.hash(&mut hasher);
            fs::read(&path)?.hash(&mut hasher);
        }
    }
    for file in [
        "Cargo.lock",
        "Cargo.toml",
        "app/Cargo.toml",
        "frontend/Cargo.toml",
        "xtask/src/site.rs",
    ] {
        fs::read(root().join(file))?.hash(&mut hasher);
    }
    // A binary that is to be made smaller is another one.
    root()
        .join("end2end/node_modules/.bin/wasm-opt")
        .exists()
        .hash(&mut hasher);
    Ok(hasher.finish())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
