//! Places for the blocks of a drawing, in layers from top to bottom (Sugiyama, Tagawa and Toda, "Methods for
//! Visual Understanding of Hierarchical System Structures", 1981).
//!
//! ```text
//! links --levels--> layers --trunks--> vertices --order--> few crossings --place--> coordinates
//! ```
//!
//! All links from one block share a trunk: a chain of bends, one a layer, as far down as its last user. A
//! link leaves the trunk in the gap above the layer of its user. Since bends have a place in their layer as
//! blocks have, lines are upright within a layer and no line meets a block. The main path is a straight line.

use std::collections::HashMap;

/// What is placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// How far it reaches to the left of its centre.
    pub(crate) left: f64,
    /// How far it reaches to the right of its centre.
    pub(crate) right: f64,
    pub(crate) height: f64,
}

/// A line from a block to a later one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) main: bool,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The top and the bottom of each layer.
    pub(crate) layers: Vec<(f64, f64)>,
    /// The layer of each block.
    pub(crate) levels: Vec<usize>,
    /// For each block, where its trunk is in its own layer, in the next one, and so on.
    pub(crate) trunks: Vec<Vec<f64>>,
}

/// The least distance between two neighbours.
const GAP: f64 = 22.0;
/// How far a bend reaches to either side.
const BEND: f64 = 2.0;
/// The distance of layers whose lines are upright.
const LAYER_GAP: f64 = 34.0;
/// The most distance of layers.
const LAYER_GAP_MOST: f64 = 90.0;
/// The work on the order and on the places, in visits of a vertex.
const VISITS: usize = 400_000;

/// Places blocks that are given in an order in which lines lead forward.
pub(crate) fn layout(blocks: &[Block], lines: &[Line]) -> Layout {
    let levels = levels(blocks.len(), lines);
    let mut net = Net::new(blocks, lines, &levels);
    let rounds = (VISITS / net.vertices.len().max(1)).clamp(2, 100);
    net.reduce_crossings(rounds);
    net.place(rounds);
    let layers = net.layer_bounds(blocks, &levels);
    let trunks = net.trunks.iter().map(|trunk| trunk.iter().map(|&vertex| net.vertices[vertex].x).collect()).collect();
    Layout { layers, levels, trunks }
}

/// The layer of each block: below everything it reads, and then as near to its users as makes trunks shorter.
fn levels(blocks: usize, lines: &[Line]) -> Vec<usize> {
    let mut levels = vec![0; blocks];
    let mut operands = vec![vec![]; blocks];
    let mut users = vec![vec![]; blocks];
    for line in lines {
        operands[line.to].push(line.from);
        users[line.from].push(line.to);
    }
    for block in 0..blocks {
        levels[block] = operands[block].iter().map(|&operand| levels[operand] + 1).max().unwrap_or(0);
        operands[block].dedup();
    }
    for block in (0..blocks).rev() {
        let Some(lowest) = users[block].iter().map(|&user| levels[user] - 1).min() else { continue };
        // Where each operand's trunk ends, its link to this block left aside.
        let reach =
            |operand: usize| users[operand].iter().filter(|user| **user != block).map(|&user| levels[user]).max();
        let reaches: Vec<usize> =
            operands[block].iter().map(|&operand| reach(operand).unwrap_or(0).max(levels[block])).collect();
        let length = |level: usize| {
            let above: usize = reaches.iter().map(|reach| level.saturating_sub(*reach)).sum();
            above + (lowest - level)
        };
        levels[block] = (levels[block]..=lowest).min_by_key(|&level| length(level)).unwrap_or(lowest);
    }
    levels
}

/// Blocks and bends.
struct Net {
    /// First the blocks, then the bends.
    vertices: Vec<Vertex>,
    /// For each block, itself and its bends from top to bottom.
    trunks: Vec<Vec<usize>>,
    /// The vertices of each layer from left to right.
    layers: Vec<Vec<usize>>,
}

struct Vertex {
    left: f64,
    right: f64,
    x: f64,
    /// Whether it is on the main path.
    main: bool,
    is_bend: bool,
    above: Vec<usize>,
    below: Vec<usize>,
}

