//! How a tensor of a model lies on the axes of the layer's input.
//!
//! A model may view its input in many ways: positions merged into one axis, channels split into groups, axes in
//! another order, reduced ones dropped. A [`View`] says for each axis of a tensor which parts of the input's
//! axes it runs over. What an operation does to a tensor's shape is a change of the view alone; which elements
//! are averaged is read off it.

use std::num::NonZeroU32;

use normact_ir::{Axes, Channels, Groups, IndexSet};

/// A part of the input's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Samples,
    Channels,
    /// So many groups of channels.
    Groups(usize),
    /// The channels of one of so many groups.
    Within(usize),
    /// The spatial axis of that number.
    Position(usize),
    /// So many copies of one element.
    Copies(usize),
}

/// An axis of a tensor: the parts it runs over, the last one fastest. An axis of size 1 has none.
pub(super) type Axis = Vec<Part>;

/// The axes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View(pub(super) Vec<Axis>);

/// An axis of a shape that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Size {
    Number(i64),
    /// The size of such an axis.
    Axis(Axis),
}

/// The sizes of the input, as far as they are known.
#[derive(Debug, Clone)]
pub(super) struct InputSizes {
    pub(super) samples: Option<usize>,
    pub(super) channels: usize,
    pub(super) positions: Vec<Option<usize>>,
}

/// The most axes a tensor may have.
pub(super) const MAX_RANK: usize = 16;

impl InputSizes {
    pub(super) fn view(&self) -> View {
        let positions = (0..self.positions.len()).map(|number| vec![Part::Position(number)]);
        View([vec![Part::Samples], vec![Part::Channels]].into_iter().chain(positions).collect())
    }

    fn of(&self, part: Part) -> Option<usize> {
        match part {
            Part::Samples => self.samples,
            Part::Channels => Some(self.channels),
            Part::Groups(groups) => Some(groups),
            Part::Within(groups) => Some(self.channels / groups),
            Part::Position(number) => self.positions[number],
            Part::Copies(count) => Some(count),
        }
    }

    /// The number of elements along an axis, if it is known.
    pub(super) fn along(&self, axis: &[Part]) -> Option<usize> {
        axis.iter().try_fold(1usize, |product, &part| product.checked_mul(self.of(part)?))
    }

    /// A size as a number, if it is known.
    pub(super) fn number(&self, size: &Size) -> Option<i64> {
        match size {
            Size::Number(number) => Some(*number),
            Size::Axis(axis) => self.along(axis).and_then(|size| i64::try_from(size).ok()),
        }
    }

    /// The same axis in the form that is compared: groups and the channels within them are channels, copies
    /// are counted once.
    fn simplified(&self, axis: Axis) -> Axis {
        let mut simple = Axis::new();
        for part in axis {
            let merged = match (simple.last(), part) {
                (_, Part::Copies(1)) => continue,
                (Some(Part::Groups(groups)), Part::Within(same)) if *groups == same => Some(Part::Channels),
                (Some(Part::Groups(groups)), Part::Copies(count))
                    if groups.checked_mul(count) == Some(self.channels) =>
                {
                    Some(Part::Channels)
                }
                (Some(Part::Copies(a)), Part::Copies(b)) => a.checked_mul(b).map(Part::Copies),
                _ => None,
            };
            if let Some(merged) = merged {
                simple.pop();
                simple.push(merged);
            } else {
                simple.push(part);
            }
        }
        simple
    }

    /// The axis that two axes broadcast to.
    fn broadcast_axis(&self, a: &Axis, b: &Axis) -> Option<Axis> {
        if a.is_empty() || a == b {
            return Some(b.clone());
        }
        if b.is_empty() {
            return Some(a.clone());
        }
        // Copies of one element are like any axis of that size.
        if let [Part::Copies(count)] = a[..] {
            return (self.along(b) == Some(count)).then(|| b.clone());
        }
        if let [Part::Copies(count)] = b[..] {
            return (self.along(a) == Some(count)).then(|| a.clone());
        }
        let part = |(&a, &b): (&Part, &Part)| match (a, b) {
            _ if a == b => Some(a),
            (Part::Copies(count), other) | (other, Part::Copies(count)) => {
                (self.of(other) == Some(count)).then_some(other)
            }
            _ => None,
        };
        // An axis of size 1 under its own name.
        if self.along(a) == Some(1) {
            return Some(b.clone());
        }
        if self.along(b) == Some(1) {
            return Some(a.clone());
        }
        if a.len() == b.len() { a.iter().zip(b).map(part).collect() } else { None }
    }

