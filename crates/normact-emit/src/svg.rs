//! The drawing as a picture, with no other program: parameters and constants stand beside the operation
//! that reads them, everything else in layers from the input down to the result.

use normact_ir::Layer;

use crate::drawing::{BLUE, Drawing, GRAY, Node, Role};
use crate::layers::{Block, Layout, Line, layout};

/// An SVG picture: statistics are boxes, parameters hexagons, constants dashed, the main path from the input to
/// the result a thick straight line. A parameter or constant is drawn at each use; `÷` leads to a divisor, `−`
/// to what is subtracted. The background is white, so that it is read on dark pages too.
///
/// Each node is a group with the numbers of the graph's nodes in `data-node`.
pub fn svg(layer: &Layer) -> String {
    let drawing = Drawing::new(layer);
    let picture = Picture::new(&drawing);
    let legend = Legend::new(&drawing, picture.width());
    let title_width = text_width(&drawing.name, TITLE_SIZE);
    let width = picture.width().max(legend.width).max(title_width) + 2.0 * MARGIN;
    let legend_top = MARGIN + TITLE_HEIGHT + picture.height() + LEGEND_GAP;
    let height = legend_top + legend.height + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"{SIZE}\">\n",
        Number(width.ceil()),
        Number(height.ceil())
    );
    text.push_str(&format!("<title>{}</title>\n", escaped(&drawing.name)));
    text.push_str("<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n");
    text.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" font-size=\"{TITLE_SIZE}\" font-weight=\"bold\" fill=\"#111111\">{}</text>\n",
        Number(MARGIN),
        Number(MARGIN + TITLE_SIZE * BASELINE * 2.0),
        escaped(&drawing.name)
    ));
    let left = (width - picture.width()) / 2.0 - picture.left;
    text.push_str(&format!("<g transform=\"translate({} {})\">\n", Number(left), Number(MARGIN + TITLE_HEIGHT)));
    picture.draw(&mut text);
    text.push_str("</g>\n");
    text.push_str(&format!(
        "<g transform=\"translate({} {})\" font-size=\"{SMALL}\">\n",
        Number(MARGIN),
        Number(legend_top)
    ));
    text.push_str(&legend.text);
    text.push_str("</g>\n</svg>\n");
    text
}

/// The size of the first line of a label.
const SIZE: f64 = 13.0;
/// The size of a sign alone.
const SIGN: f64 = 17.0;
/// The size of its other lines.
const SMALL: f64 = 11.0;
const TITLE_SIZE: f64 = 15.0;
const TITLE_HEIGHT: f64 = 30.0;
const MARGIN: f64 = 16.0;
const LEGEND_GAP: f64 = 26.0;
/// How far below the middle of a letter its baseline is, in sizes.
const BASELINE: f64 = 0.35;
/// The distance of a parameter from its operation.
const BESIDE: f64 = 24.0;
/// The distance of the two places where lines enter an operation; one that comes straight from above enters
/// in the middle.
const PORTS: f64 = 11.0;

/// The size of a line of a label.
fn size(number: usize) -> f64 {
    if number == 0 { SIZE } else { SMALL }
}

/// A shape with a label, around its centre.
struct Shape {
    width: f64,
    height: f64,
}

impl Shape {
    fn of(node: &Node) -> Self {
        let widths = node.lines.iter().enumerate().map(|(number, line)| text_width(line, size(number)));
        let widest = widths.fold(0.0, f64::max);
        let height = 26.0 + 15.0 * (node.lines.len() as f64 - 1.0);
        match node.role {
            Role::End => Self { width: (widest + 28.0).max(48.0), height: 28.0 },
            Role::Statistic => Self { width: widest + 22.0, height: height + 4.0 },
            Role::Param => Self { width: widest + 26.0, height },
            Role::Constant => Self { width: widest + 14.0, height: 24.0 },
            Role::Operation => Self { width: (widest + 18.0).max(30.0), height: 30.0 },
        }
    }
}

