//! The formula as a paper prints it: fractions, roots, expectations and variances.

use normact_ir::{
    Buffers, Dag, Extent, Groups, IndexSet, Interval, Layer, MomentOp, NodeId, Op, Operands, Param, Prim, Quantity,
    Running, Scalar, ranges,
};

use crate::text::text;

/// A display and what its letters mean, for a document with `amsmath`. Values used more than once, and parts
/// of a formula too long for a line, have lines of their own.
///
/// Products and sums are written without the parentheses that make no difference to a real number, and a
/// number comes before what it multiplies.
pub fn latex(layer: &Layer) -> String {
    let live = layer.dag.live();
    let mut writer = Writer::write(&layer.dag, &live, Values::Numbered);
    if writer.lines.len() == 1 {
        writer = Writer::write(&layer.dag, &live, Values::Single);
    }
    let result = (writer.symbols.letter('y'), writer.of(layer.dag.output()).text.clone());
    let lines: Vec<&(String, String)> = [&result].into_iter().chain(&writer.lines).collect();
    let count = lines.len();
    let mut display = String::from("\\begin{align*}\n");
    for (number, (name, value)) in lines.into_iter().enumerate() {
        let lead = if number == 1 { "\\text{where}\\quad " } else { "" };
        let end = if number + 1 == count { "" } else { " \\\\" };
        display.push_str(&format!("  {lead}{name} &= {value}{end}\n"));
    }
    display.push_str("\\end{align*}\n");
    if count > LINES_OF_A_PAGE {
        display = format!("{{\\allowdisplaybreaks\n{display}}}\n");
    }
    let legend = Legend { writer: &writer, live: &live }.text();
    format!("% {}\n{display}{legend}", comment(&layer.name))
}

/// The widest formula of a line, in letters.
const LINE: usize = 56;
/// The deepest fraction within fractions that can be read.
const FRACTIONS: usize = 2;
/// The widest operand of a statistic.
const OPERAND: usize = 16;
/// The widest value that is written at each of its uses.
const REPEATED: usize = 8;
/// With more lines a display may be broken between pages.
const LINES_OF_A_PAGE: usize = 20;

/// How tightly a formula holds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Sum,
    /// Begins with a minus sign.
    Negative,
    Product,
    Atom,
}

#[derive(Debug, Clone)]
struct Formula {
    text: String,
    level: Level,
    /// How wide it is, in letters.
    width: usize,
    /// Whether its brackets have to grow.
    tall: bool,
    /// How many fractions are within one another.
    fractions: usize,
    /// Whether it is a number, a letter or a name.
    is_symbol: bool,
}

impl Formula {
    fn symbol(text: String, width: usize) -> Self {
        Self { text, level: Level::Atom, width, tall: false, fractions: 0, is_symbol: true }
    }

    /// Made of parts, which it is as tall as.
    fn of(parts: &[&Formula], level: Level, width: usize, text: String) -> Self {
        Self {
            text,
            level,
            width,
            tall: parts.iter().any(|part| part.tall),
            fractions: parts.iter().map(|part| part.fractions).max().unwrap_or(0),
            is_symbol: false,
        }
    }

