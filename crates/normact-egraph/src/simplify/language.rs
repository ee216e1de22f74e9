//! The language of the e-graph: an e-node is an operation and its children, so a primitive that is added
//! to the table is known here at once.
//!
//! A moment has its settings as children: `(mean set a)`, `(var set a)`, `(rms set a eps)` and
//! `(std set a eps)`. So one pattern serves every index set, and a rule can compute with `eps`.

use std::fmt;

use egg::{FromOp, FromOpError, Id, Language};
use normact_ir::{Axes, IndexSet, Moment, MomentOp, NodeId, ParamId, Prim, Running, Scalar, Tracking};

/// What an e-node computes from its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Head {
    Input,
    Constant(Scalar),
    Param(ParamId),
    Prim(Prim),
    Moment(Moment),
    /// The first child of a moment.
    Set(Set),
    /// A statistic of the layer as written, which no rule looks into.
    Frozen(NodeId),
}

/// The axes a moment averages over, with the running average where it is a statistic of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Set {
    pub(super) over: IndexSet,
    /// `None` for a moment that is computed as it stands in both modes.
    pub(super) tracking: Option<Tracking>,
}

impl Set {
    /// The set of a moment of a value with these axes. Over samples, but of a value that is the same for
    /// all of them, it is no statistic of the batch, and averages over what is left.
    pub(super) fn of(op: MomentOp, operand: Axes) -> Self {
        match (op.over(), op.tracking()) {
            (over, Some(tracking)) if operand.samples => Self { over, tracking: Some(tracking) },
            (IndexSet::Batch, _) => Self { over: IndexSet::Instance, tracking: None },
            (IndexSet::All, _) => Self { over: IndexSet::Layer, tracking: None },
            (over, _) => Self { over, tracking: None },
        }
    }

    /// The moment over this set.
    pub(super) fn moment(self, moment: Moment, eps: Scalar) -> MomentOp {
        let untracked = Tracking { momentum: Scalar::ZERO, running: Running::Biased };
        MomentOp::new(moment, self.over, eps, self.tracking.unwrap_or(untracked))
    }
}

/// An operation with its children.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ENode {
    pub(super) head: Head,
    count: u8,
    slots: [Id; 3],
}

impl ENode {
    /// # Panics
    /// There are more than three children.
    pub(super) fn new(head: Head, children: &[Id]) -> Self {
        let mut slots = [Id::from(0); 3];
        slots[..children.len()].copy_from_slice(children);
        Self { head, count: children.len() as u8, slots }
    }

    pub(super) fn leaf(head: Head) -> Self {
        Self::new(head, &[])
    }
}

/// The number of children of a moment: the settings that count.
pub(super) fn moment_children(moment: Moment) -> usize {
    if moment.is_root() { 3 } else { 2 }
}

impl Language for ENode {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head
    }

    fn matches(&self, other: &Self) -> bool {
        self.head == other.head && self.count == other.count
    }

    fn children(&self) -> &[Id] {
        &self.slots[..usize::from(self.count)]
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.slots[..usize::from(self.count)]
    }
}

impl fmt::Display for ENode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head {
            Head::Input => f.write_str("x"),
            Head::Constant(value) => write!(f, "{value}"),
            Head::Param(param) => write!(f, "p{}", param.index()),
            Head::Prim(prim) => f.write_str(prim.name()),
            Head::Moment(moment) => f.write_str(moment.name()),
            Head::Set(Set { over, tracking: None }) => write!(f, "{over}"),
            Head::Set(Set { over, tracking: Some(tracking) }) => write!(f, "{over}:{}", tracking.momentum),
            Head::Frozen(node) => write!(f, "n{}", node.index()),
        }
    }
}

impl FromOp for ENode {
    type Error = FromOpError;

    fn from_op(name: &str, children: Vec<Id>) -> Result<Self, FromOpError> {
        let number = || name.parse().ok().and_then(Scalar::new).map(Head::Constant);
        let head = Prim::by_name(name)
            .map(Head::Prim)
            .or_else(|| Moment::by_name(name).map(Head::Moment))
            .or_else(number)
            .filter(|&head| children.len() == arity(head));
        match head {
            Some(head) => Ok(Self::new(head, &children)),
            None => Err(FromOpError::new(name, children)),
        }
    }
}

fn arity(head: Head) -> usize {
    match head {
        Head::Input | Head::Constant(_) | Head::Param(_) | Head::Set(_) | Head::Frozen(_) => 0,
        Head::Prim(prim) => prim.arity().count(),
        Head::Moment(moment) => moment_children(moment),
    }
}