/// A drawing with a place for everything.
struct Picture<'a> {
    drawing: &'a Drawing,
    shapes: Vec<Shape>,
    /// The number of each node among the blocks of the layout; `None` for parameters and constants.
    blocks: Vec<Option<usize>>,
    layout: Layout,
    /// Where it begins and ends.
    left: f64,
    right: f64,
}

/// The side of an operation on which its operand of that number stands, if it is a parameter or constant:
/// -1 is left.
fn side(slot: usize) -> f64 {
    if slot == 0 { -1.0 } else { 1.0 }
}

impl<'a> Picture<'a> {
    fn new(drawing: &'a Drawing) -> Self {
        let shapes: Vec<Shape> = drawing.nodes.iter().map(Shape::of).collect();
        let is_leaf = |index: usize| drawing.nodes[index].role.is_leaf();
        let mut numbers = vec![None; drawing.nodes.len()];
        let (mut blocks, mut lines) = (vec![], vec![]);
        for (index, node) in drawing.nodes.iter().enumerate().filter(|(index, _)| !is_leaf(*index)) {
            let half = shapes[index].width / 2.0;
            let mut block = Block { left: half, right: half, height: shapes[index].height };
            for (slot, link) in node.links.iter().enumerate() {
                if let Some(from) = numbers[link.from] {
                    lines.push(Line { from, to: blocks.len(), main: link.main });
                    continue;
                }
                let beside = BESIDE + shapes[link.from].width;
                let reach = if side(slot) < 0.0 { &mut block.left } else { &mut block.right };
                *reach = half + beside;
                block.height = block.height.max(shapes[link.from].height);
            }
            numbers[index] = Some(blocks.len());
            blocks.push(block);
        }
        let layout = layout(&blocks, &lines);
        let edges = |reach: fn(f64, &Block) -> f64| -> Vec<f64> {
            layout.trunks.iter().zip(&blocks).map(|(trunk, block)| reach(trunk[0], block)).collect()
        };
        let bends = || layout.trunks.iter().flatten().copied();
        let left = edges(|x, block| x - block.left).into_iter().chain(bends()).fold(f64::INFINITY, f64::min);
        let right = edges(|x, block| x + block.right).into_iter().chain(bends()).fold(f64::NEG_INFINITY, f64::max);
        Self { drawing, shapes, blocks: numbers, left, right, layout }
    }

    fn width(&self) -> f64 {
        self.right - self.left
    }

    fn height(&self) -> f64 {
        self.layout.layers.last().map_or(0.0, |(_, bottom)| *bottom)
    }

    /// The centre of a node that is not beside another.
    fn center(&self, block: usize) -> (f64, f64) {
        let (top, bottom) = self.layout.layers[self.layout.levels[block]];
        (self.layout.trunks[block][0], (top + bottom) / 2.0)
    }

    fn draw(&self, text: &mut String) {
        let mut lines = Lines::default();
        self.trunks(&mut lines);
        let mut nodes = String::new();
        for (index, node) in self.drawing.nodes.iter().enumerate() {
            let Some(block) = self.blocks[index] else { continue };
            let (x, y) = self.center(block);
            self.links(index, block, &mut lines);
            for (slot, link) in node.links.iter().enumerate().filter(|(_, link)| self.blocks[link.from].is_none()) {
                let side = side(slot);
                let edge = x + side * self.shapes[index].width / 2.0;
                let operand = &self.shapes[link.from];
                lines.level(edge + side * BESIDE, edge, y, link.sign);
                let center = edge + side * (BESIDE + operand.width / 2.0);
                draw_node(&mut nodes, &self.drawing.nodes[link.from], operand, center, y);
            }
            draw_node(&mut nodes, node, &self.shapes[index], x, y);
        }
        lines.draw(text);
        text.push_str(&nodes);
    }

    /// The trunks from bend to bend.
    fn trunks(&self, lines: &mut Lines) {
        for (block, trunk) in self.layout.trunks.iter().enumerate() {
            for (step, &x) in trunk.iter().enumerate().skip(1) {
                self.bend(&mut lines.side, block, step, x);
            }
        }
    }

