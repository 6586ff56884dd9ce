//! The environment of the process.

/// Looks up an environment variable: the only place where the process reads its environment. Bytes
/// that are not UTF-8 become U+FFFD, which secrets must not contain.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
