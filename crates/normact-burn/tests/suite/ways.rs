//! The ways a layer runs, all of which numbers are tested on.

use std::fmt;

use burn::tensor::Device;
use normact_burn::NormAct;
use normact_ir::Layer;

use crate::devices::{devices, wgpu};

/// A device, and how a layer runs there.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) device: Device,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Default,
    /// By the kernels of a GPU, which read so many elements at a time where they can.
    Gpu(usize),
    OpByOp,
}

impl Way {
    /// As a module runs by itself.
    pub(crate) fn by_default(device: Device) -> Self {
        Self { device, how: How::Default }
    }

    pub(crate) fn op_by_op(device: Device) -> Self {
        Self { device, how: How::OpByOp }
    }

    pub(crate) fn is_fused(&self) -> bool {
        self.how != How::OpByOp
    }

    pub(crate) fn is_planned_on_the_cpu(&self) -> bool {
        self.is_fused() && self.device == Device::flex()
    }

    /// A layer that runs this way, with initial values.
    pub(crate) fn module(&self, layer: &Layer, channels: usize) -> NormAct {
        let module = NormAct::new(layer, channels, &self.device).expect("the layers of these tests fit");
        match self.how {
            How::Default => module,
            How::Gpu(lanes) => module.as_on_a_gpu(lanes),
            How::OpByOp => module.op_by_op(),
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", self.device, self.how)
    }
}

/// Every way.
pub(crate) fn ways() -> Vec<Way> {
    let [cpu, wgpu] = devices();
    let ways = |device: Device| [Way::by_default(device.clone()), Way::op_by_op(device)];
    [ways(cpu), ways(wgpu)].into_iter().flatten().chain([gpu(4), gpu(1)]).collect()
}

/// The kernels of a GPU, which read so many elements at a time where the shape allows it.
pub(crate) fn gpu(lanes: usize) -> Way {
    Way { device: wgpu(), how: How::Gpu(lanes) }
}