    /// The view that two tensors broadcast to.
    pub(super) fn broadcast(&self, a: &View, b: &View) -> Result<View, String> {
        let rank = a.0.len().max(b.0.len());
        let aligned =
            |view: &View, axis: usize| (axis + view.0.len()).checked_sub(rank).map(|axis| view.0[axis].clone());
        let axes = (0..rank).map(|axis| {
            let (a, b) = (aligned(a, axis).unwrap_or_default(), aligned(b, axis).unwrap_or_default());
            self.broadcast_axis(&a, &b)
        });
        let view = axes.collect::<Option<Vec<_>>>().map(View);
        view.ok_or_else(|| format!("shapes {} and {} do not fit together", self.shown(a), self.shown(b)))
    }

    /// Whether a tensor has the input's shape.
    pub(super) fn is_input(&self, view: &View) -> bool {
        let input = self.view();
        let same = |(a, b): (&Axis, &Axis)| {
            self.broadcast_axis(a, b).is_some_and(|axis| axis == *b) && (!a.is_empty() || self.along(b) == Some(1))
        };
        view.0.len() == input.0.len() && view.0.iter().zip(&input.0).all(same)
    }

    /// The view after `Expand` to a shape.
    pub(super) fn expanded(&self, view: &View, shape: &[Size]) -> Result<View, String> {
        let target = shape.iter().map(|size| match size {
            Size::Axis(axis) => Ok(axis.clone()),
            Size::Number(1) => Ok(vec![]),
            Size::Number(number) => match usize::try_from(*number) {
                Ok(count) if count > 0 => Ok(vec![Part::Copies(count)]),
                _ => Err(format!("it expands to a size of {number}")),
            },
        });
        self.broadcast(view, &View(target.collect::<Result<_, _>>()?))
    }

    /// The view after `Reshape` to a shape.
    pub(super) fn reshaped(&self, view: &View, shape: &[Size]) -> Result<View, String> {
        let mut parts: Vec<Part> = view.0.iter().flatten().copied().collect();
        let mut axes: Vec<Axis> = vec![vec![]; shape.len()];
        let size = |axis: usize| match &shape[axis] {
            Size::Number(0) => view.0.get(axis).cloned().map(Size::Axis),
            other => Some(other.clone()),
        };
        let cannot = || format!("it reshapes {} to {}, which is no view of the input", self.shown(view), shown(shape));
        let rest = shape.iter().position(|size| *size == Size::Number(-1));
        for (axis, parts_of_axis) in axes.iter_mut().enumerate().take(rest.unwrap_or(shape.len())) {
            *parts_of_axis = self.take(&mut parts, &size(axis).ok_or_else(cannot)?, Side::Front).ok_or_else(cannot)?;
        }
        match rest {
            Some(rest) => {
                for axis in (rest + 1..shape.len()).rev() {
                    axes[axis] =
                        self.take(&mut parts, &size(axis).ok_or_else(cannot)?, Side::Back).ok_or_else(cannot)?;
                }
                axes[rest] = parts;
            }
            None if self.along(&parts) != Some(1) => return Err(cannot()),
            None => {}
        }
        Ok(View(axes.into_iter().map(|axis| self.simplified(axis)).collect()))
    }

    /// Takes the parts of one axis from a side of what is left.
    fn take(&self, parts: &mut Vec<Part>, size: &Size, side: Side) -> Option<Axis> {
        if let Size::Axis(axis) = size {
            let same = match side {
                Side::Front => parts.starts_with(axis),
                Side::Back => parts.ends_with(axis),
            };
            if same {
                let from = if side == Side::Front { 0 } else { parts.len() - axis.len() };
                parts.drain(from..from + axis.len());
                return Some(axis.clone());
            }
        }
        let wanted = usize::try_from(self.number(size)?).ok()?;
        let (mut axis, mut taken) = (Axis::new(), 1usize);
        let next = |parts: &[Part]| if side == Side::Front { parts.first().copied() } else { parts.last().copied() };
        if wanted == 1 {
            let Some(part) = next(parts).filter(|&part| self.of(part) == Some(1)) else { return Some(axis) };
            remove(parts, side);
            return Some(vec![part]);
        }
        while taken < wanted {
            let part = next(parts)?;
            let (count, left) = (self.of(part)?, wanted.checked_div(taken)?);
            remove(parts, side);
            let (outer, inner) = match side {
                _ if wanted % taken != 0 => return None,
                _ if left % count.max(1) == 0 => {
                    insert(&mut axis, part, side);
                    taken *= count;
                    continue;
                }
                _ if count % left != 0 => return None,
                Side::Front => (left, count / left),
                Side::Back => (count / left, left),
            };
            let halves = match part {
                Part::Channels => [Part::Groups(outer), Part::Within(outer)],
                Part::Copies(_) => [Part::Copies(outer), Part::Copies(inner)],
                Part::Samples | Part::Groups(_) | Part::Within(_) | Part::Position(_) => return None,
            };
            let (mine, others) = if side == Side::Front { (halves[0], halves[1]) } else { (halves[1], halves[0]) };
            insert(&mut axis, mine, side);
            parts.insert(if side == Side::Front { 0 } else { parts.len() }, others);
            taken = wanted;
        }
        (taken == wanted).then_some(axis)
    }

