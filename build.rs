//! Lists the built-in presets: a new one is a YAML file in the folder, and nothing else.

use std::{env, fs, io, path::Path};

const FOLDER: &str = "src/destination/presets";

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write so")]
fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let mut names: Vec<String> = fs::read_dir(FOLDER)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    let row = |name: &String| {
        let path = format!("/{FOLDER}/{name}.yaml");
        format!("({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),")
    };
    let rows: Vec<_> = names.iter().map(row).collect();
    fs::write(Path::new(&out).join("presets.rs"), format!("&[\n{}\n]\n", rows.join("\n")))
}
