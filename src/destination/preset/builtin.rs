//! The presets that come with the program.

/// The YAML files of the folder `presets`, each with the preset's name; `build.rs` lists them.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// Returns the names of the built-in presets, sorted.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// Returns the text of the built-in preset with that name.
pub(super) fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(builtin, _)| *builtin == name).map(|(_, text)| *text)
}
