//! Drawings and formulas of layers: golden files for the built-in ones, and what holds of every graph.
//! `UPDATE_EXPECT=1` writes the golden files anew.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use expect_test::expect_file;
use normact_emit::{dot, latex, mermaid, svg};
use normact_ir::random::Space;
use normact_ir::{Builder, Dag, Extent, Layer, Op, Operands, Param, Prim, Scalar};
use normact_syntax::{Overrides, Source, compile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use roxmltree::{Document, Node};

type Form = fn(&Layer) -> String;

const FORMS: [(&str, &str, Form); 4] =
    [("dot", "dot", dot), ("latex", "tex", latex), ("mermaid", "mmd", mermaid), ("svg", "svg", svg)];

fn layer(text: &str) -> Layer {
    let analysis = compile(&Source::new("test", text), &Overrides::default());
    assert!(!analysis.has_errors(), "{:?}", analysis.diagnostics);
    analysis.layers.into_iter().next().expect("the text has a layer").layer
}

fn built_in() -> Vec<Layer> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../grammar/layers");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| layer(&fs::read_to_string(path).unwrap())).collect()
}

/// A graph in which nearly every node is alive: each operation reads the one before, and if it takes two
/// operands, one of the last `window` nodes.
fn dense(seed: u64, nodes: usize, window: usize) -> Layer {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let space = Space::language();
    let mut builder = Builder::new();
    let scale = Param { name: "scale".to_owned(), extent: Extent::Scalar, init: Scalar::ONE };
    let scale = builder.declare(scale).unwrap();
    builder.append(Op::Param(scale), Operands::None).unwrap();
    builder.append(Op::Constant(Scalar::new(-0.5).unwrap()), Operands::None).unwrap();
    let mut last = builder.input();
    for _ in 0..nodes {
        let op = space.ops[rng.random_range(0..space.ops.len())];
        let earlier = builder.len() - 1 - rng.random_range(0..builder.len().min(window));
        let earlier = builder.node(earlier).unwrap();
        let both = if rng.random() { Operands::Two(earlier, last) } else { Operands::Two(last, earlier) };
        let operands = if op.operand_count() == 1 { Operands::One(last) } else { both };
        last = builder.append(op, operands).unwrap();
    }
    Layer { name: "dense".to_owned(), dag: builder.finish(last) }
}

/// Graphs of every kind: 300 random ones and 100 dense ones, with the seed.
fn graphs() -> impl Iterator<Item = (u64, Layer)> {
    let draw = |space: Space| move |seed| (seed, space.draw(&mut ChaCha8Rng::seed_from_u64(seed)));
    let small = (0..100).map(draw(Space::evonorm()));
    let language = (100..200).map(draw(Space::language()));
    let large = (200..300).map(draw(Space { nodes: 60, ..Space::language() }));
    small.chain(language).chain(large).chain((300..400).map(|seed| (seed, dense(seed, 25, 6))))
}

#[test]
fn built_in_layers_are_drawn_like_this() {
    for layer in built_in() {
        for (folder, ending, form) in FORMS {
            let path = format!("{}/tests/golden/{folder}/{}.{ending}", env!("CARGO_MANIFEST_DIR"), layer.name);
            expect_file![path].assert_eq(&form(&layer));
        }
    }
}

#[test]
fn a_drawing_is_the_same_every_time() {
    for (seed, layer) in graphs() {
        for (name, _, form) in FORMS {
            assert_eq!(form(&layer), form(&layer), "{name}, seed {seed}");
        }
    }
}

/// What is drawn for each live node: itself once, or a parameter or constant for each use.
fn expected(dag: &Dag) -> Vec<String> {
    let live = dag.live();
    let is_leaf = |op| matches!(op, Op::Param(_) | Op::Constant(_));
    let mut expected = vec!["y".to_owned()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        if !is_leaf(dag.op(id)) {
            expected.push(id.index().to_string());
        }
        let leaves = dag.operands(id).iter().filter(|operand| is_leaf(dag.op(*operand)));
        expected.extend(leaves.map(|leaf| leaf.index().to_string()));
    }
    if is_leaf(dag.op(dag.output())) {
        expected.push(dag.output().index().to_string());
    }
    expected.sort();
    expected
}

