//! Choosing where tensors live: `--device auto|cpu|wgpu`.

use std::sync::OnceLock;

use burn::tensor::{Device, DeviceKind};
use clap::ValueEnum;
use cubecl::wgpu::WgpuDeviceKind;

use crate::Failure;

/// The choice a user makes on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DeviceChoice {
    /// A graphics card where one is found, the CPU otherwise
    #[default]
    Auto,
    /// Burn's Flex back-end
    Cpu,
    /// A graphics adapter through WGPU, also one in software; an error where none is found
    Wgpu,
}

/// An opened device and what people call it.
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// The Burn device.
    pub device: Device,
    /// `cpu` or `wgpu`.
    pub name: &'static str,
}

/// Opens the chosen device.
///
/// # Errors
/// `Wgpu` fails where no adapter is found; it never falls back to the CPU.
pub fn open(choice: DeviceChoice) -> Result<OpenDevice, Failure> {
    let cpu = || OpenDevice { device: Device::flex(), name: "cpu" };
    match choice {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Wgpu => wgpu().map(|device| OpenDevice { device, name: "wgpu" }),
        DeviceChoice::Auto if !has_graphics_card() => Ok(cpu()),
        DeviceChoice::Auto => Ok(match wgpu() {
            Ok(device) => OpenDevice { device, name: "wgpu" },
            Err(_) => cpu(),
        }),
    }
}

/// Whether there is an adapter other than those in software, such as Mesa's lavapipe: these run on the CPU as well,
/// many times slower than Burn's own back-end. Opens none.
fn has_graphics_card() -> bool {
    cubecl::Device::enumerate_all()
        .iter()
        .any(|device| matches!(device, cubecl::Device::Wgpu(adapter) if adapter.kind != WgpuDeviceKind::Cpu))
}

/// The process's WGPU device: an adapter may be initialised only once.
fn wgpu() -> Result<Device, Failure> {
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            Device::wgpu_options().device_kind(DeviceKind::DefaultDevice).init().map_err(|error| error.to_string())
        })
        .clone()
        .map_err(|error| {
            Failure::new(format!("no WGPU adapter was found: {error}")).help(
                "install a graphics driver (Debian's `mesa-vulkan-drivers` brings one that runs on the CPU), \
                 or use `--device cpu`",
            )
        })
}