    /// The path of a block's trunk through a gap and a layer, so many layers below the block.
    fn bend(&self, path: &mut String, block: usize, step: usize, x: f64) {
        let level = self.layout.levels[block] + step;
        self.gap(path, block, level, x);
        path.push_str(&format!("V{}", Number(self.layout.layers[level].1)));
    }

    /// The path of a block's trunk through the gap above a layer, to `x` at the top of the layer.
    fn gap(&self, path: &mut String, block: usize, level: usize, x: f64) {
        let from = self.layout.trunks[block][level - 1 - self.layout.levels[block]];
        let ((_, start), (end, _)) = (self.layout.layers[level - 1], self.layout.layers[level]);
        if level == self.layout.levels[block] + 1 {
            path.push_str(&format!("M{} {}V{}", Number(from), Number(self.center(block).1), Number(start)));
        } else {
            path.push_str(&format!("M{} {}", Number(from), Number(start)));
        }
        let middle = (start + end) / 2.0;
        if (from - x).abs() < 0.05 {
            path.push_str(&format!("V{}", Number(end)));
        } else {
            let [from, x, middle, end] = [from, x, middle, end].map(Number);
            path.push_str(&format!("C{from} {middle} {x} {middle} {x} {end}"));
        }
    }

    /// The lines into a node from above: each from the trunk of its operand.
    fn links(&self, index: usize, block: usize, lines: &mut Lines) {
        let (level, (x, y)) = (self.layout.levels[block], self.center(block));
        let trunk = |from: usize| self.layout.trunks[from][level - 1 - self.layout.levels[from]];
        let links = self.drawing.nodes[index].links.iter();
        let mut links: Vec<_> = links.filter_map(|link| Some((self.blocks[link.from]?, link))).collect();
        links.sort_by(|a, b| trunk(a.0).total_cmp(&trunk(b.0)));
        let on_path = links.iter().position(|(_, link)| link.main);
        let straight = on_path.or_else(|| links.iter().position(|(from, _)| (trunk(*from) - x).abs() < 2.0));
        let middle = straight.map_or((links.len() as f64 - 1.0) / 2.0, |port| port as f64);
        for (place, (from, link)) in links.into_iter().enumerate() {
            let port = (place as f64 - middle) * PORTS;
            let shape = &self.shapes[index];
            let top = y - shape.height / 2.0 + inset(self.drawing.nodes[index].role, shape, port);
            let port = x + port;
            let path = if link.main { &mut lines.main } else { &mut lines.side };
            if link.main {
                let steps = level - self.layout.levels[from];
                for (step, &x) in self.layout.trunks[from][..steps].iter().enumerate().skip(1) {
                    self.bend(path, from, step, x);
                }
            }
            self.gap(path, from, level, port);
            path.push_str(&format!("V{}", Number(top - ARROW)));
            let arrows = if link.main { &mut lines.main_arrows } else { &mut lines.arrows };
            arrows.push_str(&format!("M{} {}l-4 -{ARROW}h8z", Number(port), Number(top)));
            if !link.sign.is_empty() {
                let outward = if port < x { -12.0 } else { 12.0 };
                lines.sign(port + outward, top - 2.0, link.sign);
            }
        }
    }
}

/// How far below the top of a shape its outline is, so far from the middle: an operation has round ends.
fn inset(role: Role, shape: &Shape, from_middle: f64) -> f64 {
    let radius = shape.height / 2.0;
    let beyond = (from_middle.abs() - (shape.width / 2.0 - radius)).max(0.0);
    match role {
        Role::Operation => radius - (radius.powi(2) - beyond.powi(2)).max(0.0).sqrt(),
        Role::End | Role::Statistic | Role::Param | Role::Constant => 0.0,
    }
}

/// The length of an arrowhead.
const ARROW: f64 = 8.0;

/// Paths, arrowheads and signs, each kind as one element.
#[derive(Default)]
struct Lines {
    side: String,
    main: String,
    arrows: String,
    main_arrows: String,
    signs: String,
}

