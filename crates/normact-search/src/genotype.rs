//! What a search evolves: a list of genes, each an operation on earlier nodes.
//!
//! Nodes 0 to 3 are the input `x`, the number 0 and the parameters `v0` (starts at 0) and `v1` (starts at
//! 1); each gene adds one. The last node is the result, which the layer scales and shifts by `gamma` and
//! `beta`. A genotype is never simplified: genes that nothing uses stay and may be used again by a later
//! mutation, so that neutral steps can lead somewhere. Liu et al. 2020, section 3.

use std::fmt;
use std::str::FromStr;

use normact_ir::random::Space as Operations;
use normact_ir::{Builder, Extent, Law, Layer, Op, Operands, Param, Prim, Scalar};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The nodes every genotype starts with.
pub const INITIAL_NODES: usize = 4;

/// The most genes of a genotype.
pub const MAX_GENES: usize = 1000;

/// The operations that genes are drawn from, and how many genes there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    genes: usize,
    ops: Vec<(String, Op)>,
    /// The same operations, those of one primitive together.
    primitives: Vec<Vec<Op>>,
    drawing: Drawing,
}

/// How a gene is drawn, as far as the paper leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drawing {
    /// What is as likely as any other.
    pub uniform: Uniform,
    /// Whether an operation may have one node as both operands.
    pub replacement: bool,
}

impl Default for Drawing {
    fn default() -> Self {
        Self { uniform: Uniform::Operations, replacement: true }
    }
}

/// What a uniform choice of an operation is uniform over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uniform {
    /// Operations: a moment counts once for each of its index sets.
    Operations,
    /// Primitives: a moment counts once, and its index set is drawn after it.
    Primitives,
}

impl Space {
    /// The space of the EvoNorm paper with so many genes (10 there): 24 operations, or 21 without
    /// moments over samples.
    ///
    /// # Panics
    /// There is no gene, or there are more than [`MAX_GENES`].
    pub fn evonorm(genes: usize, batch_free: bool) -> Self {
        assert!((1..=MAX_GENES).contains(&genes), "a genotype has 1 to {MAX_GENES} genes");
        let operations = if batch_free { Operations::evonorm_batch_free() } else { Operations::evonorm() };
        let mut primitives: Vec<Vec<Op>> = vec![];
        for &op in &operations.ops {
            match primitives.iter_mut().find(|known| primitive_name(known[0]) == primitive_name(op)) {
                Some(known) => known.push(op),
                None => primitives.push(vec![op]),
            }
        }
        let ops = operations.ops.into_iter().map(|op| (name(op), op)).collect();
        Self { genes, ops, primitives, drawing: Drawing::default() }
    }

    /// The same space, drawn from in another way.
    pub fn drawn(self, drawing: Drawing) -> Self {
        Self { drawing, ..self }
    }

    /// How many genes a genotype has.
    pub fn genes(&self) -> usize {
        self.genes
    }

    /// The names of the operations, in the order they are drawn from.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ops.iter().map(|(name, _)| name.as_str())
    }

    /// A random genotype: for each gene an operation, then operands among earlier nodes, all as likely.
    pub fn draw(&self, rng: &mut impl Rng) -> Genotype {
        Genotype { genes: (0..self.genes).map(|place| self.gene(place, rng)).collect() }
    }

    /// Changes one gene, drawn uniformly: a new operation, then new operands among earlier nodes.
    pub fn mutate(&self, genotype: &mut Genotype, rng: &mut impl Rng) {
        let place = rng.random_range(0..genotype.genes.len());
        genotype.genes[place] = self.gene(place, rng);
    }

    fn gene(&self, place: usize, rng: &mut impl Rng) -> Gene {
        let op = match self.drawing.uniform {
            Uniform::Operations => self.ops[rng.random_range(0..self.ops.len())].1,
            Uniform::Primitives => {
                let operations = &self.primitives[rng.random_range(0..self.primitives.len())];
                operations[rng.random_range(0..operations.len())]
            }
        };
        let (count, earlier) = (op.operand_count(), INITIAL_NODES + place);
        let operands = if self.drawing.replacement {
            (0..count).map(|_| rng.random_range(0..earlier)).collect()
        } else {
            rand::seq::index::sample(rng, earlier, count).into_vec()
        };
        Gene { op, operands }
    }

    /// Reads what [`Genotype`] prints.
    ///
    /// # Errors
    /// The text is no genotype of this space.
    pub fn parse(&self, text: &str) -> Result<Genotype, NoGenotype> {
        let wrong = |gene: &str| NoGenotype { gene: gene.to_owned() };
        let mut genes = vec![];
        for gene in text.split_whitespace() {
            let (name, operands) = gene.strip_suffix(')').and_then(|gene| gene.split_once('(')).ok_or(wrong(gene))?;
            let (_, op) = self.ops.iter().find(|(known, _)| known == name).ok_or(wrong(gene))?;
            let operands: Vec<usize> =
                operands.split(',').map(usize::from_str).collect::<Result<_, _>>().map_err(|_| wrong(gene))?;
            let precede = operands.iter().all(|&operand| operand < INITIAL_NODES + genes.len());
            if operands.len() != op.operand_count() || !precede {
                return Err(wrong(gene));
            }
            genes.push(Gene { op: *op, operands });
        }
        if genes.len() != self.genes {
            return Err(wrong(text));
        }
        Ok(Genotype { genes })
    }
}

