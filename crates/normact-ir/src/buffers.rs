//! Running statistics: which buffers a layer keeps, and under which names.
//!
//! A moment is a batch statistic when it averages over samples and its operand varies along them.
//! In training it is computed from the batch and a running average is kept; in evaluation the
//! average is used. (A moment over `batch` of a value that is the same for every sample is no
//! statistic of the batch: it is computed as it stands in both modes, so that `mean[batch](gamma)`
//! is `gamma` in both.) There is one buffer per distinct statistic: `std` and `var` of one operand
//! share the running variance, whatever their eps.

use crate::axes::{Channels, IndexSet};
use crate::dag::{Dag, Extent, NodeId, Op, Tracking};
use crate::prim::Quantity;
use crate::shape::infer;

/// One running average.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// `running_mean`, `running_var` or `running_mean_square`, numbered from `_2` where a layer has
    /// several of a kind.
    pub name: String,
    /// What it averages.
    pub quantity: Quantity,
    /// The value it is a statistic of.
    pub operand: NodeId,
    /// The index set.
    pub over: IndexSet,
    /// How it is updated.
    pub tracking: Tracking,
    /// Whether it has one value per channel or one in all.
    pub extent: Extent,
}

impl Buffer {
    /// The value it starts with: 0 for means, 1 for variances and mean squares.
    pub fn init(&self) -> f64 {
        match self.quantity {
            Quantity::Mean => 0.0,
            Quantity::MeanSquare | Quantity::Variance => 1.0,
        }
    }

    /// The number of values for so many channels.
    pub fn len(&self, channels: usize) -> usize {
        self.extent.len(channels)
    }
}

impl Extent {
    /// The number of values for so many channels.
    pub fn len(self, channels: usize) -> usize {
        match self {
            Extent::PerChannel => channels,
            Extent::Scalar => 1,
        }
    }
}

/// The buffers of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffers {
    list: Vec<Buffer>,
    of_node: Vec<Option<usize>>,
}

impl Buffers {
    /// Finds the batch statistics that the output depends on.
    pub fn of(dag: &Dag) -> Self {
        let axes = infer(dag);
        let live = dag.live();
        let mut list: Vec<Buffer> = Vec::new();
        let mut of_node = vec![None; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            let Op::Moment(op) = dag.op(id) else { continue };
            let (Some(tracking), Some(operand)) = (op.tracking(), dag.operands(id).iter().next()) else { continue };
            if !axes[operand.index()].samples {
                continue;
            }
            let extent = match axes[id.index()].channels {
                Channels::One => Extent::Scalar,
                Channels::Groups(_) | Channels::All => Extent::PerChannel,
            };
            let (quantity, over) = (op.moment().quantity(), op.over());
            let buffer = Buffer { name: String::new(), quantity, operand, over, tracking, extent };
            let index = list.iter().position(|known| *known == buffer).unwrap_or_else(|| {
                list.push(buffer);
                list.len() - 1
            });
            of_node[id.index()] = Some(index);
        }
        name(&mut list, dag);
        Self { list, of_node }
    }

    /// Every buffer.
    pub fn list(&self) -> &[Buffer] {
        &self.list
    }

    /// The position in [`Self::list`] of the buffer that a moment reads in evaluation.
    pub fn of_node(&self, id: NodeId) -> Option<usize> {
        self.of_node[id.index()]
    }
}

fn name(list: &mut [Buffer], dag: &Dag) {
    let taken = |name: &str| dag.params().iter().any(|param| param.name == name);
    for index in 0..list.len() {
        let quantity = list[index].quantity;
        let stem = match quantity {
            Quantity::Mean => "running_mean",
            Quantity::MeanSquare => "running_mean_square",
            Quantity::Variance => "running_var",
        };
        let mut number = 1 + list[..index].iter().filter(|before| before.quantity == quantity).count();
        let mut name = if number == 1 { stem.to_owned() } else { format!("{stem}_{number}") };
        while taken(&name) || list[..index].iter().any(|before| before.name == name) {
            number += 1;
            name = format!("{stem}_{number}");
        }
        list[index].name = name;
    }
}
