//! The `normact` program.

use std::process::ExitCode;

/// Counts bytes for `normact bench`; two atomic additions for each allocation.
#[global_allocator]
static ALLOCATOR: normact::bench::Allocator = normact::bench::TRACKED;

fn main() -> ExitCode {
    quiet_graphics_loader();
    normact::cli::main()
}

/// Without this variable the Vulkan loader prints an error about it on standard error each time a
/// device is opened, though nothing is wrong.
fn quiet_graphics_loader() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
    }
}
