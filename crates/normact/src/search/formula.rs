//! The layers of a search, and their formulas as people read them.

use normact_egraph::{SimplifyBudget, simplify};
use normact_ir::{Builder, Dag, DagError, Layer, Op, Operands};
use normact_search::Space;

use super::Config;
use crate::Failure;

/// Where the graphs in a database come from: a space, and layers that were given.
#[derive(Debug, Clone)]
pub struct Layers {
    space: Space,
    fixed: Vec<(String, Layer)>,
}

impl Layers {
    /// Those of a space, and given ones with their names.
    pub fn new(space: Space, fixed: Vec<(String, Layer)>) -> Self {
        Self { space, fixed }
    }

    /// Those of a search.
    ///
    /// # Errors
    /// A baseline cannot be read any more.
    pub fn of(config: &Config) -> Result<Self, Failure> {
        Ok(Self::new(config.space(), config.baselines()?))
    }

    /// How many genes a drawn layer has.
    pub(super) fn genes(&self) -> usize {
        self.space.genes()
    }

    /// The layer of a graph, with every node.
    ///
    /// # Errors
    /// The graph is none of the search.
    pub fn layer(&self, graph: &str) -> Result<Layer, Failure> {
        if let Some((_, layer)) = self.fixed.iter().find(|(name, _)| name == graph) {
            return Ok(layer.clone());
        }
        let genotype = self.space.parse(graph);
        Ok(genotype.map_err(|error| Failure::new(format!("the database is damaged: {error}")))?.layer("found"))
    }

    /// The cheapest equal layer, with the parameters it uses: the form that is shown, printed and emitted.
    ///
    /// # Errors
    /// As [`Self::layer`].
    pub fn simplified(&self, graph: &str, name: &str) -> Result<Layer, Failure> {
        let layer = self.layer(graph)?;
        Ok(tidied(simplify(&layer.dag, &SimplifyBudget::default()).dag, name))
    }

    /// What people call a layer: the name of a given one, or the formula on one line.
    pub fn name(&self, graph: &str) -> String {
        if self.is_given(graph) {
            return graph.to_owned();
        }
        self.simplified(graph, "found").map_or(graph.to_owned(), |layer| one_line(&layer))
    }

    pub(super) fn is_given(&self, graph: &str) -> bool {
        self.fixed.iter().any(|(name, _)| name == graph)
    }
}

/// The layer as it is, without what its result does not use.
pub(super) fn tidied(dag: Dag, name: &str) -> Layer {
    let dag = with_used_params(&dag).unwrap_or(dag);
    Layer { name: name.to_owned(), dag }
}

fn with_used_params(dag: &Dag) -> Result<Dag, DagError> {
    let live = dag.live();
    let mut builder = Builder::new();
    // In the order of declaration, so that the formula lists them as before.
    let mut params = vec![];
    for id in dag.param_ids() {
        let is_used = dag.ids().any(|node| live[node.index()] && dag.op(node) == Op::Param(id));
        params.push(if is_used { Some(builder.declare(dag.param(id).clone())?) } else { None });
    }
    let mut copies = vec![None; dag.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let op = match dag.op(id) {
            Op::Param(param) => Op::Param(params[param.index()].unwrap_or(param)),
            op @ (Op::Input | Op::Constant(_) | Op::Prim(_) | Op::Moment(_)) => op,
        };
        let operands: Vec<_> = dag.operands(id).iter().filter_map(|operand| copies[operand.index()]).collect();
        let operands = Operands::from_slice(&operands).unwrap_or(Operands::None);
        copies[id.index()] = Some(builder.append(op, operands)?);
    }
    let output = dag.output();
    Ok(builder.finish(copies[output.index()].unwrap_or(output)))
}

/// What a layer computes, on one line: its formula without head and parameters.
pub(super) fn one_line(layer: &Layer) -> String {
    let text = normact_syntax::print(layer);
    let lines = text.lines().skip(1).map(str::trim);
    let body: Vec<&str> =
        lines.filter(|line| !line.is_empty() && *line != "}" && !line.starts_with("param ")).collect();
    body.join("; ")
}