    fn number(value: Scalar) -> Self {
        let text = value.to_string();
        let width = text.len();
        let (mantissa, exponent) = match text.split_once('e') {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text.as_str(), None),
        };
        let text = match (mantissa, exponent) {
            (mantissa, None) => mantissa.to_owned(),
            ("1", Some(exponent)) => format!("10^{{{exponent}}}"),
            ("-1", Some(exponent)) => format!("-10^{{{exponent}}}"),
            (mantissa, Some(exponent)) => format!("{mantissa} \\cdot 10^{{{exponent}}}"),
        };
        let level = match (value.get() < 0.0, exponent) {
            (true, _) => Level::Negative,
            (false, Some(_)) => Level::Product,
            (false, None) => Level::Atom,
        };
        Self { level, ..Self::symbol(text, width) }
    }

    /// Within brackets that are as high as it is.
    fn fenced(&self, open: char, close: char) -> String {
        if self.tall {
            format!("\\left{open}{}\\right{close}", self.text)
        } else {
            format!("{open}{}{close}", self.text)
        }
    }

    /// The argument of a function, without the space that `\left` makes.
    fn argument(&self, open: char, close: char) -> String {
        let no_space = if self.tall { "\\!" } else { "" };
        no_space.to_owned() + &self.fenced(open, close)
    }

    /// With parentheses, unless it holds together as tightly.
    fn at(&self, level: Level) -> Formula {
        if self.level >= level {
            return self.clone();
        }
        Formula { text: self.fenced('(', ')'), level: Level::Atom, width: self.width + 2, ..self.clone() }
    }

    fn starts_with_digit(&self) -> bool {
        self.text.starts_with(|first: char| first.is_ascii_digit())
    }

    fn plus(&self, other: &Formula) -> Formula {
        let (sign, text) = match other.text.strip_prefix('-') {
            Some(positive) => ("-", positive),
            None => (text(Prim::Add).latex, other.text.as_str()),
        };
        let width = self.width + 3 + other.width;
        Formula::of(&[self, other], Level::Sum, width, format!("{} {sign} {text}", self.text))
    }

    fn negated(&self) -> Formula {
        let inner = self.at(Level::Product);
        let sign = text(Prim::Neg).latex;
        Formula::of(&[&inner], Level::Negative, inner.width + 1, format!("{sign}{}", inner.text))
    }

    fn times(&self, other: &Formula, other_is_number: bool) -> Formula {
        // A number comes first: `2x`.
        let swaps = other_is_number && !self.starts_with_digit() && self.level != Level::Negative;
        let (first, second) = if swaps { (other, self) } else { (self, other) };
        // A product that begins with a minus sign is one still.
        let level = if first.level == Level::Negative { Level::Negative } else { Level::Product };
        let (first, second) = (first.at(Level::Negative), second.at(Level::Product));
        let sign = if second.starts_with_digit() { " \\cdot " } else { text(Prim::Mul).latex };
        let width = first.width + 1 + second.width;
        Formula::of(&[&first, &second], level, width, format!("{}{sign}{}", first.text, second.text))
    }

    fn over(&self, other: &Formula) -> Formula {
        let command = text(Prim::Div).latex;
        let parts = format!("{command}{{{}}}{{{}}}", self.text, other.text);
        let fraction = Formula::of(&[self, other], Level::Product, self.width.max(other.width) + 1, parts);
        Formula { tall: true, fractions: fraction.fractions + 1, ..fraction }
    }

    fn squared(&self) -> Formula {
        let base = self.at(Level::Atom);
        let text = format!("{}{}", base.text, text(Prim::Square).latex);
        Formula::of(&[&base], Level::Product, base.width + 1, text)
    }

    fn root(&self) -> Formula {
        let text = format!("{}{{{}}}", text(Prim::Sqrt).latex, self.text);
        Formula { tall: true, ..Formula::of(&[self], Level::Atom, self.width + 2, text) }
    }

    fn magnitude(&self) -> Formula {
        let bar = text(Prim::Abs).latex;
        let text = format!("\\left{bar}{}\\right{bar}", self.text);
        Formula::of(&[self], Level::Atom, self.width + 2, text)
    }

    /// A function of it, of a name so wide.
    fn under(&self, function: &str, width: usize) -> Formula {
        let text = format!("{function}{}", self.argument('(', ')'));
        Formula::of(&[self], Level::Product, self.width + width + 2, text)
    }
}

/// How values with a line of their own are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// `u_1`, `u_2`.
    Numbered,
    /// There is one, `u`.
    Single,
}

/// What stands for what.
struct Symbols {
    values: Values,
    params: Vec<Formula>,
    names: Vec<String>,
    groups: Vec<Groups>,
    eps: Vec<Scalar>,
}

