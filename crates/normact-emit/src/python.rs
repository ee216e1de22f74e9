//! What the targets in Python have in common: names, numbers, expressions, and the order of statements.
//!
//! Constants are computed here: Python would compute them again in every pass, and stop at a division by
//! zero. So a step can turn out to be a number, or to be another value: the mean of a single element.

use normact_ir::{Buffer, Channels, Dag, Groups, IndexSet, Layer, Op, Operands, Prim, Quantity, Scalar, infer};

use crate::emit::{EmitError, Options};
use crate::outline::{Average, Expr, Outline, Value};
use crate::text::{Text, text};

/// The words of Python that cannot be names.
pub(crate) const KEYWORDS: &[&str] = &[
    "False",
    "None",
    "True",
    "__debug__",
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
];

/// Columns of a line, beyond which an expression is broken at its operators.
const WIDTH: usize = 110;

/// How a library of tensors spells what an outline is made of.
pub(crate) struct Library {
    /// Its column of the primitive table.
    pub(crate) text: fn(Text) -> &'static str,
    /// The square root of what is not negative.
    pub(crate) sqrt: &'static str,
    /// A number, where a function takes arrays alone.
    pub(crate) array: fn(&str) -> String,
    /// The number beyond all numbers.
    pub(crate) infinity: &'static str,
    /// The number that is none.
    pub(crate) nan: &'static str,
    /// What is true in training.
    pub(crate) training: &'static str,
}

/// A function that a file brings with it if it calls it.
pub(crate) struct Helper {
    pub(crate) name: &'static str,
    pub(crate) definition: &'static str,
}

impl Helper {
    /// Whether the code calls it.
    fn is_called(&self, code: &str) -> bool {
        let is_name = |char: char| char.is_alphanumeric() || char == '_' || char == '.';
        code.match_indices(&format!("{}(", self.name)).any(|(at, _)| !code[..at].ends_with(is_name))
    }
}

/// The definitions of the helpers that the code calls, with two empty lines after each.
pub(crate) fn definitions(helpers: &[Helper], code: &str) -> String {
    let called = helpers.iter().filter(|helper| helper.is_called(code));
    called.map(|helper| format!("{}\n\n\n", helper.definition)).collect()
}

/// The local variable of each parameter: its name, with underscores after it where the function uses that
/// name for something else.
pub(crate) fn locals(dag: &Dag, reserved: &[&str]) -> Vec<String> {
    let names: Vec<&str> = dag.params().iter().map(|param| param.name.as_str()).collect();
    let mut locals: Vec<String> = vec![];
    for name in &names {
        let mut local = (*name).to_owned();
        while reserved.contains(&&*local) || (local != *name && names.contains(&&*local)) || locals.contains(&local) {
            local.push('_');
        }
        locals.push(local);
    }
    locals
}

/// Refuses a layer that would have a name of `taken`.
///
/// # Errors
/// It does.
pub(crate) fn refuse(name: &str, taken: &[&str], target: &'static str) -> Result<(), EmitError> {
    if taken.contains(&name) { Err(EmitError::Collision { name: name.to_owned(), target }) } else { Ok(()) }
}

/// The parameters that the result depends on, by their numbers.
pub(crate) fn live_params(dag: &Dag) -> Vec<bool> {
    let live = dag.live();
    let mut used = vec![false; dag.params().len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        if let Op::Param(param) = dag.op(id) {
            used[param.index()] = true;
        }
    }
    used
}

/// The groups that moments of the layer ask for, each once.
pub(crate) struct GroupCounts {
    /// Exact numbers.
    pub(crate) exact: Vec<u32>,
    /// The most there may be, with the variable that holds how many there are.
    pub(crate) at_most: Vec<(u32, String)>,
}

impl GroupCounts {
    pub(crate) fn of(dag: &Dag) -> Self {
        let mut counts = Self { exact: vec![], at_most: vec![] };
        let (axes, live) = (infer(dag), dag.live());
        for id in dag.ids().filter(|id| live[id.index()]) {
            let (Op::Moment(op), Operands::One(operand)) = (dag.op(id), dag.operands(id)) else { continue };
            let IndexSet::Group(groups) = op.over() else { continue };
            match groups {
                Groups::Exactly(count) => {
                    if !counts.exact.contains(&count.get()) {
                        counts.exact.push(count.get());
                    }
                }
                // A value without channels has one group.
                Groups::AtMost(_) if axes[operand.index()].channels == Channels::One => {}
                Groups::AtMost(most) => {
                    if counts.at_most.iter().all(|(known, _)| *known != most.get()) {
                        let number = counts.at_most.len() + 1;
                        let name = if number == 1 { "groups".to_owned() } else { format!("groups_{number}") };
                        counts.at_most.push((most.get(), name));
                    }
                }
            }
        }
        counts
    }