fn groups<'a>(document: &'a Document) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.attribute("data-node").is_some()).collect()
}

#[test]
fn every_live_node_is_drawn_once_or_at_each_use() {
    for (seed, layer) in graphs() {
        let picture = svg(&layer);
        let document = Document::parse(&picture).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let numbers = groups(&document).into_iter().filter_map(|group| group.attribute("data-node"));
        let mut drawn: Vec<String> = numbers.flat_map(str::split_whitespace).map(str::to_owned).collect();
        drawn.sort();
        assert_eq!(drawn, expected(&layer.dag), "seed {seed}");
        let shapes = groups(&document).len();
        let lines = |text: &str, part: &str| text.lines().filter(|line| line.contains(part)).count();
        assert_eq!(lines(&dot(&layer), "shape="), shapes, "seed {seed}");
        assert_eq!(lines(&mermaid(&layer), ":::"), shapes, "seed {seed}");
    }
}

/// Left, top, right, bottom.
#[derive(Debug, Clone, Copy)]
struct Bounds([f64; 4]);

impl Bounds {
    /// Of a node of the picture.
    fn of(group: Node) -> Self {
        let shape = group.children().find(|child| child.has_tag_name("rect") || child.has_tag_name("polygon")).unwrap();
        if shape.has_tag_name("rect") {
            let [x, y, width, height] =
                ["x", "y", "width", "height"].map(|name| number(shape.attribute(name).unwrap()));
            return Self([x, y, x + width, y + height]);
        }
        let corners = shape.attribute("points").unwrap().split(' ').map(|corner| corner.split_once(',').unwrap());
        let corners: Vec<(f64, f64)> = corners.map(|(x, y)| (number(x), number(y))).collect();
        let least = |values: fn(&(f64, f64)) -> f64| corners.iter().map(values).fold(f64::INFINITY, f64::min);
        let most = |values: fn(&(f64, f64)) -> f64| corners.iter().map(values).fold(f64::NEG_INFINITY, f64::max);
        Self([least(|c| c.0), least(|c| c.1), most(|c| c.0), most(|c| c.1)])
    }

    fn overlaps(self, other: Self) -> bool {
        let (Self([left, top, right, bottom]), Self(other)) = (self, other);
        left < other[2] && other[0] < right && top < other[3] && other[1] < bottom
    }

