//! The rules of the e-graph, one algebraic line each, by theme.
//!
//! In a pattern, `?a ?b ?c` are any values, `?k ?l ?e` constants by their guards, `?i ?j` the index set of
//! a moment. A rule is true of real numbers wherever either side is defined, for all values that its
//! guards admit: only then may it change what is executed. Products and sums have no rule of
//! associativity: it would fill any budget. Constants move outwards instead, values that vary along
//! few axes come together, and the [normal form](crate::normal) sorts out long chains.

use std::fmt;
use std::sync::OnceLock;

use egg::{Condition, ConditionalApplier, Id, Language, Pattern, Rewrite, Subst, Var};
use normact_ir::{Law, Prim, Scalar};

use super::analysis::{Facts, Graph, Known};
use super::cost::is_away_from_zero;
use super::language::{ENode, Head};
use crate::rules::{Class, Theme};

/// A rule as it is written down.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) theme: Theme,
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) guards: Vec<Guard>,
}

impl Line {
    pub(super) fn class(&self) -> Class {
        if self.guards.iter().any(|guard| guard.statement().is_some()) { Class::Guarded } else { Class::Exact }
    }

    /// Whether a side has a kink, where the two may have different gradients.
    pub(super) fn has_kink(&self) -> bool {
        ["abs", "max", "sign", "sqrt", "std", "rms"]
            .iter()
            .any(|name| [&self.from, &self.to].iter().any(|side| side.contains(&format!("({name} "))))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.from, self.to)?;
        for (number, statement) in self.guards.iter().filter_map(|guard| guard.statement()).enumerate() {
            write!(f, "{} {statement}", if number == 0 { " if" } else { " and" })?;
        }
        Ok(())
    }
}