    /// The number of groups of an average, if it does not reduce all channels alike: a number, or a variable
    /// with what is before its name.
    pub(crate) fn text(&self, average: &Average, prefix: &str) -> Option<String> {
        match average.over {
            IndexSet::Group(groups) if average.reduced()[1] => match groups {
                Groups::Exactly(count) => Some(count.to_string()),
                Groups::AtMost(most) => {
                    let known = self.at_most.iter().find(|(known, _)| *known == most.get());
                    known.map(|(_, name)| format!("{prefix}{name}"))
                }
            },
            _ => None,
        }
    }
}

/// A finite number as Python has it, a whole one without a point.
pub(crate) fn number(value: f64) -> String {
    // Whole numbers are integers in Python, and the integers of a library have 32 bits.
    match Scalar::new(value) {
        Some(scalar) if value.abs() < 1e9 => scalar.to_string(),
        _ => format!("{value:e}"),
    }
}

/// The documentation at the top of a file, with the text that the layer comes from.
pub(crate) fn module_doc(layer: &Layer, options: &Options, target: &str) -> String {
    let name = &layer.name;
    match &options.source {
        Some(source) => {
            let lines: String = source.trim_matches('\n').lines().map(quoted).collect();
            format!("\"\"\"The layer `{name}` for {target}, emitted by normact from this formula:\n\n{lines}\"\"\"\n\n")
        }
        None => format!("\"\"\"The layer `{name}` for {target}, emitted by normact.\"\"\"\n\n"),
    }
}

/// A line of text as one of a docstring.
fn quoted(line: &str) -> String {
    let line = line.trim_end().replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"").replace('\t', "    ");
    let printable = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    let text: String = line.chars().map(printable).collect();
    if text.is_empty() { "\n".to_owned() } else { format!("    {text}\n") }
}

/// A function or method with its lines at an indentation, empty ones left empty.
pub(crate) fn definition(signature: &str, lines: &[String], indent: usize) -> String {
    let indented = |line: &String| match line.as_str() {
        "" => "\n".to_owned(),
        line => format!("{:indent$}    {line}\n", ""),
    };
    let body: String = lines.iter().map(indented).collect();
    format!("{:indent$}def {signature}:\n{body}", "")
}

/// How tightly an expression holds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Sum,
    Product,
    Sign,
    Atom,
}

/// What a step is, if it needs no statement.
enum Known {
    Number(f64),
    Same(Expr),
}

/// The statements that one average, or a mean and a variance of the same elements, are made of.
#[derive(Default)]
pub(crate) struct Statistic {
    /// From the elements.
    pub(crate) compute: Vec<String>,
    /// How running averages are moved in training.
    pub(crate) update: Vec<String>,
    /// From the running averages.
    pub(crate) read: Vec<String>,
}

/// The body of the function that a layer is.
pub(crate) struct Body<'a> {
    outline: &'a Outline<'a>,
    library: &'a Library,
    /// The local variable of each parameter.
    locals: &'a [String],
    known: Vec<Option<Known>>,
}

impl<'a> Body<'a> {
    pub(crate) fn new(outline: &'a Outline<'a>, library: &'a Library, locals: &'a [String]) -> Self {
        let mut body = Self { outline, library, locals, known: vec![] };
        for step in &outline.steps {
            let known = body.known(&step.value);
            body.known.push(known);
        }
        body
    }

    fn known(&self, value: &Value) -> Option<Known> {
        match value {
            Value::Expr(expr) => self.constant(expr).map(Known::Number),
            Value::Average(average) => match (self.constant(&average.operand), average.quantity) {
                (Some(value), Quantity::Mean) => Some(Known::Number(value)),
                (Some(value), Quantity::MeanSquare) => Some(Known::Number(value * value)),
                (Some(value), Quantity::Variance) if value.is_finite() => Some(Known::Number(0.0)),
                (Some(_), Quantity::Variance) => Some(Known::Number(f64::NAN)),
                (None, Quantity::Mean) if is_single(average) => Some(Known::Same(average.operand.clone())),
                (None, _) => None,
            },
        }
    }

    /// The value of an expression of numbers alone.
    pub(crate) fn constant(&self, expr: &Expr) -> Option<f64> {
        match expr {
            Expr::Input | Expr::Param(_) => None,
            Expr::Constant(value) => Some(value.get()),
            Expr::Step(step) => match self.known[*step].as_ref()? {
                Known::Number(value) => Some(*value),
                Known::Same(expr) => self.constant(expr),
            },
            Expr::Unary(prim, a) => Some(prim.value(self.constant(a)?, 0.0)),
            Expr::Binary(prim, a, b) => Some(prim.value(self.constant(a)?, self.constant(b)?)),
            Expr::Root(average, eps) => Some((self.constant(average)? + eps.get()).sqrt()),
        }
    }