impl Symbols {
    fn new(dag: &Dag, live: &[bool], values: Values) -> Self {
        let (mut groups, mut eps) = (vec![], vec![]);
        for id in dag.ids().filter(|id| live[id.index()]) {
            let Op::Moment(op) = dag.op(id) else { continue };
            if let IndexSet::Group(of) = op.over()
                && !groups.contains(&of)
            {
                groups.push(of);
            }
            if op.eps() != Scalar::ZERO && !eps.contains(&op.eps()) {
                eps.push(op.eps());
            }
        }
        let mut params: Vec<Formula> = vec![];
        for param in dag.params() {
            let mut symbol = param_symbol(&param.name);
            if params.iter().any(|taken| taken.text == symbol.text) {
                symbol = spelled(&param.name);
            }
            params.push(symbol);
        }
        let names = dag.params().iter().map(|param| param.name.clone()).collect();
        Self { values, params, names, groups, eps }
    }

    /// A letter that is not a parameter's: itself, or a calligraphic capital.
    fn letter(&self, letter: char) -> String {
        if self.names.iter().any(|name| name.starts_with(letter) && param_symbol(name).text.starts_with(letter)) {
            format!("\\mathcal{{{}}}", letter.to_ascii_uppercase())
        } else {
            letter.to_string()
        }
    }

    /// The name of a value with a line of its own.
    fn value(&self, number: usize) -> String {
        let letter = self.letter('u');
        match self.values {
            Values::Numbered => format!("{letter}_{{{number}}}"),
            Values::Single => letter,
        }
    }

    fn is_taken(&self, symbol: &str) -> bool {
        self.params.iter().any(|param| param.text == symbol)
    }

    fn eps(&self, eps: Scalar) -> String {
        let symbol = if self.is_taken("\\epsilon") { "\\mathcal{E}" } else { "\\epsilon" };
        match self.eps.iter().position(|known| *known == eps) {
            Some(number) if self.eps.len() > 1 => format!("{symbol}_{{{}}}", number + 1),
            _ => symbol.to_owned(),
        }
    }

    fn group(&self, groups: Groups) -> String {
        match self.groups.iter().position(|known| *known == groups) {
            Some(number) if self.groups.len() > 1 => format!("{}_{{{}}}", self.letter('g'), number + 1),
            _ => self.letter('g'),
        }
    }

    /// The indices that a statistic averages over.
    fn indices(&self, over: IndexSet) -> String {
        let channels = match over {
            IndexSet::Batch | IndexSet::Instance => None,
            IndexSet::Layer | IndexSet::Channel | IndexSet::All => Some(self.letter('c')),
            IndexSet::Group(groups) => Some(self.group(groups)),
        };
        let samples = over.reduces_samples().then(|| self.letter('n'));
        let positions = over.reduces_positions().then(|| self.letter('s'));
        samples.into_iter().chain(channels).chain(positions).collect::<Vec<_>>().join(",")
    }

    /// A function's command, and its width.
    fn function(&self, prim: Prim) -> (&'static str, usize) {
        let command = text(prim).latex;
        if self.is_taken(command) { ("\\operatorname{sigmoid}", 7) } else { (command, text(prim).sign.chars().count()) }
    }
}

/// Builds formulas from operands to users.
struct Writer<'a> {
    dag: &'a Dag,
    ranges: Vec<Interval>,
    uses: Vec<usize>,
    symbols: Symbols,
    values: Vec<Option<Formula>>,
    /// The names of values, with the values.
    lines: Vec<(String, String)>,
    /// Whether there is a root or a logarithm of what may be negative.
    signed: [bool; 2],
}

impl<'a> Writer<'a> {
    /// Writes every live node.
    fn write(dag: &'a Dag, live: &[bool], values: Values) -> Self {
        let mut uses = vec![0; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            dag.operands(id).iter().for_each(|operand| uses[operand.index()] += 1);
        }
        let mut writer = Self {
            dag,
            ranges: ranges(dag),
            uses,
            symbols: Symbols::new(dag, live, values),
            values: vec![None; dag.len()],
            lines: vec![],
            signed: [false, false],
        };
        dag.ids().filter(|id| live[id.index()]).for_each(|id| writer.visit(id));
        writer
    }

    fn of(&self, id: NodeId) -> &Formula {
        self.values[id.index()].as_ref().unwrap_or_else(|| unreachable!("operands precede their users"))
    }

