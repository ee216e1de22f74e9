//! What the graph says about its text: findings and shape errors as diagnostics.

use std::collections::HashSet;

use normact_ir as ir;
use normact_ir::{Finding, IndexSet, Op, Shape, ShapeError, ShapeNote, stated};

use crate::Compiled;
use crate::ast::{Layer, Statement};
use crate::build::Built;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// Everything suspicious about a layer, whatever the size of its input.
pub(crate) fn diagnostics(layer: &Layer, built: &Built) -> Vec<Diagnostic> {
    let result = layer.result.as_ref().map_or(layer.name.span, |result| result.span);
    let origin = |id: ir::NodeId| built.origins[id.index()];
    let mut diagnostics: Vec<Diagnostic> =
        ir::findings(&built.dag).into_iter().map(|finding| diagnostic(finding, result, &origin)).collect();
    diagnostics.extend(independent_params(layer, &built.dag));
    diagnostics
}

fn diagnostic(finding: Finding, result: Span, origin: &dyn Fn(ir::NodeId) -> Span) -> Diagnostic {
    match finding {
        Finding::IgnoresInput => Diagnostic::new(Code::IgnoresInput, result, "the result does not depend on the input")
            .help("use the layer's first argument in the result"),
        Finding::Constant { samples, channels, positions } => {
            let axes = [(samples, "samples"), (channels, "channels"), (positions, "positions")];
            let axes: Vec<&str> = axes.into_iter().filter(|(same, _)| *same).map(|(_, axis)| axis).collect();
            let message = format!("the result is the same for all {}", axes.join(" and "));
            Diagnostic::new(Code::ConstantResult, result, message)
                .help("it will be broadcast to the input's shape; did you mean to combine it with the input?")
        }
        Finding::DegenerateMoment { node } => {
            Diagnostic::new(Code::Degenerate, origin(node), "the operand does not vary along the axes averaged over")
                .label("a mean of it is the operand itself, a variance 0")
                .help("average a value that varies along these axes, or over another index set")
        }
        Finding::DivisionByZero { node, divisor } => {
            let (node, divisor) = (origin(node), origin(divisor));
            // Where both come from one call into the prelude, the call is all there is to mark.
            let inside = node.start <= divisor.start && divisor.end <= node.end;
            let span = if inside { divisor } else { node };
            Diagnostic::new(Code::DivisionByZero, span, "this divisor can be zero")
                .help("divide by std or rms, or by max(divisor, 1e-5) where it is never negative")
        }
        Finding::ExpOverflow { node } => Diagnostic::new(
            Code::ExpOverflow,
            origin(node),
            "exp is infinite for operands above 88.7, and nothing bounds this one",
        )
        .help("bound the operand, as in exp(min(y, 20)), or use sigmoid, tanh or softplus"),
    }
}

/// Params that expressions use, but none the result depends on.
fn independent_params(layer: &Layer, dag: &ir::Dag) -> Vec<Diagnostic> {
    let live = dag.live();
    let used_by: HashSet<usize> = dag.ids().flat_map(|id| dag.operands(id).iter()).map(ir::NodeId::index).collect();
    let mut diagnostics = Vec::new();
    for id in dag.ids().filter(|id| !live[id.index()] && used_by.contains(&id.index())) {
        let Op::Param(param) = dag.op(id) else { continue };
        let name = &dag.param(param).name;
        let declared = layer.statements.iter().find(|statement| statement.name().text == *name);
        let Some(Statement::Param { name, .. }) = declared else { continue };
        let message = format!("the result does not depend on `{}`, though it is used", name.text);
        diagnostics.push(
            Diagnostic::new(Code::IndependentOfParam, name.span, message)
                .help("use what is computed from it in the result, or remove it"),
        );
    }
    diagnostics
}

/// Everything wrong or notable about giving a layer an input of that shape.
pub fn shape_diagnostics(compiled: &Compiled, shape: &Shape) -> Vec<Diagnostic> {
    let (errors, notes) = ir::check(&compiled.layer.dag, shape);
    let errors = errors.into_iter().map(|error| match error.node {
        Some(id) => does_not_hold(Code::Groups, compiled.origin(id), error, shape),
        None => does_not_hold(Code::Rank, compiled.name_span, error, shape),
    });
    let of_gradient = compiled.gradient.iter().flat_map(|stated| {
        stated.gradient.steps().enumerate().filter_map(|(step, (op, _))| {
            let stated::Op::Statistic(_, IndexSet::Group(groups)) = op else { return None };
            let error = ir::groups_for(groups, shape.channels()).err()?;
            Some(does_not_hold(Code::Groups, stated.origin(step), error, shape))
        })
    });
    let notes = notes.into_iter().map(|note| match note {
        ShapeNote::GroupsLowered { node, asked, used, channels } => {
            let message = format!("{asked} groups do not divide {channels} channels; {used} are used");
            Diagnostic::new(Code::GroupsLowered, compiled.origin(node), message)
                .help(format!("write group({used}) or --set groups={used} to say so yourself"))
        }
        ShapeNote::SingleElement { node, moment, over } => {
            let what = if moment == ir::Moment::Mean { "the value itself" } else { "a variance of 0" };
            let message = format!("{}[{over}] averages over a single element of an input {shape}", moment.name());
            Diagnostic::new(Code::Degenerate, compiled.origin(node), message)
                .label(format!("of one element it is {what}"))
                .help("use an index set with more elements for inputs of this shape")
        }
    });
    errors.chain(of_gradient).chain(notes).collect()
}

fn does_not_hold(code: Code, span: Span, error: ShapeError, shape: &Shape) -> Diagnostic {
    let bindings: Vec<String> = error.bindings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    Diagnostic::new(code, span, error.message)
        .note(format!("{} does not hold for {} (input {shape})", error.equation, bindings.join(", ")))
        .help(error.help)
}