    /// A number, whichever it is.
    pub(crate) fn number(&self, value: f64) -> String {
        match value {
            value if value.is_nan() => self.library.nan.to_owned(),
            value if value.is_finite() => number(value),
            value if value > 0.0 => self.library.infinity.to_owned(),
            _ => format!("-{}", self.library.infinity),
        }
    }

    /// An expression in one line.
    pub(crate) fn expr(&self, expr: &Expr) -> String {
        self.bound(expr).0
    }

    /// The same, in brackets unless it holds together at least so tightly.
    fn within(&self, expr: &Expr, least: Binding) -> String {
        let (text, binding) = self.bound(expr);
        if binding >= least { text } else { format!("({text})") }
    }

    fn bound(&self, expr: &Expr) -> (String, Binding) {
        if let Some(value) = self.constant(expr) {
            let text = self.number(value);
            let binding = if text.starts_with('-') { Binding::Sign } else { Binding::Atom };
            return (text, binding);
        }
        match expr {
            Expr::Constant(_) => unreachable!("a constant is a number"),
            Expr::Input => ("x".to_owned(), Binding::Atom),
            Expr::Param(param) => (self.locals[param.index()].clone(), Binding::Atom),
            Expr::Step(step) => match &self.known[*step] {
                Some(Known::Same(expr)) => self.bound(expr),
                Some(Known::Number(_)) | None => (self.outline.steps[*step].name.clone(), Binding::Atom),
            },
            Expr::Root(average, eps) => {
                let average = self.within(average, Binding::Sum);
                let radicand = if *eps == Scalar::ZERO { average } else { format!("{average} + {eps}") };
                // With a positive eps there is no 0 under the root; in single precision none is below this.
                let is_safe = eps.get() >= f64::from(f32::MIN_POSITIVE);
                let root = if is_safe { self.library.sqrt } else { self.template(Prim::Sqrt) };
                (root.replace("{}", &radicand), Binding::Atom)
            }
            Expr::Unary(prim, a) => {
                let template = self.template(*prim);
                if template.ends_with(')') {
                    return (template.replace("{}", &self.expr(a)), Binding::Atom);
                }
                (template.replace("{}", &self.within(a, Binding::Atom)), Binding::Sign)
            }
            Expr::Binary(prim, a, b) => {
                let template = self.template(*prim);
                if template.ends_with(')') {
                    let text = template.replacen("{}", &self.array(a), 1);
                    return (text.replacen("{}", &self.array(b), 1), Binding::Atom);
                }
                let binding = if *prim == Prim::Add { Binding::Sum } else { Binding::Product };
                let (left, operator, right) = self.sides(*prim, a, b, binding);
                (format!("{left} {operator} {right}"), binding)
            }
        }
    }

    /// The two sides of an operator, `a + -b` as `a - b`.
    fn sides(&self, prim: Prim, a: &Expr, b: &Expr, binding: Binding) -> (String, &'static str, String) {
        let left = self.within(a, binding);
        let tighter = if binding == Binding::Sum { Binding::Product } else { Binding::Sign };
        match b {
            Expr::Unary(Prim::Neg, b) if prim == Prim::Add && self.constant(b).is_none() => {
                (left, "-", self.within(b, tighter))
            }
            _ => {
                let right = self.within(b, tighter);
                match right.strip_prefix('-') {
                    Some(magnitude) if prim == Prim::Add && self.constant(b).is_some() => {
                        (left, "-", magnitude.to_owned())
                    }
                    _ => (left, self.template(prim), right),
                }
            }
        }
    }

    /// An operand of a function that takes arrays.
    fn array(&self, expr: &Expr) -> String {
        let text = self.expr(expr);
        if self.constant(expr).is_some() { (self.library.array)(&text) } else { text }
    }