impl Net {
    fn new(blocks: &[Block], lines: &[Line], levels: &[usize]) -> Self {
        let vertex =
            |left, right, is_bend| Vertex { left, right, x: 0.0, main: false, is_bend, above: vec![], below: vec![] };
        let mut vertices: Vec<Vertex> = blocks.iter().map(|block| vertex(block.left, block.right, false)).collect();
        let mut layers = vec![vec![]; levels.iter().max().map_or(0, |deepest| deepest + 1)];
        let mut ends = levels.to_vec();
        for line in lines {
            ends[line.from] = ends[line.from].max(levels[line.to] - 1);
        }
        let mut trunks = vec![vec![]; blocks.len()];
        for block in first_order(blocks.len(), lines) {
            trunks[block].push(block);
            layers[levels[block]].push(block);
            for layer in &mut layers[levels[block] + 1..=ends[block]] {
                let (above, bend) = (trunks[block][trunks[block].len() - 1], vertices.len());
                vertices.push(vertex(BEND, BEND, true));
                vertices[above].below.push(bend);
                vertices[bend].above.push(above);
                trunks[block].push(bend);
                layer.push(bend);
            }
        }
        for line in lines {
            let trunk = &trunks[line.from][..levels[line.to] - levels[line.from]];
            let above = trunk[trunk.len() - 1];
            vertices[above].below.push(line.to);
            vertices[line.to].above.push(above);
            if line.main {
                trunk.iter().chain([&line.to]).for_each(|&vertex| vertices[vertex].main = true);
            }
        }
        Self { vertices, trunks, layers }
    }