impl Lines {
    /// A level arrow from a parameter or constant.
    fn level(&mut self, from: f64, to: f64, y: f64, sign: &str) {
        let back = (from - to).signum() * ARROW;
        self.side.push_str(&format!("M{} {}H{}", Number(from), Number(y), Number(to + back)));
        self.arrows.push_str(&format!("M{} {}l{} -4v8z", Number(to), Number(y), Number(back)));
        if !sign.is_empty() {
            self.sign((from + to) / 2.0, y - 10.0, sign);
        }
    }

    fn sign(&mut self, x: f64, y: f64, sign: &str) {
        let baseline = y + SIZE * BASELINE;
        self.signs.push_str(&format!("<text x=\"{}\" y=\"{}\">{sign}</text>\n", Number(x), Number(baseline)));
    }

    fn draw(&self, text: &mut String) {
        let mut path = |data: &str, style: &str| {
            if !data.is_empty() {
                text.push_str(&format!("<path {style} d=\"{data}\"/>\n"));
            }
        };
        path(&self.side, &format!("fill=\"none\" stroke=\"{GRAY}\" stroke-width=\"1.4\""));
        path(&self.arrows, &format!("fill=\"{GRAY}\""));
        path(&self.main, &format!("fill=\"none\" stroke=\"{BLUE}\" stroke-width=\"3\""));
        path(&self.main_arrows, &format!("fill=\"{BLUE}\""));
        if !self.signs.is_empty() {
            text.push_str(&format!("<g {SIGN_STYLE}>\n{}</g>\n", self.signs));
        }
    }
}

/// White around a sign keeps it apart from a line.
const SIGN_STYLE: &str = "text-anchor=\"middle\" font-weight=\"bold\" fill=\"#111111\" stroke=\"#ffffff\" \
                          stroke-width=\"3\" paint-order=\"stroke\"";

fn draw_node(text: &mut String, node: &Node, shape: &Shape, x: f64, y: f64) {
    let numbers: Vec<String> = node.stands_for.iter().map(|id| id.index().to_string()).collect();
    let numbers = if numbers.is_empty() { node.key.clone() } else { numbers.join(" ") };
    text.push_str(&format!("<g data-node=\"{numbers}\" data-role=\"{}\">", node.role.name()));
    text.push_str(&format!("<title>{}</title>", escaped(&node.note)));
    draw_shape(text, node.role, shape, x, y);
    let italic = if node.role == Role::Param || node.role == Role::End { " font-style=\"italic\"" } else { "" };
    let first = y - 7.5 * (node.lines.len() as f64 - 1.0);
    for (number, line) in node.lines.iter().enumerate() {
        let is_sign = node.role == Role::Operation && line.chars().count() == 1;
        let size = if is_sign { SIGN } else { size(number) };
        let font = if size == SIZE { String::new() } else { format!(" font-size=\"{size}\"") };
        text.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\"{italic}{font}>{}</text>",
            Number(x),
            Number(first + 15.0 * number as f64 + size * BASELINE),
            escaped(line)
        ));
    }
    text.push_str("</g>\n");
}

fn draw_shape(text: &mut String, role: Role, shape: &Shape, x: f64, y: f64) {
    let (fill, outline) = role.colors();
    let (left, top) = (x - shape.width / 2.0, y - shape.height / 2.0);
    let style = format!("fill=\"{fill}\" stroke=\"{outline}\"");
    let rect = |radius: f64, style: &str| {
        format!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{}\" {style}/>",
            Number(left),
            Number(top),
            Number(shape.width),
            Number(shape.height),
            Number(radius)
        )
    };
    text.push_str(&match role {
        Role::End => rect(shape.height / 2.0, &format!("{style} stroke-width=\"2\"")),
        Role::Operation => rect(shape.height / 2.0, &format!("{style} stroke-width=\"1.4\"")),
        Role::Statistic => rect(0.0, &format!("{style} stroke-width=\"1.6\"")),
        Role::Constant => rect(3.0, &format!("{style} stroke-dasharray=\"3 2\"")),
        Role::Param => {
            let (right, bottom, slant) = (left + shape.width, top + shape.height, 9.0_f64.min(shape.width / 4.0));
            let corners = [
                (left, y),
                (left + slant, top),
                (right - slant, top),
                (right, y),
                (right - slant, bottom),
                (left + slant, bottom),
            ];
            let points: Vec<String> = corners.map(|(x, y)| format!("{},{}", Number(x), Number(y))).to_vec();
            format!("<polygon points=\"{}\" {style} stroke-width=\"1.4\"/>", points.join(" "))
        }
    });
}

