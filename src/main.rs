//! signdrop
fn main() {}