    /// Sorts every layer by the mean position of the neighbours in the layer before, down and up in turn, and
    /// keeps the best order met.
    fn reduce_crossings(&mut self, rounds: usize) {
        let mut best = (self.crossings(), self.layers.clone());
        for round in 0..rounds {
            if best.0 == 0 {
                break;
            }
            let down = round % 2 == 0;
            let mut position = self.positions();
            let count = self.layers.len();
            for step in 1..count {
                let layer = if down { step } else { count - 1 - step };
                let mut order: Vec<(f64, usize)> = self.layers[layer]
                    .iter()
                    .map(|&vertex| {
                        let neighbours = self.neighbours(vertex, down);
                        let sum: usize = neighbours.iter().map(|&neighbour| position[neighbour]).sum();
                        let own = position[vertex] as f64;
                        (if neighbours.is_empty() { own } else { sum as f64 / neighbours.len() as f64 }, vertex)
                    })
                    .collect();
                // Ties change sides every other time, which frees orders that are stuck.
                if round % 4 >= 2 {
                    order.reverse();
                }
                order.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.layers[layer] = order.into_iter().map(|(_, vertex)| vertex).collect();
                self.layers[layer].iter().enumerate().for_each(|(index, &vertex)| position[vertex] = index);
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn positions(&self) -> Vec<usize> {
        let mut position = vec![0; self.vertices.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(index, &vertex)| position[vertex] = index);
        }
        position
    }

    fn neighbours(&self, vertex: usize, above: bool) -> &[usize] {
        if above { &self.vertices[vertex].above } else { &self.vertices[vertex].below }
    }

    /// How many pairs of lines cross: inversions between the ends of lines, counted in a Fenwick tree.
    fn crossings(&self) -> usize {
        let position = self.positions();
        let mut crossings = 0;
        for pair in self.layers.windows(2) {
            let mut tree = vec![0; pair[1].len() + 1];
            let mut seen = 0;
            for &vertex in &pair[0] {
                let mut ends: Vec<usize> =
                    self.vertices[vertex].below.iter().map(|&below| position[below] + 1).collect();
                for &end in &ends {
                    let (mut not_right, mut at) = (0, end);
                    while at > 0 {
                        not_right += tree[at];
                        at &= at - 1;
                    }
                    crossings += seen - not_right;
                }
                seen += ends.len();
                for end in &mut ends {
                    while *end < tree.len() {
                        tree[*end] += 1;
                        *end += *end & end.wrapping_neg();
                    }
                }
            }
        }
        crossings
    }

    /// Gives every vertex the place nearest to its neighbours' that its own layer allows, down and up in turn;
    /// the main path stays at 0. The layer before counts for more, which straightens a branch in one go,
    /// except in the last rounds.
    fn place(&mut self, rounds: usize) {
        for layer in 0..self.layers.len() {
            self.place_layer(layer, [0.0, 0.0]);
        }
        for round in 0..rounds {
            let down = round % 2 == 0;
            let shares = match (round + rounds / 4 < rounds, down) {
                (true, true) => [1.0, 0.1],
                (true, false) => [0.1, 1.0],
                (false, _) => [1.0, 1.0],
            };
            let count = self.layers.len();
            for step in 0..count {
                self.place_layer(if down { step } else { count - 1 - step }, shares);
            }
        }
    }

    /// Places a layer; neighbours above and below pull in those shares.
    fn place_layer(&mut self, layer: usize, shares: [f64; 2]) {
        let order = std::mem::take(&mut self.layers[layer]);
        let wishes: Vec<Wish> = order.iter().map(|&vertex| self.wish(vertex, shares)).collect();
        let distances: Vec<f64> =
            order.windows(2).map(|pair| self.vertices[pair[0]].right + GAP + self.vertices[pair[1]].left).collect();
        for (&vertex, x) in order.iter().zip(nearest(&wishes, &distances)) {
            self.vertices[vertex].x = if self.vertices[vertex].main { 0.0 } else { x };
        }
        self.layers[layer] = order;
    }

    fn wish(&self, vertex: usize, [above, below]: [f64; 2]) -> Wish {
        if self.vertices[vertex].main {
            return Wish { x: 0.0, weight: 1e9 };
        }
        let mut wish = Wish { x: 0.0, weight: 0.0 };
        for (is_above, share) in [(true, above), (false, below)] {
            for &neighbour in self.neighbours(vertex, is_above) {
                let pull = share * self.pull(vertex, neighbour);
                wish.x += pull * self.vertices[neighbour].x;
                wish.weight += pull;
            }
        }
        if wish.weight == 0.0 {
            return Wish { x: self.vertices[vertex].x, weight: 1e-6 };
        }
        Wish { x: wish.x / wish.weight, ..wish }
    }

    /// How much a vertex wants to be above or below a neighbour. A branch is straight before it is near the
    /// main path, and a trunk is straight before its links are.
    fn pull(&self, vertex: usize, neighbour: usize) -> f64 {
        let (vertex, neighbour) = (&self.vertices[vertex], &self.vertices[neighbour]);
        match (neighbour.main, vertex.is_bend && neighbour.is_bend) {
            (true, _) => 1e-5,
            (false, false) => 1.0,
            (false, true) => 8.0,
        }
    }

    /// The top and bottom of each layer; a gap is the higher the further its lines go sideways.
    fn layer_bounds(&self, blocks: &[Block], levels: &[usize]) -> Vec<(f64, f64)> {
        let mut heights = vec![0.0_f64; self.layers.len()];
        for (block, &level) in blocks.iter().zip(levels) {
            heights[level] = heights[level].max(block.height);
        }
        let mut top = 0.0;
        let mut bounds = vec![];
        for (layer, height) in self.layers.iter().zip(heights) {
            let lines = layer.iter().flat_map(|&from| self.vertices[from].below.iter().map(move |&to| (from, to)));
            let sideways = lines.map(|(from, to)| (self.vertices[from].x - self.vertices[to].x).abs());
            let widest = sideways.fold(0.0, f64::max);
            bounds.push((top, top + height));
            top += height + (LAYER_GAP + widest / 12.0).min(LAYER_GAP_MOST);
        }
        bounds
    }
}

/// Where a vertex would best be, and how much it matters.
struct Wish {
    x: f64,
    weight: f64,
}

/// The places nearest to the wishes (in the weighted squares of the distances) with at least the distances
/// given between neighbours: isotonic regression by pooling adjacent violators.
fn nearest(wishes: &[Wish], distances: &[f64]) -> Vec<f64> {
    struct Pool {
        mean: f64,
        weight: f64,
        count: usize,
    }
    let mut offsets = vec![0.0; wishes.len()];
    for index in 1..wishes.len() {
        offsets[index] = offsets[index - 1] + distances[index - 1];
    }
    let mut pools: Vec<Pool> = vec![];
    for (wish, offset) in wishes.iter().zip(&offsets) {
        let mut pool = Pool { mean: wish.x - offset, weight: wish.weight, count: 1 };
        while let Some(left) = pools.pop_if(|left| left.mean > pool.mean) {
            let weight = left.weight + pool.weight;
            let mean = (left.mean * left.weight + pool.mean * pool.weight) / weight;
            pool = Pool { mean, weight, count: left.count + pool.count };
        }
        pools.push(pool);
    }
    let means = pools.iter().flat_map(|pool| std::iter::repeat_n(pool.mean, pool.count));
    means.zip(offsets).map(|(mean, offset)| mean + offset).collect()
}

/// Blocks in the order of a walk from the last one through operands, from the left.
fn first_order(blocks: usize, lines: &[Line]) -> Vec<usize> {
    let mut operands: HashMap<usize, Vec<usize>> = HashMap::new();
    for line in lines {
        operands.entry(line.to).or_default().push(line.from);
    }
    let mut seen = vec![false; blocks];
    let mut order = vec![];
    let mut stack: Vec<usize> = blocks.checked_sub(1).into_iter().collect();
    while let Some(block) = stack.pop() {
        if std::mem::replace(&mut seen[block], true) {
            continue;
        }
        order.push(block);
        stack.extend(operands.get(&block).into_iter().flatten().rev());
    }
    order
}