/// A text that is no genotype.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{gene}` is no gene of this search space, or there are too few or too many")]
pub struct NoGenotype {
    gene: String,
}

/// A graph as a search holds it, dead nodes and all. Printed as a list of genes:
/// `std[batch](0) mul(3,0) add(5,4) ...`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Genotype {
    genes: Vec<Gene>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Gene {
    op: Op,
    operands: Vec<usize>,
}

impl Genotype {
    /// The layer, with every node.
    pub fn layer(&self, name: &str) -> Layer {
        let mut builder = Builder::new();
        let number = |value| Scalar::new(value).unwrap_or(Scalar::ZERO);
        let [v0, v1, gamma, beta] = [("v0", 0.0), ("v1", 1.0), ("gamma", 1.0), ("beta", 0.0)].map(|(name, init)| {
            let param = Param { name: name.to_owned(), extent: Extent::PerChannel, init: number(init) };
            Op::Param(builder.declare(param).unwrap_or_else(|error| unreachable!("the names are distinct: {error}")))
        });
        let mut append = |op, operands| {
            builder.append(op, operands).unwrap_or_else(|error| unreachable!("operands precede their users: {error}"))
        };
        let mut nodes: Vec<_> =
            [Op::Input, Op::Constant(Scalar::ZERO), v0, v1].map(|op| append(op, Operands::None)).into();
        for gene in &self.genes {
            let operands: Vec<_> = gene.operands.iter().map(|&operand| nodes[operand]).collect();
            let operands = Operands::from_slice(&operands).unwrap_or(Operands::None);
            nodes.push(append(gene.op, operands));
        }
        let result = nodes[nodes.len() - 1];
        let gamma = append(gamma, Operands::None);
        let scaled = append(Op::Prim(Prim::Mul), Operands::Two(result, gamma));
        let beta = append(beta, Operands::None);
        let shifted = append(Op::Prim(Prim::Add), Operands::Two(scaled, beta));
        Layer { name: name.to_owned(), dag: builder.finish(shifted) }
    }

    /// The genes that the result depends on, numbered anew, with the operands of commutative operations in order:
    /// the same layer without what a mutation may change in vain.
    pub(crate) fn live(&self) -> Genotype {
        let mut needed = vec![false; INITIAL_NODES + self.genes.len()];
        needed[INITIAL_NODES + self.genes.len() - 1] = true;
        for (place, gene) in self.genes.iter().enumerate().rev() {
            if needed[INITIAL_NODES + place] {
                gene.operands.iter().for_each(|&operand| needed[operand] = true);
            }
        }
        let mut numbers: Vec<usize> = (0..needed.len()).collect();
        let mut genes = Vec::with_capacity(needed[INITIAL_NODES..].iter().filter(|&&needed| needed).count());
        for (place, gene) in self.genes.iter().enumerate().filter(|(place, _)| needed[INITIAL_NODES + place]) {
            numbers[INITIAL_NODES + place] = INITIAL_NODES + genes.len();
            let mut operands: Vec<usize> = gene.operands.iter().map(|&operand| numbers[operand]).collect();
            if matches!(gene.op, Op::Prim(prim) if prim.obeys(Law::Commutative)) {
                operands.sort_unstable();
            }
            genes.push(Gene { op: gene.op, operands });
        }
        Genotype { genes }
    }

    /// The number of genes in which two genotypes of one space differ.
    pub fn distance(&self, other: &Genotype) -> usize {
        self.genes.iter().zip(&other.genes).filter(|(a, b)| a != b).count()
    }
}

impl fmt::Display for Genotype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, gene) in self.genes.iter().enumerate() {
            let operands: Vec<String> = gene.operands.iter().map(usize::to_string).collect();
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{}({})", name(gene.op), operands.join(","))?;
        }
        Ok(())
    }
}

fn name(op: Op) -> String {
    match op {
        Op::Moment(moment) => format!("{}[{}]", moment.moment().name(), moment.over()),
        Op::Prim(_) | Op::Input | Op::Constant(_) | Op::Param(_) => primitive_name(op).to_owned(),
    }
}

fn primitive_name(op: Op) -> &'static str {
    match op {
        Op::Prim(prim) => prim.name(),
        Op::Moment(moment) => moment.moment().name(),
        Op::Input | Op::Constant(_) | Op::Param(_) => unreachable!("genes compute something"),
    }
}