    /// The index set of an average over parts of a value that varies along `axes`; `None` if it does not vary
    /// along any of them.
    pub(super) fn index_set(&self, axes: Axes, parts: &[Part]) -> Result<Option<IndexSet>, String> {
        let has = |part: Part| parts.contains(&part);
        let samples = axes.samples.then(|| has(Part::Samples));
        let spatial = (0..self.positions.len()).filter(|&number| self.positions[number] != Some(1));
        let averaged: Vec<bool> = spatial.map(|number| has(Part::Position(number))).collect();
        let positions = match (axes.positions && !averaged.is_empty()).then(|| averaged[0]) {
            Some(first) if averaged.iter().any(|&other| other != first) => {
                return Err("it averages over some of the spatial axes, and no index set does".to_owned());
            }
            positions => positions,
        };
        let split = parts.iter().find_map(|part| match part {
            Part::Groups(groups) | Part::Within(groups) => Some(*groups),
            _ => None,
        });
        let groups = split.filter(|&groups| !has(Part::Groups(groups)) && has(Part::Within(groups)));
        let group_set = groups.and_then(|groups| NonZeroU32::new(u32::try_from(groups).ok()?));
        let group_set = group_set.map(|groups| IndexSet::Group(Groups::Exactly(groups)));
        let all_channels =
            has(Part::Channels) || split.is_some_and(|groups| has(Part::Groups(groups)) && has(Part::Within(groups)));
        if axes.channels != Channels::One
            && split.is_some_and(|groups| has(Part::Groups(groups)) && !has(Part::Within(groups)))
        {
            return Err("it averages over groups, and no index set does".to_owned());
        }
        let channels = (axes.channels != Channels::One).then_some(all_channels);
        let is_grouped = channels.is_some() && group_set.is_some();
        if ![samples, channels, positions].contains(&Some(true)) && !is_grouped {
            return Ok(None);
        }
        let sets = [IndexSet::Instance, IndexSet::Channel, IndexSet::Layer, IndexSet::Batch, IndexSet::All];
        let fits = |set: &IndexSet| {
            let of_channels = matches!(set, IndexSet::Layer | IndexSet::Channel | IndexSet::All);
            samples.is_none_or(|samples| samples == set.reduces_samples())
                && positions.is_none_or(|positions| positions == set.reduces_positions())
                && match set {
                    IndexSet::Group(_) => true,
                    _ => !is_grouped && channels.is_none_or(|channels| channels == of_channels),
                }
        };
        let candidates = group_set.filter(|_| is_grouped).into_iter().chain(sets);
        candidates.into_iter().find(fits).map(Some).ok_or_else(|| {
            let named = [("samples", samples), ("channels", channels), ("positions", positions)];
            let named = named.iter().filter(|(_, averaged)| *averaged == Some(true)).map(|(name, _)| *name);
            let group = is_grouped.then_some("the channels of a group");
            format!(
                "it averages over {} alone, and no index set does",
                group.into_iter().chain(named).collect::<Vec<_>>().join(" and ")
            )
        })
    }

    /// A view as people write a shape: `[N, 32, 2*S1]`.
    pub(super) fn shown(&self, view: &View) -> String {
        shown(&view.0.iter().map(|axis| Size::Axis(axis.clone())).collect::<Vec<_>>())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Front,
    Back,
}

fn remove(parts: &mut Vec<Part>, side: Side) {
    match side {
        Side::Front => drop(parts.remove(0)),
        Side::Back => drop(parts.pop()),
    }
}

fn insert(axis: &mut Axis, part: Part, side: Side) {
    match side {
        Side::Front => axis.push(part),
        Side::Back => axis.insert(0, part),
    }
}

fn shown(shape: &[Size]) -> String {
    let part = |part: &Part| match part {
        Part::Samples => "N".to_owned(),
        Part::Channels => "C".to_owned(),
        Part::Groups(groups) => format!("{groups} groups"),
        Part::Within(groups) => format!("C/{groups}"),
        Part::Position(number) => format!("S{}", number + 1),
        Part::Copies(count) => count.to_string(),
    };
    let size = |size: &Size| match size {
        Size::Number(number) => number.to_string(),
        Size::Axis(axis) if axis.is_empty() => "1".to_owned(),
        Size::Axis(axis) => axis.iter().map(part).collect::<Vec<_>>().join("*"),
    };
    format!("[{}]", shape.iter().map(size).collect::<Vec<_>>().join(", "))
}
