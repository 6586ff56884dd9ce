//! The pure path.
fn main() {}
