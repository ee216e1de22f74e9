//! The devices every test runs on.

use std::sync::OnceLock;

use burn::tensor::{Device, DeviceKind};

/// The CPU and the WGPU adapter.
pub(crate) fn devices() -> [Device; 2] {
    [Device::flex(), wgpu()]
}

/// The WGPU adapter. A test that finds none fails, since skipping it would hide the other half of
/// the back-ends.
pub(crate) fn wgpu() -> Device {
    // Burn initialises an adapter once per process.
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| {
        let options = Device::wgpu_options().device_kind(DeviceKind::DefaultDevice);
        options.init().map_err(|error| format!("{error:?}"))
    });
    match device {
        Ok(device) => device.clone(),
        Err(error) => panic!("no WGPU adapter ({error}); Debian's mesa-vulkan-drivers brings one that needs no GPU"),
    }
}
