//! Entry point: hands over to the library.

fn main() {}