    fn visit(&mut self, id: NodeId) {
        if let Op::Moment(_) = self.dag.op(id) {
            self.name_operand(id, |operand| operand.width > OPERAND);
        }
        let mut formula = self.formula(id);
        while formula.width > LINE || formula.fractions > FRACTIONS {
            let deep = formula.fractions > FRACTIONS;
            if !self.name_operand(id, |operand| !deep || operand.fractions == FRACTIONS) {
                break;
            }
            formula = self.formula(id);
        }
        let is_repeated = self.uses[id.index()] > 1 && !formula.is_symbol && formula.width > REPEATED;
        self.values[id.index()] = Some(formula);
        if is_repeated && id != self.dag.output() {
            self.name(id);
        }
    }

    /// Names the widest operand of those that call for it; whether there is one.
    fn name_operand(&mut self, id: NodeId, calls: impl Fn(&Formula) -> bool) -> bool {
        let operands = self.dag.operands(id);
        let nameable = operands.iter().filter(|&operand| !self.of(operand).is_symbol && calls(self.of(operand)));
        let widest = nameable.max_by_key(|&operand| self.of(operand).width);
        widest.into_iter().for_each(|operand| self.name(operand));
        widest.is_some()
    }

    /// Gives a value a line of its own.
    fn name(&mut self, id: NodeId) {
        let name = self.symbols.value(self.lines.len() + 1);
        self.lines.push((name.clone(), self.of(id).text.clone()));
        self.values[id.index()] = Some(Formula::symbol(name, 2));
    }

    fn formula(&mut self, id: NodeId) -> Formula {
        match (self.dag.op(id), self.dag.operands(id)) {
            (Op::Input, _) => Formula::symbol(self.symbols.letter('x'), 1),
            (Op::Constant(value), _) => Formula::number(value),
            (Op::Param(param), _) => self.symbols.params[param.index()].clone(),
            (Op::Moment(op), Operands::One(a)) => {
                let average = self.average(op.moment().quantity(), op.over(), self.of(a));
                self.moment(op, average)
            }
            (Op::Prim(prim), Operands::One(a)) => self.unary(prim, a),
            (Op::Prim(prim), Operands::Two(a, b)) => self.binary(prim, a, b),
            (Op::Moment(_) | Op::Prim(_), _) => unreachable!("a graph checks the number of operands"),
        }
    }

    fn average(&self, quantity: Quantity, over: IndexSet, operand: &Formula) -> Formula {
        let (operator, operand) = match quantity {
            Quantity::Mean => ("\\mathrm{E}", operand.clone()),
            Quantity::MeanSquare => ("\\mathrm{E}", operand.squared()),
            Quantity::Variance => ("\\mathrm{Var}", operand.clone()),
        };
        let indices = self.symbols.indices(over);
        let text = format!("{operator}_{{{indices}}}{}", operand.argument('[', ']'));
        Formula::of(&[&operand], Level::Product, operand.width + 6, text)
    }

    fn moment(&self, op: MomentOp, average: Formula) -> Formula {
        if !op.moment().is_root() {
            return average;
        }
        if op.eps() == Scalar::ZERO {
            return average.root();
        }
        average.plus(&Formula::symbol(self.symbols.eps(op.eps()), 1)).root()
    }

    fn unary(&mut self, prim: Prim, operand: NodeId) -> Formula {
        let a = self.of(operand).clone();
        let (command, width) = self.symbols.function(prim);
        let may_be_negative = !self.ranges[operand.index()].is_not_negative();
        match prim {
            Prim::Neg => a.negated(),
            Prim::Square => a.squared(),
            Prim::Abs => a.magnitude(),
            Prim::Sqrt if may_be_negative => {
                self.signed[0] = true;
                a.under(SIGNED_ROOT, 5)
            }
            Prim::Log if may_be_negative => {
                self.signed[1] = true;
                a.under(SIGNED_LOG, 3)
            }
            Prim::Sqrt => a.root(),
            Prim::Log | Prim::Sigmoid | Prim::Tanh | Prim::Exp | Prim::Erf | Prim::Sign => a.under(command, width),
            Prim::Add | Prim::Mul | Prim::Div | Prim::Max => unreachable!("it takes two operands"),
        }
    }

