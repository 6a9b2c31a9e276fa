//! Entry point: chooses the TLS provider, hands over to the command line, returns its exit code.

use std::process::ExitCode;

#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // One provider for every library in the process; otherwise the first one that needs TLS would choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    bitbrat::cli::main(std::env::args_os()).into()
}