/// A fact about the values of variables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guard {
    Nonzero(&'static str),
    Positive(&'static str),
    Negative(&'static str),
    NotNegative(&'static str),
    NotPositive(&'static str),
    Defined(&'static str),
    AtLeast(&'static str, &'static str),
    Constant(&'static str),
    ConstantAlong(&'static str, &'static str),
    PartOf(&'static str, &'static str, &'static str),
    WithinSample(&'static str),
    FewerAxes(&'static str, &'static str),
    AwayFromZero(&'static str),
    NotOne(&'static str),
    NoConstant(&'static str),
    FreeOfInput(&'static str),
    OfInput(&'static str),
    Differ(&'static str, &'static str),
    NoMultipleOfItself(&'static str),
}

fn is_nonzero(value: &'static str) -> Guard {
    Guard::Nonzero(value)
}

fn is_positive(value: &'static str) -> Guard {
    Guard::Positive(value)
}

fn is_negative(value: &'static str) -> Guard {
    Guard::Negative(value)
}

fn is_not_negative(value: &'static str) -> Guard {
    Guard::NotNegative(value)
}

fn is_not_positive(value: &'static str) -> Guard {
    Guard::NotPositive(value)
}

/// It is a number for every input.
fn is_defined(value: &'static str) -> Guard {
    Guard::Defined(value)
}

/// No value of the first is less than one of the second.
fn at_least(a: &'static str, b: &'static str) -> Guard {
    Guard::AtLeast(a, b)
}

fn is_constant(value: &'static str) -> Guard {
    Guard::Constant(value)
}

/// Averaging over the set leaves the value as it is.
fn constant_along(value: &'static str, set: &'static str) -> Guard {
    Guard::ConstantAlong(value, set)
}

/// Averaging the value over the set and then over the larger set is averaging it over the larger one.
fn part_of(set: &'static str, larger: &'static str, value: &'static str) -> Guard {
    Guard::PartOf(set, larger, value)
}

/// The moment is no statistic of the batch, so no running average is kept of it. One that is may not be
/// rewritten by algebra: what has been averaged before would be read as an average of something else.
fn within_sample(set: &'static str) -> Guard {
    Guard::WithinSample(set)
}

/// The first has fewer elements than the second, so that work on it is nearly free. Not needed for
/// truth.
fn fewer_axes(a: &'static str, b: &'static str) -> Guard {
    Guard::FewerAxes(a, b)
}

/// Constants are folded anyway. Not needed for truth.
fn is_no_constant(value: &'static str) -> Guard {
    Guard::NoConstant(value)
}

/// It is another number than 1, so that the rule has something to do. Not needed for truth.
fn is_not_one(value: &'static str) -> Guard {
    Guard::NotOne(value)
}

/// It is made of parameters and constants. Not needed for truth, but `(x - mean(x)) + beta` is accurate
/// where `x + (beta - mean(x))` is not.
fn is_free_of_input(value: &'static str) -> Guard {
    Guard::FreeOfInput(value)
}

/// It depends on the input. Not needed for truth.
fn is_of_input(value: &'static str) -> Guard {
    Guard::OfInput(value)
}

/// They are two values, else a shorter rule applies. Not needed for truth.
fn differ(a: &'static str, b: &'static str) -> Guard {
    Guard::Differ(a, b)
}

/// It is no product of itself and something, as `0 / v` is, of which there would be no end of forms. Not
/// needed for truth.
fn is_no_multiple_of_itself(value: &'static str) -> Guard {
    Guard::NoMultipleOfItself(value)
}

/// Its inverse does not overflow. Not needed for truth.
fn away_from_zero(value: &'static str) -> Guard {
    Guard::AwayFromZero(value)
}

/// Lines, and the theme of the next ones.
struct Page {
    theme: Theme,
    lines: Vec<Line>,
}

impl Page {
    fn one<const N: usize>(&mut self, name: &str, from: &str, to: &str, guards: [Guard; N]) {
        let line = Line {
            theme: self.theme,
            name: name.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            guards: guards.to_vec(),
        };
        self.lines.push(line);
    }

    /// A line to be read in both directions.
    fn both<const N: usize>(&mut self, name: &str, from: &str, to: &str, guards: [Guard; N]) {
        self.one(name, from, to, guards);
        self.one(&format!("{name}-back"), to, from, guards);
    }
}

/// Every line, the ones that shorten before those that spread.
pub(super) fn lines() -> Vec<Line> {
    let mut page = Page { theme: Theme::Moment, lines: Vec::new() };
    moments(&mut page);
    page.theme = Theme::Activation;
    activations(&mut page);
    page.theme = Theme::Order;
    order(&mut page);
    page.theme = Theme::Power;
    powers(&mut page);
    page.theme = Theme::Ring;
    ring(&mut page);
    laws(&mut page);
    page.lines
}

/// The laws of the primitive table. A law of `f` is one line, whatever `f` is.
fn laws(page: &mut Page) {
    for &prim in Prim::ALL {
        let f = prim.name();
        for &law in prim.laws() {
            let mut line = |what: &str, from: String, to: String| page.one(&format!("{f}-{what}"), &from, &to, []);
            match law {
                Law::Commutative => line("commutative", format!("({f} ?a ?b)"), format!("({f} ?b ?a)")),
                Law::Idempotent => line("idempotent", format!("({f} ?a ?a)"), "?a".to_owned()),
                Law::Identity(e) => {
                    line("identity", format!("({f} ?a {e})"), "?a".to_owned());
                    line("identity-left", format!("({f} {e} ?a)"), "?a".to_owned());
                }
                Law::RightIdentity(e) => line("identity", format!("({f} ?a {e})"), "?a".to_owned()),
                Law::Absorbing(e) => {
                    let (from, to) = (format!("({f} ?a {e})"), e.to_string());
                    page.one(&format!("{f}-absorbing"), &from, &to, [is_defined("?a")]);
                }
                Law::Involution => line("involution", format!("({f} ({f} ?a))"), "?a".to_owned()),
                Law::Projection => line("projection", format!("({f} ({f} ?a))"), format!("({f} ?a)")),
                Law::Odd if prim == Prim::Neg => {}
                Law::Odd => line("odd", format!("({f} (neg ?a))"), format!("(neg ({f} ?a))")),
                Law::Even => line("even", format!("({f} (neg ?a))"), format!("({f} ?a)")),
                // See the head of the file.
                Law::Associative => {}
            }
        }
    }
}

fn ring(page: &mut Page) {
    page.one("cancel", "(add ?a (neg ?a))", "0", [is_defined("?a")]);
    page.one("double", "(add ?a ?a)", "(mul 2 ?a)", []);
    page.one("factor-out", "(add (mul ?a ?b) (mul ?a ?c))", "(mul ?a (add ?b ?c))", [differ("?b", "?c")]);
    page.one("factor-out-one", "(add (mul ?a ?b) ?a)", "(mul ?a (add ?b 1))", []);
    page.one("factor-out-divisor", "(add (div ?a ?c) (div ?b ?c))", "(div (add ?a ?b) ?c)", []);
    page.one("mul-minus-one", "(mul -1 ?a)", "(neg ?a)", []);
    page.one("neg-of-sum", "(add (neg ?a) (neg ?b))", "(neg (add ?a ?b))", []);
    page.one("neg-of-difference", "(neg (add ?a (neg ?b)))", "(add ?b (neg ?a))", []);
    page.one("neg-of-factor", "(mul (neg ?a) ?b)", "(neg (mul ?a ?b))", []);
    page.one("neg-of-small-factor", "(neg (mul ?b ?a))", "(mul (neg ?b) ?a)", [fewer_axes("?b", "?a")]);
    page.one("neg-of-dividend", "(div (neg ?a) ?b)", "(neg (div ?a ?b))", []);
    page.one("neg-of-divisor", "(div ?a (neg ?b))", "(neg (div ?a ?b))", []);
    page.one("collect-factors", "(mul ?k (mul ?l ?a))", "(mul (mul ?k ?l) ?a)", [is_constant("?k"), is_constant("?l")]);
    page.one("collect-terms", "(add ?k (add ?l ?a))", "(add (add ?k ?l) ?a)", [is_constant("?k"), is_constant("?l")]);
    let factor = [fewer_axes("?c", "?a"), is_not_one("?c"), is_no_constant("?b"), is_no_multiple_of_itself("?c")];
    page.one("small-factor-outwards", "(mul (mul ?c ?a) ?b)", "(mul ?c (mul ?a ?b))", factor);
    let term = [is_constant("?k"), is_nonzero("?k"), is_no_constant("?a"), is_no_constant("?b")];
    page.one("term-outwards", "(add (add ?k ?a) ?b)", "(add ?k (add ?a ?b))", term);
    page.one(
        "distribute-constant",
        "(mul ?k (add ?l (mul ?c ?a)))",
        "(add (mul ?k ?l) (mul (mul ?k ?c) ?a))",
        [is_constant("?k"), is_constant("?l"), is_constant("?c")],
    );
    let few = [fewer_axes("?b", "?a"), fewer_axes("?c", "?a"), is_no_constant("?c")];
    page.one("small-factors-together", "(mul (mul ?a ?b) ?c)", "(mul ?a (mul ?b ?c))", few);
    let free = [is_of_input("?a"), is_free_of_input("?b"), is_free_of_input("?c")];
    page.one("small-terms-together", "(add (add ?a ?b) ?c)", "(add ?a (add ?b ?c))", free);
}

fn powers(page: &mut Page) {
    page.both("square-definition", "(mul ?a ?a)", "(square ?a)", []);
    page.one("square-of-sqrt", "(square (sqrt ?a))", "(abs ?a)", []);
    page.one("sqrt-of-square", "(sqrt (square ?a))", "(abs ?a)", []);
    page.one("square-of-abs", "(square (abs ?a))", "(square ?a)", []);
    page.one("product-of-squares", "(mul (square ?a) (square ?b))", "(square (mul ?a ?b))", [differ("?a", "?b")]);
    page.one("product-of-roots", "(mul (sqrt ?a) (sqrt ?b))", "(sqrt (mul ?a ?b))", [differ("?a", "?b")]);
    page.one("product-of-magnitudes", "(mul (abs ?a) (abs ?b))", "(abs (mul ?a ?b))", [differ("?a", "?b")]);
    page.one("product-of-signs", "(mul (sign ?a) (sign ?b))", "(sign (mul ?a ?b))", [differ("?a", "?b")]);
    page.one("quotient-of-squares", "(div (square ?a) (square ?b))", "(square (div ?a ?b))", [differ("?a", "?b")]);
    page.one("quotient-of-roots", "(div (sqrt ?a) (sqrt ?b))", "(sqrt (div ?a ?b))", [differ("?a", "?b")]);
    page.one("quotient-of-magnitudes", "(div (abs ?a) (abs ?b))", "(abs (div ?a ?b))", [differ("?a", "?b")]);
    page.one("square-of-multiple", "(square (mul ?k ?a))", "(mul (square ?k) (square ?a))", [is_constant("?k")]);
    page.one("sqrt-of-multiple", "(sqrt (mul ?k ?a))", "(mul (sqrt ?k) (sqrt ?a))", [is_constant("?k")]);
    page.one("abs-of-multiple", "(abs (mul ?k ?a))", "(mul (abs ?k) (abs ?a))", [is_constant("?k")]);
    page.both("abs-of-sqrt", "(abs (sqrt ?a))", "(sqrt (abs ?a))", []);
    page.one("abs-of-not-negative", "(abs ?a)", "?a", [is_not_negative("?a")]);
    page.one("abs-of-not-positive", "(abs ?a)", "(neg ?a)", [is_not_positive("?a")]);
    page.one("sign-times-abs", "(mul (sign ?a) (abs ?a))", "?a", []);
    page.one("sign-times-itself", "(mul (sign ?a) ?a)", "(abs ?a)", []);
    page.one("sign-of-positive", "(sign ?a)", "1", [is_positive("?a"), is_defined("?a")]);
    page.one("sign-of-negative", "(sign ?a)", "-1", [is_negative("?a"), is_defined("?a")]);
    page.one("abs-of-sign", "(abs (sign ?a))", "1", [is_nonzero("?a"), is_defined("?a")]);
    page.one("sign-of-tanh", "(sign (tanh ?a))", "(sign ?a)", []);
    page.one("sign-of-erf", "(sign (erf ?a))", "(sign ?a)", []);
    page.one("sign-of-sqrt", "(sign (sqrt ?a))", "(sign ?a)", []);
    page.one("divide-by-itself", "(div ?a ?a)", "1", [is_nonzero("?a"), is_defined("?a")]);
    // A quotient by a constant is a product, by `divide-once`.
    let cancels = [is_nonzero("?b"), is_defined("?b"), is_no_constant("?b")];
    page.one("divide-product", "(div (mul ?a ?b) ?b)", "?a", cancels);
    page.one("divide-by-multiple", "(div ?a (mul ?a ?b))", "(div 1 ?b)", [is_nonzero("?a"), is_defined("?a")]);
    page.one("divide-by-magnitude", "(div ?a (abs ?a))", "(sign ?a)", [is_nonzero("?a")]);
    page.one("divide-by-root", "(div ?a (sqrt ?a))", "(sqrt (abs ?a))", [is_nonzero("?a")]);
    page.one("multiply-quotient", "(mul ?b (div ?a ?b))", "?a", cancels);
    page.one(
        "quotient-of-quotient",
        "(div (div ?a ?b) ?c)",
        "(div ?a (mul ?b ?c))",
        [is_no_constant("?b"), is_no_constant("?c")],
    );
    page.one("divide-by-quotient", "(div ?a (div ?b ?c))", "(div (mul ?a ?c) ?b)", [is_nonzero("?c")]);
    page.one("mul-by-inverse", "(mul ?a (div 1 ?b))", "(div ?a ?b)", []);
    page.one("divide-once", "(div ?a ?b)", "(mul ?a (div 1 ?b))", [fewer_axes("?b", "?a"), away_from_zero("?b")]);
    let factor = [fewer_axes("?c", "?a"), is_not_one("?c"), is_no_constant("?b")];
    page.one("small-dividend-outwards", "(div (mul ?c ?a) ?b)", "(mul ?c (div ?a ?b))", factor);
    let few = [fewer_axes("?b", "?a"), fewer_axes("?c", "?a"), is_no_constant("?c")];
    page.one("small-quotient", "(div (mul ?a ?b) ?c)", "(mul ?a (div ?b ?c))", few);
    page.one("small-dividend", "(mul ?b (div ?c ?a))", "(div (mul ?b ?c) ?a)", few);
    page.one("small-divisor", "(div ?b (mul ?c ?a))", "(div (div ?b ?c) ?a)", few);
}

fn order(page: &mut Page) {
    page.one("max-dominated", "(max ?a ?b)", "?a", [at_least("?a", "?b"), is_defined("?b")]);
    page.one("max-again", "(max ?a (max ?a ?b))", "(max ?a ?b)", []);
    page.one("max-of-opposites", "(max ?a (neg ?a))", "(abs ?a)", []);
    page.one("max-shift", "(max (add ?a ?c) (add ?b ?c))", "(add (max ?a ?b) ?c)", []);
    page.one("max-shift-zero", "(max (add ?a ?c) ?c)", "(add (max ?a 0) ?c)", []);
    page.one("max-scale", "(max (mul ?a ?c) (mul ?b ?c))", "(mul (max ?a ?b) ?c)", [is_not_negative("?c")]);
    page.one("max-scale-zero", "(max (mul ?a ?c) 0)", "(mul (max ?a 0) ?c)", [is_not_negative("?c")]);
    page.one("max-plus-min", "(add (max ?a ?b) (neg (max (neg ?a) (neg ?b))))", "(add ?a ?b)", []);
    page.one("positive-part-minus-negative-part", "(add (max ?a 0) (neg (max (neg ?a) 0)))", "?a", []);
    page.one("positive-part-plus-negative-part", "(add (max ?a 0) (max (neg ?a) 0))", "(abs ?a)", []);
    page.one("positive-part-by-abs", "(mul 0.5 (add ?a (abs ?a)))", "(max ?a 0)", []);
    page.one("max-by-abs", "(mul 0.5 (add (add ?a ?b) (abs (add ?a (neg ?b)))))", "(max ?a ?b)", []);
}

fn activations(page: &mut Page) {
    page.one("sigmoid-definition", "(div ?b (add 1 (exp ?a)))", "(mul ?b (sigmoid (neg ?a)))", []);
    page.one("sigmoid-by-exp", "(mul (exp ?a) (sigmoid (neg ?a)))", "(sigmoid ?a)", []);
    page.one("sigmoid-reflected", "(mul (exp (neg ?a)) (sigmoid ?a))", "(sigmoid (neg ?a))", []);
    page.one("one-minus-sigmoid", "(add 1 (neg (sigmoid ?a)))", "(sigmoid (neg ?a))", []);
    page.one("sigmoid-by-tanh", "(add 1 (tanh ?a))", "(mul 2 (sigmoid (mul 2 ?a)))", []);
    page.one("sigmoid-by-minus-tanh", "(add 1 (neg (tanh ?a)))", "(mul 2 (sigmoid (mul -2 ?a)))", []);
    page.one("sigmoid-by-half-tanh", "(add 0.5 (mul 0.5 (tanh ?a)))", "(sigmoid (mul 2 ?a))", []);
    page.one("tanh-by-sigmoid", "(add -1 (mul 2 (sigmoid ?a)))", "(tanh (mul 0.5 ?a))", []);
    page.one(
        "tanh-definition",
        "(div (add (exp ?a) (neg (exp (neg ?a)))) (add (exp ?a) (exp (neg ?a))))",
        "(tanh ?a)",
        [],
    );
    page.one("tanh-by-exp", "(div (add -1 (exp (mul 2 ?a))) (add 1 (exp (mul 2 ?a))))", "(tanh ?a)", []);
    page.one("product-of-exps", "(mul (exp ?a) (exp ?b))", "(exp (add ?a ?b))", []);
    page.one("quotient-of-exps", "(div (exp ?a) (exp ?b))", "(exp (add ?a (neg ?b)))", []);
    page.one("divide-by-exp", "(div ?a (exp ?b))", "(mul ?a (exp (neg ?b)))", []);
    page.one("square-of-exp", "(square (exp ?a))", "(exp (mul 2 ?a))", []);
    page.one("sqrt-of-exp", "(sqrt (exp ?a))", "(exp (mul 0.5 ?a))", []);
    page.one("log-of-exp", "(log (exp ?a))", "?a", []);
    page.one("exp-of-log", "(exp (log ?a))", "?a", [is_positive("?a")]);
    page.one("log-of-square", "(log (square ?a))", "(mul 2 (log (abs ?a)))", []);
    page.one("log-of-inverse", "(log (div 1 ?a))", "(neg (log ?a))", []);
}

fn moments(page: &mut Page) {
    page.both(
        "std-definition",
        "(sqrt (add (var ?i ?a) ?e))",
        "(std ?i ?a ?e)",
        [is_constant("?e"), is_not_negative("?e")],
    );
    page.one("std-without-eps", "(sqrt (var ?i ?a))", "(std ?i ?a 0)", []);
    page.both(
        "rms-definition",
        "(sqrt (add (mean ?i (square ?a)) ?e))",
        "(rms ?i ?a ?e)",
        [is_constant("?e"), is_not_negative("?e"), within_sample("?i")],
    );
    page.one("rms-without-eps", "(sqrt (mean ?i (square ?a)))", "(rms ?i ?a 0)", [within_sample("?i")]);
    let within = [within_sample("?i")];
    page.one("var-of-centred", "(mean ?i (square (add ?a (neg (mean ?i ?a)))))", "(var ?i ?a)", within);
    page.one("std-of-centred", "(rms ?i (add ?a (neg (mean ?i ?a))) ?e)", "(std ?i ?a ?e)", within);
    page.one("var-by-means", "(add (mean ?i (square ?a)) (neg (square (mean ?i ?a))))", "(var ?i ?a)", within);

    let along = [constant_along("?a", "?i"), within_sample("?i")];
    let defined = [constant_along("?a", "?i"), is_defined("?a"), within_sample("?i")];
    page.one("mean-of-constant", "(mean ?i ?a)", "?a", along);
    page.one("var-of-constant", "(var ?i ?a)", "0", defined);
    page.one("std-of-constant", "(std ?i ?a ?e)", "(sqrt ?e)", defined);
    page.one("rms-of-constant", "(rms ?i ?a ?e)", "(sqrt (add (square ?a) ?e))", along);

    let along = [constant_along("?c", "?i"), within_sample("?i")];
    let defined = [constant_along("?c", "?i"), is_defined("?c"), within_sample("?i")];
    page.one("mean-shift", "(mean ?i (add ?a ?c))", "(add (mean ?i ?a) ?c)", along);
    page.one("mean-scale", "(mean ?i (mul ?a ?c))", "(mul (mean ?i ?a) ?c)", along);
    page.one("mean-divide", "(mean ?i (div ?a ?c))", "(div (mean ?i ?a) ?c)", along);
    page.one("mean-of-neg", "(mean ?i (neg ?a))", "(neg (mean ?i ?a))", within);
    page.one("sum-of-means", "(add (mean ?i ?a) (mean ?i ?b))", "(mean ?i (add ?a ?b))", within);
    page.one(
        "mean-of-mean",
        "(mean ?i (mean ?j ?a))",
        "(mean ?i ?a)",
        [part_of("?j", "?i", "?a"), within_sample("?i"), within_sample("?j")],
    );
    page.one("var-shift", "(var ?i (add ?a ?c))", "(var ?i ?a)", defined);
    page.one("var-scale", "(var ?i (mul ?a ?c))", "(mul (var ?i ?a) (square ?c))", along);
    page.one("var-divide", "(var ?i (div ?a ?c))", "(div (var ?i ?a) (square ?c))", along);
    page.one("var-of-neg", "(var ?i (neg ?a))", "(var ?i ?a)", within);
    page.one("std-shift", "(std ?i (add ?a ?c) ?e)", "(std ?i ?a ?e)", defined);
    page.one("std-of-neg", "(std ?i (neg ?a) ?e)", "(std ?i ?a ?e)", within);
    page.one("rms-of-neg", "(rms ?i (neg ?a) ?e)", "(rms ?i ?a ?e)", within);
    page.one("rms-of-abs", "(rms ?i (abs ?a) ?e)", "(rms ?i ?a ?e)", within);
    page.one("std-scale-without-eps", "(std ?i (mul ?a ?c) 0)", "(mul (std ?i ?a 0) (abs ?c))", along);
    page.one("rms-scale-without-eps", "(rms ?i (mul ?a ?c) 0)", "(mul (rms ?i ?a 0) (abs ?c))", along);
    // std(k * a, eps) = |k| * std(a, eps / k^2)
    let multiple = [is_constant("?k"), is_nonzero("?k"), within_sample("?i")];
    for moment in ["std", "rms"] {
        page.one(
            &format!("{moment}-scale"),
            &format!("({moment} ?i (mul ?k ?a) ?e)"),
            &format!("(mul (abs ?k) ({moment} ?i ?a (div ?e (square ?k))))"),
            multiple,
        );
    }
}

/// The rules, compiled once.
pub(super) fn rewrites() -> &'static [Rewrite<ENode, Facts>] {
    static REWRITES: OnceLock<Vec<Rewrite<ENode, Facts>>> = OnceLock::new();
    REWRITES.get_or_init(|| lines().iter().map(rewrite).collect())
}

fn rewrite(line: &Line) -> Rewrite<ENode, Facts> {
    let pattern = |text: &str| -> Pattern<ENode> { text.parse().expect("the patterns above are well-formed") };
    let (from, to) = (pattern(&line.from), pattern(&line.to));
    let rewrite = if line.guards.is_empty() {
        Rewrite::new(line.name.as_str(), from, to)
    } else {
        let condition = Guards(line.guards.iter().map(|&guard| Check::new(guard)).collect());
        Rewrite::new(line.name.as_str(), from, ConditionalApplier { condition, applier: to })
    };
    rewrite.expect("the right side of a rule uses the variables of the left")
}

struct Guards(Vec<Check>);

struct Check {
    guard: Guard,
    vars: Vec<Var>,
}

impl Check {
    fn new(guard: Guard) -> Self {
        let vars = guard.variables().into_iter().map(|name| name.parse().expect("variables start with `?`"));
        Self { guard, vars: vars.collect() }
    }
}

impl Condition<ENode, Facts> for Guards {
    fn check(&self, graph: &mut Graph, _class: Id, subst: &Subst) -> bool {
        self.0.iter().all(|check| {
            let class = |index: usize| graph.find(subst[check.vars[index]]);
            match check.guard {
                Guard::Differ(..) => class(0) != class(1),
                Guard::NoMultipleOfItself(_) => !is_multiple_of_itself(graph, class(0)),
                guard => {
                    let known: Vec<Known> = check.vars.iter().map(|&var| graph[subst[var]].data).collect();
                    guard.holds(&known)
                }
            }
        })
    }

    fn vars(&self) -> Vec<Var> {
        self.0.iter().flat_map(|check| check.vars.iter().copied()).collect()
    }
}

fn is_multiple_of_itself(graph: &Graph, class: Id) -> bool {
    graph[class].nodes.iter().filter(|node| node.head == Head::Prim(Prim::Mul)).any(|node| {
        let [a, b] = [0, 1].map(|index: usize| graph.find(node.children()[index]));
        let factor = if a == class { b } else { a };
        (a == class || b == class) && graph[factor].data.constant.is_none()
    })
}

impl Guard {
    /// The variables it is about.
    pub(super) fn variables(self) -> Vec<&'static str> {
        match self {
            Guard::Nonzero(a)
            | Guard::Positive(a)
            | Guard::Negative(a)
            | Guard::NotNegative(a)
            | Guard::NotPositive(a)
            | Guard::Defined(a)
            | Guard::Constant(a)
            | Guard::WithinSample(a)
            | Guard::AwayFromZero(a)
            | Guard::NotOne(a)
            | Guard::NoConstant(a)
            | Guard::FreeOfInput(a)
            | Guard::OfInput(a)
            | Guard::NoMultipleOfItself(a) => vec![a],
            Guard::AtLeast(a, b) | Guard::ConstantAlong(a, b) | Guard::FewerAxes(a, b) | Guard::Differ(a, b) => {
                vec![a, b]
            }
            Guard::PartOf(a, b, c) => vec![a, b, c],
        }
    }

    /// The fact, if the truth of a rule can hang on it.
    fn statement(self) -> Option<String> {
        match self {
            Guard::Nonzero(a) => Some(format!("{a} != 0")),
            Guard::Positive(a) => Some(format!("{a} > 0")),
            Guard::Negative(a) => Some(format!("{a} < 0")),
            Guard::NotNegative(a) => Some(format!("{a} >= 0")),
            Guard::NotPositive(a) => Some(format!("{a} <= 0")),
            Guard::Defined(a) => Some(format!("{a} is defined")),
            Guard::AtLeast(a, b) => Some(format!("{a} >= {b}")),
            Guard::ConstantAlong(a, set) => Some(format!("{a} is constant along {set}")),
            Guard::PartOf(set, larger, a) => Some(format!("{set} is part of {larger} for {a}")),
            Guard::WithinSample(set) => Some(format!("{set} is within a sample")),
            Guard::Constant(_)
            | Guard::FewerAxes(..)
            | Guard::AwayFromZero(_)
            | Guard::NotOne(_)
            | Guard::NoConstant(_)
            | Guard::FreeOfInput(_)
            | Guard::OfInput(_)
            | Guard::Differ(..)
            | Guard::NoMultipleOfItself(_) => None,
        }
    }

    /// Whether the facts about its variables prove it.
    pub(super) fn holds(self, known: &[Known]) -> bool {
        let set = |index: usize| known[index].set;
        let range = known[0].range;
        match self {
            Guard::Nonzero(_) => !range.contains_zero(),
            Guard::Positive(_) => range.is_positive(),
            Guard::Negative(_) => range.high() <= 0.0 && !range.contains_zero(),
            Guard::NotNegative(_) => range.is_not_negative(),
            Guard::NotPositive(_) => range.high() <= 0.0,
            Guard::Defined(_) => known[0].defined,
            Guard::AtLeast(..) => range.low() >= known[1].range.high(),
            Guard::Constant(_) => known[0].constant.is_some(),
            Guard::ConstantAlong(..) => set(1).is_some_and(|set| known[0].axes.constant_along(set.over)),
            Guard::PartOf(..) => match (set(0), set(1)) {
                (Some(set), Some(larger)) => {
                    let axes = known[2].axes;
                    let whole = axes.reduce(larger.over);
                    axes.reduce(set.over).reduce(larger.over) == whole && whole.reduce(set.over) == whole
                }
                _ => false,
            },
            Guard::WithinSample(_) => set(0).is_some_and(|set| set.tracking.is_none()),
            Guard::FewerAxes(..) => {
                known[0].axes != known[1].axes && known[0].axes.union(known[1].axes) == known[1].axes
            }
            Guard::AwayFromZero(_) => is_away_from_zero(range),
            Guard::NotOne(_) => known[0].constant != Some(Scalar::ONE),
            Guard::NoConstant(_) => known[0].constant.is_none(),
            Guard::FreeOfInput(_) => !known[0].of_input,
            Guard::OfInput(_) => known[0].of_input,
            // These ask for classes, not for facts.
            Guard::Differ(..) | Guard::NoMultipleOfItself(_) => true,
        }
    }
}