    fn binary(&self, prim: Prim, a: NodeId, b: NodeId) -> Formula {
        let is_number = matches!(self.dag.op(b), Op::Constant(_));
        let (a, b) = (self.of(a), self.of(b));
        match prim {
            Prim::Add => a.plus(b),
            Prim::Mul => a.times(b, is_number),
            Prim::Div => a.over(b),
            Prim::Max => {
                let (command, width) = self.symbols.function(prim);
                let both = Formula::of(&[a, b], Level::Sum, a.width + 2 + b.width, format!("{}, {}", a.text, b.text));
                both.under(command, width)
            }
            Prim::Neg
            | Prim::Sigmoid
            | Prim::Tanh
            | Prim::Exp
            | Prim::Log
            | Prim::Abs
            | Prim::Square
            | Prim::Sqrt
            | Prim::Erf
            | Prim::Sign => unreachable!("it takes one operand"),
        }
    }
}

/// The odd extension of the square root to negative numbers.
const SIGNED_ROOT: &str = "\\operatorname{sqrt}_{\\pm}";
/// The odd extension of the logarithm to negative numbers.
const SIGNED_LOG: &str = "\\ln_{\\pm}";

/// What the letters and signs of a formula mean, as a paragraph.
struct Legend<'a> {
    writer: &'a Writer<'a>,
    live: &'a [bool],
}

impl Legend<'_> {
    fn text(&self) -> String {
        let [root, log] = self.writer.signed;
        let odd = |function: &str, of_magnitude: &str| {
            format!("For negative numbers too, ${function}(a) = \\operatorname{{sign}}(a)\\,{of_magnitude}$.\n")
        };
        let root = root.then(|| odd(SIGNED_ROOT, "\\sqrt{\\left|a\\right|}"));
        let log = log.then(|| odd(SIGNED_LOG, "\\ln\\left|a\\right|"));
        let sentences = [self.statistics(), self.params(), root, log, self.running()];
        sentences.into_iter().flatten().collect()
    }

    fn moments(&self) -> impl Iterator<Item = MomentOp> {
        let dag = self.writer.dag;
        dag.ids().filter(|id| self.live[id.index()]).filter_map(|id| match dag.op(id) {
            Op::Moment(op) => Some(op),
            Op::Input | Op::Constant(_) | Op::Param(_) | Op::Prim(_) => None,
        })
    }

    fn statistics(&self) -> Option<String> {
        let symbols = &self.writer.symbols;
        let is_variance = |op: MomentOp| op.moment().quantity() == Quantity::Variance;
        let what = match (self.moments().any(|op| !is_variance(op)), self.moments().any(is_variance)) {
            (false, false) => return None,
            (true, false) => "$\\mathrm{E}$ is the mean",
            (false, true) => "$\\mathrm{Var}$ is the population variance",
            (true, true) => "$\\mathrm{E}$ and $\\mathrm{Var}$ are the mean and the population variance",
        };
        let over = |axis: fn(IndexSet) -> bool| self.moments().any(|op| axis(op.over()));
        let plain = |letter, meaning: &str| format!("${}$, the {meaning}", symbols.letter(letter));
        let samples = over(IndexSet::reduces_samples).then(|| plain('n', "samples"));
        let channels = over(|set| matches!(set, IndexSet::Layer | IndexSet::Channel | IndexSet::All))
            .then(|| plain('c', "channels"));
        let groups = symbols.groups.iter().map(|&groups| {
            let number = match groups {
                Groups::AtMost(count) => format!("at most ${count}$ groups of equal size"),
                Groups::Exactly(count) => format!("${count}$ groups"),
            };
            format!("${}$, the channels of one of {number}", symbols.group(groups))
        });
        let positions = over(IndexSet::reduces_positions).then(|| plain('s', "positions"));
        let indices: Vec<String> = samples.into_iter().chain(channels).chain(groups).chain(positions).collect();
        let eps = symbols.eps.iter().map(|&eps| format!("; ${} = {}$", symbols.eps(eps), Formula::number(eps).text));
        let eps: String = eps.collect();
        Some(format!("Here {what} over the indices below it: {}{eps}.\n", indices.join("; ")))
    }

    fn params(&self) -> Option<String> {
        let dag = self.writer.dag;
        let is_used = |number: usize| {
            dag.ids()
                .any(|id| self.live[id.index()] && matches!(dag.op(id), Op::Param(param) if param.index() == number))
        };
        let used: Vec<(usize, &Param)> =
            dag.params().iter().enumerate().filter(|(number, _)| is_used(*number)).collect();
        let of = |extent: Extent, values: &str| {
            let params = used.iter().filter(|(_, param)| param.extent == extent);
            let list: Vec<String> = params
                .map(|(number, param)| {
                    let symbol = &self.writer.symbols.params[*number].text;
                    format!("${symbol}$ (starts at ${}$)", Formula::number(param.init).text)
                })
                .collect();
            (!list.is_empty()).then(|| format!("Parameters with {values}: {}.\n", list.join(", ")))
        };
        let sentences = [of(Extent::PerChannel, "one value per channel"), of(Extent::Scalar, "one value in all")];
        let sentences: String = sentences.into_iter().flatten().collect();
        (!sentences.is_empty()).then_some(sentences)
    }

    fn running(&self) -> Option<String> {
        let buffers = Buffers::of(self.writer.dag);
        let sentences = buffers.list().iter().map(|buffer| {
            let average = self.writer.average(buffer.quantity, buffer.over, self.writer.of(buffer.operand)).text;
            let unbiased = match buffer.tracking.running {
                Running::Unbiased => ", of unbiased variances",
                Running::Biased => "",
            };
            let momentum = Formula::number(buffer.tracking.momentum).text;
            format!(
                "In evaluation, ${average}$ is the running average \\texttt{{{}}}{unbiased} (momentum ${momentum}$, \
                 the weight of a new value).\n",
                escaped(&buffer.name)
            )
        });
        let sentences: String = sentences.collect();
        (!sentences.is_empty()).then_some(sentences)
    }
}

