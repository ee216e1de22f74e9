//! The syntax tree: the text's structure with places, before any name means something.

use crate::source::Span;

/// A word with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The word.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A file.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Functions, layers and gradients in the order of the text.
    pub items: Vec<Item>,
    /// Comments in the order of the text.
    pub comments: Vec<Comment>,
}

/// A comment: its place, from `//` to the end of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comment {
    /// Where.
    pub span: Span,
}

/// A definition.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `fn name(arguments) = body`
    Function(Function),
    /// `layer name(input, settings) { ... }`
    Layer(Layer),
    /// `gradient layer(input, upstream) { ... }`
    Gradient(Gradient),
}

impl Item {
    /// What is defined; of a gradient, the layer it belongs to.
    pub fn name(&self) -> &Name {
        match self {
            Item::Function(function) => &function.name,
            Item::Layer(layer) => &layer.name,
            Item::Gradient(gradient) => &gradient.layer,
        }
    }

    /// The whole definition.
    pub fn span(&self) -> Span {
        match self {
            Item::Function(function) => function.span,
            Item::Layer(layer) => layer.span,
            Item::Gradient(gradient) => gradient.span,
        }
    }
}

/// `fn name(arguments) = body`
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// The whole definition.
    pub span: Span,
    /// Its name.
    pub name: Name,
    /// Its arguments.
    pub arguments: Vec<Name>,
    /// Its result.
    pub body: Expr,
}

/// `layer name(input, settings) { statements result }`
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The whole definition.
    pub span: Span,
    /// Its name.
    pub name: Name,
    /// The name of the input.
    pub input: Name,
    /// Settings with their defaults.
    pub settings: Vec<Setting>,
    /// Params and lets.
    pub statements: Vec<Statement>,
    /// The result; absent only in a wrong text.
    pub result: Option<Expr>,
}

/// `gradient layer(input, upstream) { lines }`
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// The whole definition.
    pub span: Span,
    /// The layer it belongs to.
    pub layer: Name,
    /// The names of the input and of the upstream gradient; of another number only in a wrong text.
    pub arguments: Vec<Name>,
    /// Settings; there are some only in a wrong text.
    pub settings: Vec<Setting>,
    /// Lets and results.
    pub lines: Vec<Line>,
}

/// `let name = value`, or `name = value` for a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The whole line.
    pub span: Span,
    /// Whether it is a let.
    pub is_let: bool,
    /// What is defined.
    pub name: Name,
    /// Its value.
    pub value: Expr,
}

/// `name = value`
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The setting.
    pub name: Name,
    /// Its value.
    pub value: Value,
}

/// The value of a setting or the start of a param.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Where.
    pub span: Span,
    /// What.
    pub kind: ValueKind,
}

/// A number or a word.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// A number with its sign, and the text it was written as.
    Number(f64, String),
    /// A word: the name of a setting, `biased`, `unbiased`.
    Word(String),
}

/// A statement of a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// `param name: extent = init`
    Param {
        /// The whole statement.
        span: Span,
        /// Its name.
        name: Name,
        /// `channel`, `scalar` or nothing.
        extent: Option<Name>,
        /// The value it starts with.
        init: Value,
    },
    /// `let name = value`
    Let {
        /// The whole statement.
        span: Span,
        /// Its name.
        name: Name,
        /// Its value.
        value: Expr,
    },
}

impl Statement {
    /// What is defined.
    pub fn name(&self) -> &Name {
        match self {
            Statement::Param { name, .. } | Statement::Let { name, .. } => name,
        }
    }

    /// The whole statement.
    pub fn span(&self) -> Span {
        match self {
            Statement::Param { span, .. } | Statement::Let { span, .. } => *span,
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Where.
    pub span: Span,
    /// What.
    pub kind: ExprKind,
}

/// The kinds of expression. Chains of one precedence are lists, so that a long sum is not a deep
/// tree.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A number and the text it was written as.
    Number(f64, String),
    /// A name.
    Name(String),
    /// `-x`, with the number of minus signs.
    Minus(usize, Box<Expr>),
    /// `a + b - c`
    Sum(Box<Expr>, Vec<(SumOp, Expr)>),
    /// `a * b / c`
    Product(Box<Expr>, Vec<(ProductOp, Expr)>),
    /// `f[set](arguments)`
    Call(Call),
}

/// An operator of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// An operator of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductOp {
    /// `*`
    Times,
    /// `/`
    Over,
}

/// `f[set](arguments, setting = value)`
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is called.
    pub function: Name,
    /// The index set of a moment.
    pub index_set: Option<IndexSet>,
    /// The arguments.
    pub arguments: Vec<Expr>,
    /// Settings overridden for this call.
    pub settings: Vec<Setting>,
}

/// `group(8)`
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSet {
    /// Where, brackets included.
    pub span: Span,
    /// Its name.
    pub name: Name,
    /// The number in parentheses.
    pub count: Option<Value>,
}