    fn template(&self, prim: Prim) -> &'static str {
        (self.library.text)(text(prim))
    }

    /// `name = expr`, in as many lines as it takes at this indentation.
    pub(crate) fn assignment(&self, name: &str, expr: &Expr, indent: usize) -> Vec<String> {
        let line = format!("{name} = {}", self.expr(expr));
        if line.len() + indent <= WIDTH {
            return vec![line];
        }
        let mut lines = vec![format!("{name} = (")];
        lines.extend(self.broken(expr).into_iter().map(|line| format!("    {line}")));
        lines.push(")".to_owned());
        lines
    }

    /// An expression, broken before the operators of its outermost sum or product.
    fn broken(&self, expr: &Expr) -> Vec<String> {
        match expr {
            Expr::Binary(prim, a, b) if !self.template(*prim).ends_with(')') => {
                let is_sum = *prim == Prim::Add;
                let binding = if is_sum { Binding::Sum } else { Binding::Product };
                let (left, operator, right) = self.sides(*prim, a, b, binding);
                let goes_on = matches!(&**a, Expr::Binary(inner, ..) if (*inner == Prim::Add) == is_sum)
                    && self.constant(a).is_none();
                let mut lines = if goes_on { self.broken(a) } else { vec![left] };
                lines.push(format!("{operator} {right}"));
                lines
            }
            _ => vec![self.expr(expr)],
        }
    }

    /// The statements of all steps, in order. Averages that are kept in running averages, one after the
    /// other, share the branches for training and evaluation.
    pub(crate) fn statements(&self, indent: usize, statistic: impl Fn(&[usize]) -> Statistic) -> Vec<String> {
        let mut lines = vec![];
        let mut branches = Statistic::default();
        let mut is_done = vec![false; self.outline.steps.len()];
        for (index, step) in self.outline.steps.iter().enumerate() {
            if self.known[index].is_some() || is_done[index] {
                continue;
            }
            let average = match &step.value {
                Value::Expr(expr) => {
                    self.end(&mut branches, &mut lines);
                    lines.extend(self.assignment(&step.name, expr, indent));
                    continue;
                }
                Value::Average(average) => average,
            };
            if is_single(average) {
                self.end(&mut branches, &mut lines);
                lines.push(self.single(&step.name, average));
                continue;
            }
            let together = self.together(index, average, &is_done);
            together.iter().for_each(|&step| is_done[step] = true);
            let statistic = statistic(&together);
            if average.buffer.is_some() {
                branches.compute.extend(statistic.compute);
                branches.update.extend(statistic.update);
                branches.read.extend(statistic.read);
            } else {
                self.end(&mut branches, &mut lines);
                lines.extend(statistic.compute);
            }
        }
        self.end(&mut branches, &mut lines);
        lines
    }

    /// A mean and a variance of the same elements, which are computed together; else the average alone.
    fn together(&self, index: usize, average: &Average, is_done: &[bool]) -> Vec<usize> {
        let partner_of = match average.quantity {
            Quantity::Mean => Quantity::Variance,
            Quantity::Variance => Quantity::Mean,
            Quantity::MeanSquare => return vec![index],
        };
        let partner = (index + 1..self.outline.steps.len()).filter(|&step| !is_done[step]).find(|&step| {
            matches!(&self.outline.steps[step].value, Value::Average(other)
                if other.quantity == partner_of && (&other.operand, other.over) == (&average.operand, average.over))
        });
        match (partner, average.quantity) {
            (None, _) => vec![index],
            (Some(partner), Quantity::Variance) => vec![partner, index],
            (Some(partner), Quantity::Mean | Quantity::MeanSquare) => vec![index, partner],
        }
    }

    /// Writes the branches that were collected.
    fn end(&self, branches: &mut Statistic, lines: &mut Vec<String>) {
        let Statistic { compute, update, read } = std::mem::take(branches);
        if read.is_empty() {
            return;
        }
        lines.push(format!("if {}:", self.library.training));
        lines.extend(compute.into_iter().chain(update).map(|line| format!("    {line}")));
        lines.push("else:".to_owned());
        lines.extend(read.into_iter().map(|line| format!("    {line}")));
    }

    /// An average of one element each.
    fn single(&self, name: &str, average: &Average) -> String {
        let operand = self.expr(&average.operand);
        match average.quantity {
            Quantity::Mean => unreachable!("the mean of one element is the element"),
            Quantity::MeanSquare => {
                let square = Expr::Unary(Prim::Square, Box::new(average.operand.clone()));
                format!("{name} = {}  # of one element", self.expr(&square))
            }
            Quantity::Variance => format!("{name} = {operand} - {operand}  # of one element: 0, or NaN"),
        }
    }

    /// The name of a step that is an average, and the average.
    pub(crate) fn average(&self, step: usize) -> (&'a str, &'a Average) {
        match &self.outline.steps[step].value {
            Value::Average(average) => (&self.outline.steps[step].name, average),
            Value::Expr(_) => unreachable!("statistics are made of averages"),
        }
    }

    /// The running average of an average.
    pub(crate) fn buffer(&self, average: &Average) -> Option<&'a Buffer> {
        average.buffer.map(|buffer| &self.outline.buffers.list()[buffer])
    }
}

/// Whether each of its values is the average of one element.
fn is_single(average: &Average) -> bool {
    average.reduced() == [false; 3]
}

/// The axes that an average reduces, as an argument: `2`, `(0, 2)`.
pub(crate) fn axes(average: &Average) -> String {
    let axes: Vec<String> = (0..3).filter(|&axis| average.reduced()[axis]).map(|axis| axis.to_string()).collect();
    if axes.len() == 1 { axes[0].clone() } else { format!("({})", axes.join(", ")) }
}
