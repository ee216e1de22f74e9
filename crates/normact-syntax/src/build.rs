//! Syntax tree to graph.

use normact_ir as ir;
use normact_ir::{Builder, IndexSet, MomentOp, NodeId, Op, Operands, Prim, Scalar, Tracking};

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::expressions::{Expressions, Meaning, NodeResult, Reducer, Target, Values};
use crate::names::Library;
use crate::settings::{InForce, Known, Overrides, SettingValue, literal};
use crate::source::Span;
use crate::suggest::{did_you_mean, listed};

/// A graph with the places its nodes come from.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) dag: ir::Dag,
    /// For each node, the text it was first built for.
    pub(crate) origins: Vec<Span>,
    /// The settings in force, those the layer declares.
    pub(crate) settings: Vec<(String, SettingValue)>,
    /// What its moments read.
    pub(crate) in_force: InForce,
}

/// Builds a layer whose names have been checked.
pub(crate) fn build(layer: &Layer, library: &Library<'_>, overrides: &Overrides) -> Result<Built, Vec<Diagnostic>> {
    let settings = settings(layer, overrides)?;
    let in_force = in_force(&settings, overrides);
    let mut expressions = Expressions::new(library, in_force, Builder::new());
    let output = output(&mut expressions, layer, &settings).map_err(|diagnostic| vec![*diagnostic])?;
    let Expressions { target, origins, .. } = expressions;
    Ok(Built { dag: target.finish(output), origins, settings, in_force })
}

/// What moments read: the layer's settings, and before them what the caller says.
fn in_force(settings: &[(String, SettingValue)], overrides: &Overrides) -> InForce {
    let mut in_force = InForce::default();
    for (name, value) in overrides.iter().chain(settings.iter().map(|(name, value)| (name.as_str(), *value))) {
        if let Some(known) = Known::by_name(name) {
            in_force.set(known, value);
        }
    }
    in_force
}

/// The layer's settings after overrides, in the order declared.
fn settings(layer: &Layer, overrides: &Overrides) -> Result<Vec<(String, SettingValue)>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    for (name, value) in overrides.iter() {
        let declared = layer.settings.iter().find(|setting| setting.name.text == name);
        let known = Known::by_name(name);
        let span = declared.map_or(layer.name.span, |setting| setting.name.span);
        let accepted = match known {
            Some(known) => known.accepts(value),
            None => matches!(value, SettingValue::Number(_)),
        };
        if declared.is_none() && known.is_none() {
            let own = layer.settings.iter().map(|setting| setting.name.text.as_str());
            let all = own.chain(Known::ALL.into_iter().map(|known| -> &str { known.name() }));
            let message = format!("layer `{}` has no setting `{name}`", layer.name.text);
            let otherwise = format!("it has {}", listed(all.clone()));
            let help = did_you_mean(name, all, otherwise);
            diagnostics.push(Diagnostic::new(Code::UnknownSetting, span, message).help(help));
        } else if !accepted {
            let values = known.map_or("a number", Known::values);
            let message = format!("the setting `{name}` was given a value it cannot have");
            diagnostics.push(Diagnostic::new(Code::BadSetting, span, message).help(format!("`{name}` is {values}")));
        }
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut settings: Vec<(String, SettingValue)> = Vec::new();
    for setting in &layer.settings {
        let name = &setting.name.text;
        let default = match &setting.value.kind {
            ValueKind::Word(word) => {
                let earlier = settings.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
                earlier.or(literal(&setting.value.kind))
            }
            kind => literal(kind),
        };
        let value = overrides.get(name).or(default).unwrap_or(SettingValue::Number(0.0));
        if let Some(known) = Known::by_name(name)
            && !known.accepts(value)
        {
            let message = format!("`{name}` has a value it cannot have");
            let help = format!("`{name}` is {}", known.values());
            return Err(vec![Diagnostic::new(Code::BadSetting, setting.value.span, message).help(help)]);
        }
        settings.push((name.clone(), value));
    }
    Ok(settings)
}

/// The node of the layer's result.
fn output(
    expressions: &mut Expressions<'_, Builder>,
    layer: &Layer,
    settings: &[(String, SettingValue)],
) -> NodeResult {
    let mut values = Values::new();
    let input = expressions.add(layer.input.span, Builder::input)?;
    values.insert(&layer.input.text, Meaning::Node(input));
    for (name, value) in settings {
        if let SettingValue::Number(number) = value {
            values.insert(name, Meaning::Number(*number));
        }
    }
    for statement in &layer.statements {
        let value = match statement {
            Statement::Param { span, name, extent, init } => {
                let init = match &init.kind {
                    ValueKind::Number(number, _) => *number,
                    ValueKind::Word(word) => match settings.iter().find(|(name, _)| name == word) {
                        Some((_, SettingValue::Number(number))) => *number,
                        _ => {
                            let message = format!("a param starts at a number, and `{word}` is none");
                            let diagnostic = Diagnostic::new(Code::BadSetting, init.span, message);
                            return Err(Box::new(diagnostic.help("write a number")));
                        }
                    },
                };
                let scalar = extent.as_ref().is_some_and(|extent| extent.text == "scalar");
                let param = ir::Param {
                    name: name.text.clone(),
                    extent: if scalar { ir::Extent::Scalar } else { ir::Extent::PerChannel },
                    init: Scalar::new(init).unwrap_or(Scalar::ZERO),
                };
                let builder = &mut expressions.target;
                let param = builder.declare(param).unwrap_or_else(|_| unreachable!("names were checked"));
                expressions.add(*span, |builder| builder.intern(Op::Param(param), Operands::None))?
            }
            Statement::Let { value, .. } => expressions.expr(value, &values)?,
        };
        values.insert(&statement.name().text, Meaning::Node(value));
    }
    let result = layer.result.as_ref().unwrap_or_else(|| unreachable!("layers without a result are not built"));
    expressions.expr(result, &values)
}

impl Target for Builder {
    const NAME: &'static str = "layer";

    fn len(&self) -> usize {
        self.len()
    }

    fn constant(&mut self, value: Scalar) -> NodeId {
        self.constant(value)
    }

    fn prim(&mut self, prim: Prim, operands: Operands) -> NodeId {
        self.intern(Op::Prim(prim), operands)
    }

    fn reduce(&mut self, reducer: Reducer, over: IndexSet, in_force: &InForce, x: NodeId) -> NodeId {
        let Reducer::Moment(moment) = reducer else { unreachable!("sums and counts are refused in layers") };
        let tracking = Tracking { momentum: in_force.momentum, running: in_force.running };
        self.intern(Op::Moment(MomentOp::new(moment, over, in_force.eps, tracking)), Operands::One(x))
    }
}
