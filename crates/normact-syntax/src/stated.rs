//! Syntax tree to the program of a stated gradient.

use normact_ir::stated::{Builder, Gradient, Op, Statistic, extent_axes};
use normact_ir::{Axes, Channels, Extent, IndexSet, NodeId, Operands, Prim, Scalar};

use crate::ast;
use crate::build::Built;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::expressions::{Expressions, Meaning, Reducer, Target, Values};
use crate::names::Library;
use crate::settings::{InForce, SettingValue};
use crate::source::Span;

/// The gradient that a text states for a layer.
#[derive(Debug, Clone)]
pub struct StatedGradient {
    /// What it computes.
    pub gradient: Gradient,
    /// The place of the layer's name in it.
    pub name_span: Span,
    origins: Vec<Span>,
}

impl StatedGradient {
    /// The text a step was built for.
    pub fn origin(&self, step: usize) -> Span {
        self.origins.get(step).copied().unwrap_or(self.name_span)
    }
}

/// Builds a gradient whose names have been checked, for a layer that has been built.
pub(crate) fn build(
    gradient: &ast::Gradient,
    layer: &Built,
    library: &Library<'_>,
) -> Result<StatedGradient, Vec<Diagnostic>> {
    let params = layer.dag.params();
    let mut expressions = Expressions::new(library, layer.in_force, Builder::new(params));
    let (input, results) = lines(&mut expressions, gradient, layer).map_err(|diagnostic| vec![*diagnostic])?;
    let builder = &expressions.target;
    let diagnostics: Vec<Diagnostic> = params
        .iter()
        .zip(&results)
        .filter_map(|(param, result)| {
            let (id, line) = (*result)?;
            let extra = extra_axes(builder.axes(id), extent_axes(param.extent))?;
            Some(too_many_axes(&param.name, param.extent, line, &extra))
        })
        .collect();
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let results = results.into_iter().map(|result| result.map(|(id, _)| id)).collect();
    let Expressions { target, origins, .. } = expressions;
    Ok(StatedGradient { gradient: target.finish(input, results), name_span: gradient.layer.span, origins })
}

/// A result and the line that states it.
type Line<'a> = Option<(NodeId, &'a ast::Line)>;

/// The node of the input's gradient, and those of the params'.
fn lines<'a>(
    expressions: &mut Expressions<'_, Builder>,
    gradient: &'a ast::Gradient,
    layer: &Built,
) -> Result<(Option<NodeId>, Vec<Line<'a>>), Box<Diagnostic>> {
    let [input, upstream] = gradient.arguments.as_slice() else { unreachable!("the arguments were counted") };
    let mut values = Values::new();
    for (name, value) in &layer.settings {
        if let SettingValue::Number(number) = value {
            values.insert(name, Meaning::Number(*number));
        }
    }
    for (id, param) in layer.dag.param_ids().zip(layer.dag.params()) {
        let node = expressions.add(gradient.layer.span, |builder| builder.intern(Op::Param(id), Operands::None))?;
        values.insert(&param.name, Meaning::Node(node));
    }
    for (argument, op) in [(input, Op::Input), (upstream, Op::Upstream)] {
        let node = expressions.add(argument.span, |builder| builder.intern(op, Operands::None))?;
        values.insert(&argument.text, Meaning::Node(node));
    }
    let mut results: std::collections::HashMap<&str, (NodeId, &ast::Line)> = Default::default();
    for line in &gradient.lines {
        let node = expressions.expr(&line.value, &values)?;
        if line.is_let {
            values.insert(&line.name.text, Meaning::Node(node));
        } else {
            // With params `a` and `da`, `da` is the param in expressions.
            values.entry(&line.name.text).or_insert(Meaning::Node(node));
            results.insert(&line.name.text, (node, line));
        }
    }
    let of = |name: &str| results.get(format!("d{name}").as_str()).copied();
    let params = layer.dag.params().iter().map(|param| of(&param.name)).collect();
    Ok((of(&input.text).map(|(node, _)| node), params))
}

/// The axes a value varies along and `of` does not, in words.
fn extra_axes(value: Axes, of: Axes) -> Option<String> {
    let axes = [
        (value.samples && !of.samples, "samples"),
        (value.channels != Channels::One && of.channels == Channels::One, "channels"),
        (value.positions && !of.positions, "positions"),
    ];
    let names: Vec<&str> = axes.into_iter().filter(|(is_extra, _)| *is_extra).map(|(_, name)| name).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        [init @ .., last] => Some(format!("{} and {last}", init.join(", "))),
    }
}

fn too_many_axes(param: &str, extent: Extent, line: &ast::Line, extra: &str) -> Diagnostic {
    let (has, set) = match extent {
        Extent::PerChannel => ("one value per channel", IndexSet::Batch),
        Extent::Scalar => ("one value", IndexSet::All),
    };
    let message = format!("the gradient of `{param}` varies along {extra}");
    Diagnostic::new(Code::GradientAxes, line.value.span, message)
        .label(format!("`{param}` has {has}"))
        .help(format!("sum over what it varies along: `{} = sum[{set}](...)`", line.name.text))
}

impl Target for Builder {
    const NAME: &'static str = "gradient";

    fn len(&self) -> usize {
        self.len()
    }

    fn constant(&mut self, value: Scalar) -> NodeId {
        self.intern(Op::Constant(value), Operands::None)
    }

    fn prim(&mut self, prim: Prim, operands: Operands) -> NodeId {
        self.intern(Op::Prim(prim), operands)
    }

    fn reduce(&mut self, reducer: Reducer, over: IndexSet, in_force: &InForce, x: NodeId) -> NodeId {
        let mut statistic = |statistic: Statistic| self.intern(Op::Statistic(statistic, over), Operands::One(x));
        match reducer {
            Reducer::Own(own) => statistic(own),
            Reducer::Moment(moment) => {
                let average = statistic(moment.quantity().into());
                if !moment.is_root() {
                    return average;
                }
                let eps = self.constant(in_force.eps);
                let radicand = self.prim(Prim::Add, Operands::Two(average, eps));
                self.prim(Prim::Sqrt, Operands::One(radicand))
            }
        }
    }
}