/// The Greek letters that LaTeX has commands for.
const GREEK: &[&str] = &[
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi",
    "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
];

/// The name of a parameter: `gamma` is a Greek letter, `v0`, `v_0` and `v_max` have an index, any other word
/// is spelled.
fn param_symbol(name: &str) -> Formula {
    let plain = |part: &str| !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric());
    let digits = name.len() - name.trim_end_matches(|char: char| char.is_ascii_digit()).len();
    let (stem, index) = match name.split_once('_') {
        Some(parts) => parts,
        None => name.split_at(name.len() - digits),
    };
    let is_letter = stem.len() == 1 && stem.chars().all(|char| char.is_ascii_alphabetic());
    let is_greek = GREEK.contains(&stem);
    if !(is_letter || is_greek) || !(index.is_empty() || plain(index)) || (index.is_empty() && name != stem) {
        return spelled(name);
    }
    let stem = if is_greek { format!("\\{stem}") } else { stem.to_owned() };
    if index.is_empty() {
        return Formula::symbol(stem, 1);
    }
    let is_short = index.len() == 1 || index.chars().all(|char| char.is_ascii_digit());
    let text = if is_short { format!("{stem}_{{{index}}}") } else { format!("{stem}_{{\\mathit{{{index}}}}}") };
    Formula::symbol(text, 1 + index.len())
}

/// A name as it is, in italics.
fn spelled(name: &str) -> Formula {
    Formula::symbol(format!("\\mathit{{{}}}", escaped(name)), name.chars().count())
}

/// Text with what LaTeX would take for a command.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '_' | '{' | '}' | '$' | '&' | '#' | '%' => {
                escaped.push('\\');
                escaped.push(char);
            }
            '\\' => escaped.push_str("\\text{\\textbackslash}"),
            '^' => escaped.push_str("\\text{\\textasciicircum}"),
            '~' => escaped.push_str("\\text{\\textasciitilde}"),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

/// A text within one line of a comment.
fn comment(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}