    /// Whether a point is inside by more than `margin`.
    fn holds(self, (x, y): (f64, f64), margin: f64) -> bool {
        let Self([left, top, right, bottom]) = self;
        x > left + margin && x < right - margin && y > top + margin && y < bottom - margin
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not a number"))
}

#[test]
fn no_two_shapes_overlap() {
    for (seed, layer) in graphs() {
        let picture = svg(&layer);
        let document = Document::parse(&picture).unwrap();
        let bounds: Vec<Bounds> = groups(&document).into_iter().map(Bounds::of).collect();
        for (index, first) in bounds.iter().enumerate() {
            for second in &bounds[..index] {
                assert!(!first.overlaps(*second), "seed {seed}: {first:?}, {second:?}");
            }
        }
    }
}

/// Points along a path of the commands `M V H C`, each piece of the path apart.
fn pieces(path: &str) -> Vec<Vec<(f64, f64)>> {
    let mut pieces: Vec<Vec<(f64, f64)>> = vec![];
    let mut at = (0.0, 0.0);
    let mut rest = path;
    while let Some(command) = rest.chars().next() {
        let end = rest[1..].find(|char: char| char.is_ascii_alphabetic()).map_or(rest.len(), |end| end + 1);
        let numbers: Vec<f64> = rest[1..end].split(' ').map(number).collect();
        let line = |to: (f64, f64)| -> Vec<(f64, f64)> {
            (1..=20)
                .map(|step| f64::from(step) / 20.0)
                .map(|t| (at.0 + t * (to.0 - at.0), at.1 + t * (to.1 - at.1)))
                .collect()
        };
        let points = match (command, numbers.as_slice()) {
            ('M', &[x, y]) => {
                pieces.push(vec![]);
                vec![(x, y)]
            }
            ('V', &[y]) => line((at.0, y)),
            ('H', &[x]) => line((x, at.1)),
            ('C', &[x1, y1, x2, y2, x3, y3]) => (1..=20)
                .map(|step| f64::from(step) / 20.0)
                .map(|t| {
                    let [a, b, c, d] =
                        [(1.0 - t).powi(3), 3.0 * t * (1.0 - t).powi(2), 3.0 * t * t * (1.0 - t), t.powi(3)];
                    (a * at.0 + b * x1 + c * x2 + d * x3, a * at.1 + b * y1 + c * y2 + d * y3)
                })
                .collect(),
            _ => panic!("the path has `{}`", &rest[..end]),
        };
        at = points[points.len() - 1];
        pieces.last_mut().expect("a path begins with M").extend(points);
        rest = &rest[end..];
    }
    pieces
}

#[test]
fn lines_go_around_shapes() {
    for (seed, layer) in graphs() {
        let picture = svg(&layer);
        let document = Document::parse(&picture).unwrap();
        let bounds: Vec<Bounds> = groups(&document).into_iter().map(Bounds::of).collect();
        let paths = document.descendants().filter(|node| node.attribute("fill") == Some("none"));
        for piece in paths.flat_map(|path| pieces(path.attribute("d").unwrap())) {
            // A line begins in the middle of its shape and is covered by it.
            let start = bounds.iter().position(|shape| shape.holds(piece[0], 0.0));
            for (index, shape) in bounds.iter().enumerate().filter(|(index, _)| Some(*index) != start) {
                let inside = piece.iter().find(|point| shape.holds(**point, 0.5));
                assert!(inside.is_none(), "seed {seed}: a line meets shape {index} at {inside:?}");
            }
        }
    }
}

#[test]
fn formulas_are_balanced() {
    for (seed, layer) in graphs() {
        let text = latex(&layer);
        let unescaped = text.replace("\\{", "").replace("\\}", "");
        let mut depth = 0;
        for char in unescaped.chars() {
            depth += i32::from(char == '{') - i32::from(char == '}');
            assert!(depth >= 0, "seed {seed}: {text}");
        }
        assert_eq!(depth, 0, "seed {seed}: {text}");
        for line in text.lines() {
            assert_eq!(line.matches("\\left").count(), line.matches("\\right").count(), "seed {seed}: {line}");
            assert_eq!(line.matches('$').count() % 2, 0, "seed {seed}: {line}");
            let count = |bracket| line.matches(bracket).count();
            assert_eq!((count('('), count('[')), (count(')'), count(']')), "seed {seed}: {line}");
            assert!(!line.contains("--") && !line.contains("+ -"), "seed {seed}: {line}");
        }
    }
}

/// How wide the formula of a line is at most: letters and digits, and one for each command.
fn letters(line: &str) -> usize {
    let mut plain = line.replace("\\left", "").replace("\\right", "").replace("\\!", "").replace("\\,", "");
    for word in ["mathrm", "operatorname", "mathit", "text", "quad"] {
        plain = plain.replace(word, "");
    }
    plain.chars().filter(|char| char.is_alphanumeric()).count()
}

#[test]
fn formulas_fit_a_line() {
    for (seed, layer) in graphs() {
        let text = latex(&layer);
        for line in text.lines().filter(|line| line.contains("&=")) {
            // Both parts of a fraction count here, where a reader sees one above the other.
            assert!(letters(line) <= 130, "seed {seed}: {line}");
        }
    }
}

#[test]
fn large_graphs_are_drawn_within_a_second() {
    for layer in [dense(1, 2000, 3), dense(2, 2000, 30), dense(3, 2000, 2000)] {
        for (name, _, form) in FORMS {
            // The machine may be busy with something else once, and seldom three times.
            let times = (0..3).map(|_| {
                let start = Instant::now();
                assert!(!form(&layer).is_empty());
                start.elapsed()
            });
            let fastest = times.min().unwrap_or_default();
            assert!(fastest < Duration::from_secs(1), "{name}: {fastest:?}");
        }
    }
}

/// A layer with names that the language does not allow, and other programs may.
fn named(name: &str) -> Layer {
    let mut builder = Builder::new();
    let param = Param { name: name.to_owned(), extent: Extent::PerChannel, init: Scalar::ONE };
    let param = builder.declare(param).unwrap();
    let (x, param) = (builder.input(), builder.intern(Op::Param(param), Operands::None));
    let product = builder.binary(Prim::Mul, x, param);
    Layer { name: name.to_owned(), dag: builder.finish(product) }
}

#[test]
fn names_with_special_characters_are_escaped() {
    let name = "a\"<b> & {c}_\\d$%#^~|`\n\u{1}é";
    let layer = named(name);
    let picture = svg(&layer);
    let document = Document::parse(&picture).unwrap();
    let labels: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    assert!(labels.contains(&"a\"<b> & {c}_\\d$%#^~|`\u{fffd}\u{fffd}é"), "{labels:?}");
    let symbol =
        r#"\mathit{a"<b> \& \{c\}\_\text{\textbackslash}d\$\%\#\text{\textasciicircum}\text{\textasciitilde}|`  é}"#;
    assert!(latex(&layer).contains(&format!("y &= x\\,{symbol}\n")), "{}", latex(&layer));
    assert!(dot(&layer).contains(r#"[label="a\"<b> & {c}_\\d$%#^~|`\n"#), "{}", dot(&layer));
    let label = r#"["a#34;#60;b#62; #38; #123;c#125;_#92;d#36;#37;#35;#94;#126;#124;#96;#10;#1;é"]"#;
    assert!(mermaid(&layer).contains(&format!("{{{{{}}}}}", &label[1..label.len() - 1])), "{}", mermaid(&layer));
}

#[test]
fn parameters_have_the_letters_they_are_spelled_with() {
    let check = |name: &str, symbol: &str| {
        let text = latex(&named(name));
        assert!(text.contains(&format!("\\,{symbol}\n")), "{name}: {text}");
    };
    check("gamma", "\\gamma");
    check("Omega", "\\Omega");
    check("v", "v");
    check("v0", "v_{0}");
    check("tau_12", "\\tau_{12}");
    check("v_max", "v_{\\mathit{max}}");
    check("scale", "\\mathit{scale}");
    check("scale_2", "\\mathit{scale\\_2}");
    check("_a", "\\mathit{\\_a}");
}

#[test]
fn letters_that_parameters_take_are_not_used_for_anything_else() {
    let text = latex(&layer(
        "layer l(z, eps = 1e-3) {
            param x = 1
            param u = 1
            param s = 1
            param sigma = 1
            let t = std[instance](x * z + u)
            sigmoid(t) * s + t * sigma
        }",
    ));
    assert!(
        text.contains("\\mathcal{U} &= \\sqrt{\\mathrm{Var}_{\\mathcal{S}}[x\\,\\mathcal{X} + u] + \\epsilon}"),
        "{text}"
    );
    assert!(text.contains("y &= \\operatorname{sigmoid}(\\mathcal{U})\\,s + \\mathcal{U}\\,\\sigma"), "{text}");
}

#[test]
fn formulas_have_the_parentheses_they_need() {
    let check = |formula: &str, expected: &str| {
        let text = latex(&layer(&format!("layer l(x) {{\n param a = 1\n param b = 2\n {formula} + 0 * a * b\n}}")));
        assert!(text.contains(&format!("y &= {expected} + 0\\,a\\,b\n")), "{text}");
    };
    check("x - (a - b)", "x - (a - b)");
    check("x + (a - b)", "x + a - b");
    check("x * (a + b)", "x\\,(a + b)");
    check("-(x + a)", "-(x + a)");
    check("-x * a", "-x\\,a");
    check("x * -a", "x\\,(-a)");
    check("x * 2 * 3", "2\\,x \\cdot 3");
    check("x - -2", "x - (-2)");
    check("x + -2", "x - 2");
    check("(x / a) / b", "\\frac{\\frac{x}{a}}{b}");
    check("square(x + a)", "(x + a)^{2}");
    check("square(x) * a", "x^{2}\\,a");
    check("abs(x / a)", "\\left|\\frac{x}{a}\\right|");
    check("sqrt(abs(x))", "\\sqrt{\\left|x\\right|}");
    check("sqrt(x)", "\\operatorname{sqrt}_{\\pm}(x)");
    check("log(exp(x))", "\\ln(\\exp(x))");
    check("tanh(x / a)", "\\tanh\\!\\left(\\frac{x}{a}\\right)");
    check("2.5e-7 * x", "2.5 \\cdot 10^{-7}\\,x");
}