/// What the shapes and signs of a picture mean.
struct Legend {
    text: String,
    width: f64,
    height: f64,
}

impl Legend {
    /// Only of what the drawing has; in rows about as wide as the picture.
    fn new(drawing: &Drawing, picture_width: f64) -> Self {
        let (row, most) = (22.0, picture_width.max(360.0));
        let mut legend = Self { text: String::new(), width: 0.0, height: row };
        let mut x = 0.0;
        let mut entry = |draw: &dyn Fn(&mut String, f64, f64), name: &str| {
            let width = 36.0 + text_width(name, SMALL);
            if x + width > most {
                x = 0.0;
                legend.height += row;
            }
            let y = legend.height - row / 2.0;
            draw(&mut legend.text, x, y);
            legend.text.push_str(&format!(
                "<text x=\"{}\" y=\"{}\" fill=\"#333333\">{name}</text>\n",
                Number(x + 30.0),
                Number(y + SMALL * BASELINE)
            ));
            x += width + 16.0;
            legend.width = legend.width.max(x - 16.0);
        };
        let links = || drawing.nodes.iter().flat_map(|node| &node.links);
        for role in Role::ALL.into_iter().filter(|role| drawing.nodes.iter().any(|node| node.role == *role)) {
            let width = if role == Role::Operation { 14.0 } else { 24.0 };
            let shape = Shape { width, height: 14.0 };
            entry(&|text, x, y| draw_shape(text, role, &shape, x + 12.0, y), role.legend());
        }
        if links().any(|link| link.main) {
            let line = |text: &mut String, x: f64, y: f64| {
                let (from, y, to) = (Number(x), Number(y), Number(x + 24.0));
                text.push_str(&format!("<path d=\"M{from} {y}H{to}\" stroke=\"{BLUE}\" stroke-width=\"3\"/>"));
            };
            entry(&line, "main path");
        }
        for (sign, name) in [("÷", "divisor"), ("−", "subtracted")] {
            if links().any(|link| link.sign == sign) {
                let draw = |text: &mut String, x: f64, y: f64| {
                    let (x, y) = (Number(x + 12.0), Number(y + SIZE * BASELINE));
                    text.push_str(&format!(
                        "<text x=\"{x}\" y=\"{y}\" font-size=\"{SIZE}\" {SIGN_STYLE}>{sign}</text>"
                    ));
                };
                entry(&draw, name);
            }
        }
        legend
    }
}

/// How wide a text is at most: the widths of DejaVu Sans, a wide font among those that `sans-serif` may
/// stand for.
fn text_width(text: &str, size: f64) -> f64 {
    let width = |char: char| match char {
        'i' | 'j' | 'l' | '|' | '\'' | ' ' | '.' | ',' | ':' | ';' | '·' => 0.34,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '-' | '/' | '²' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.0,
        'A'..='Z' | '=' | '+' | '×' | '÷' | '−' | '<' | '>' | '~' | '#' | '&' => 0.84,
        char if char.is_ascii() || char == 'σ' || char == '√' => 0.65,
        _ => 1.05,
    };
    text.chars().map(width).sum::<f64>() * size
}

/// Text between tags or in an attribute; characters that XML does not have are replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A coordinate with one decimal at most.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Adding zero turns -0.0 into 0.0.
        write!(f, "{}", (self.0 * 10.0).round() / 10.0 + 0.0)
    }
}
