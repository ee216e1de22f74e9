//! Shapes: which axes each value varies along, and whether a concrete input fits.
//!
//! [`infer`] needs no sizes and cannot fail, since every operation broadcasts. [`check`] compares
//! the graph with one input shape and reports everything it finds, so that a user sees all
//! problems of a layer in one run.

use std::fmt;

use crate::axes::{Axes, Groups, IndexSet};
use crate::dag::{Dag, Extent, NodeId, Op};
use crate::prim::Moment;

/// The shape of an input: 2 to 5 axes, none of size 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: Vec<usize>,
}

impl Shape {
    /// Checks the rank and the sizes.
    pub fn new(dims: &[usize]) -> Result<Self, ShapeError> {
        let bindings = |name: &str, value: usize| vec![(name.to_owned(), value)];
        if !(2..=5).contains(&dims.len()) {
            return Err(ShapeError {
                node: None,
                message: format!("the input has {} axes", dims.len()),
                equation: "2 <= rank <= 5".to_owned(),
                bindings: bindings("rank", dims.len()),
                help: "give a tensor of shape [n, c] with up to three spatial axes after it".to_owned(),
            });
        }
        if let Some(axis) = dims.iter().position(|&size| size == 0) {
            return Err(ShapeError {
                node: None,
                message: format!("axis {axis} of the input is empty"),
                equation: format!("size of axis {axis} >= 1"),
                bindings: bindings(&format!("size of axis {axis}"), 0),
                help: "give a tensor with at least one element along every axis".to_owned(),
            });
        }
        let elements = dims.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if elements.is_none_or(|elements| elements > isize::MAX as usize / 8) {
            return Err(ShapeError {
                node: None,
                message: "the input has more elements than can be addressed".to_owned(),
                equation: "n * c * s < 2^60".to_owned(),
                bindings: dims.iter().enumerate().map(|(axis, &size)| (format!("axis {axis}"), size)).collect(),
                help: "give a smaller tensor".to_owned(),
            });
        }
        Ok(Self { dims: dims.to_vec() })
    }

    /// The size of every axis.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The size of axis 0.
    pub fn samples(&self) -> usize {
        self.dims[0]
    }

    /// The size of axis 1.
    pub fn channels(&self) -> usize {
        self.dims[1]
    }

    /// The product of the spatial axes, 1 for rank 2.
    pub fn positions(&self) -> usize {
        self.dims[2..].iter().product()
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl fmt::Display for Shape {
    /// `[8, 64, 32, 32]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)
    }
}

/// A shape that does not fit: the equation that failed, with a value for every name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeError {
    /// The node concerned; `None` for the input itself.
    pub node: Option<NodeId>,
    /// What is wrong.
    pub message: String,
    /// The condition that does not hold.
    pub equation: String,
    /// Each name of the equation with its value.
    pub bindings: Vec<(String, usize)>,
    /// What to do.
    pub help: String,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} does not hold for ", self.message, self.equation)?;
        for (number, (name, value)) in self.bindings.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name} = {value}")?;
        }
        write!(f, "; {}", self.help)
    }
}

impl std::error::Error for ShapeError {}

/// Something about a shape that is allowed and worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeNote {
    /// The number of groups was lowered to divide the channels.
    GroupsLowered {
        /// The moment.
        node: NodeId,
        /// The `groups` setting.
        asked: usize,
        /// The number of groups used.
        used: usize,
        /// The number of channels.
        channels: usize,
    },
    /// A moment averages over a single element: a mean is its operand, a variance is 0.
    SingleElement {
        /// The moment.
        node: NodeId,
        /// Which moment it is.
        moment: Moment,
        /// Its index set.
        over: IndexSet,
    },
}

/// For each node, the axes its value varies along.
pub fn infer(dag: &Dag) -> Vec<Axes> {
    let mut axes: Vec<Axes> = Vec::with_capacity(dag.len());
    for id in dag.ids() {
        let of_operands = || dag.operands(id).iter().map(|operand| axes[operand.index()]);
        let inferred = match dag.op(id) {
            Op::Input => Axes::INPUT,
            Op::Constant(_) => Axes::NONE,
            Op::Param(param) => match dag.param(param).extent {
                Extent::PerChannel => Axes::CHANNEL,
                Extent::Scalar => Axes::NONE,
            },
            Op::Prim(_) => of_operands().fold(Axes::NONE, Axes::union),
            Op::Moment(op) => of_operands().fold(Axes::NONE, Axes::union).reduce(op.over()),
        };
        axes.push(inferred);
    }
    axes
}

/// Everything that is wrong or notable about giving `dag` an input of shape `shape`. Only nodes the
/// output depends on are looked at.
pub fn check(dag: &Dag, shape: &Shape) -> (Vec<ShapeError>, Vec<ShapeNote>) {
    let (mut errors, mut notes) = (Vec::new(), Vec::new());
    let axes = infer(dag);
    let live = dag.live();
    for id in dag.ids().filter(|id| live[id.index()]) {
        let Op::Moment(op) = dag.op(id) else { continue };
        match op.over() {
            IndexSet::Group(groups) => match groups_for(groups, shape.channels()) {
                Ok(used) => {
                    if let Groups::AtMost(asked) = groups
                        && asked.get() as usize > used
                    {
                        let (asked, channels) = (asked.get() as usize, shape.channels());
                        notes.push(ShapeNote::GroupsLowered { node: id, asked, used, channels });
                    }
                }
                Err(error) => {
                    errors.push(ShapeError { node: Some(id), ..error });
                    continue;
                }
            },
            IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => {}
        }
        let operand = dag.operands(id).iter().next().map_or(Axes::NONE, |operand| axes[operand.index()]);
        // A value that does not vary along the axes is the business of the checks that need no sizes.
        if averaged_elements(op.over(), shape) == Some(1) && operand == Axes::INPUT {
            notes.push(ShapeNote::SingleElement { node: id, moment: op.moment(), over: op.over() });
        }
    }
    (errors, notes)
}

/// The number of groups for so many channels.
///
/// # Errors
/// An exact number does not divide the channels.
pub fn groups_for(groups: Groups, channels: usize) -> Result<usize, ShapeError> {
    groups.count(channels).ok_or_else(|| {
        let count = match groups {
            Groups::AtMost(count) | Groups::Exactly(count) => count.get() as usize,
        };
        let divisors: Vec<String> = (1..=channels)
            .filter(|divisor| channels.is_multiple_of(*divisor))
            .map(|divisor| divisor.to_string())
            .collect();
        ShapeError {
            node: None,
            message: format!("group({count}) does not divide the channels"),
            equation: "channels % groups == 0".to_owned(),
            bindings: vec![("channels".to_owned(), channels), ("groups".to_owned(), count)],
            help: format!(
                "use a number of groups that divides {channels} ({}), or `group` without a number, which is lowered \
                 until it does",
                divisors.join(", ")
            ),
        }
    })
}

/// How many elements of a full tensor one statistic over `set` averages; `None` where groups do not
/// divide the channels.
pub fn averaged_elements(set: IndexSet, shape: &Shape) -> Option<usize> {
    let (samples, channels, positions) = (shape.samples(), shape.channels(), shape.positions());
    Some(match set {
        IndexSet::Batch => samples * positions,
        IndexSet::Instance => positions,
        IndexSet::Layer => channels * positions,
        IndexSet::Group(groups) => channels / groups.count(channels)? * positions,
        IndexSet::Channel => channels,
        IndexSet::All => samples * channels * positions,
    })
}
