//! Forged steps.

use super::*;
use crate::fingerprint::formula::layer;
use crate::term::ParamClass;

/// What the checker says of a step from one value to another inside a layer. All formulas name their
/// parameters in one order, `v=1` before `w=1`.
fn step(rule: Rule, from: &str, to: &str, before: &str, after: &str) -> Result<Class, &'static str> {
    let class = |init: f64| ParamClass { extent: normact_ir::Extent::PerChannel, init: Scalar::new(init).unwrap() };
    let mut terms = Terms::default();
    terms.clear([(0, class(1.0)), (1, class(1.0))]);
    let mut read = |text: &str| {
        let dag = layer(text);
        let names: Vec<u32> = dag.params().iter().map(|param| u32::from(param.name == "w")).collect();
        read::graph(&mut terms, &dag, |param| names[param]).unwrap()
    };
    let (from, to, before, after) = (read(from), read(to), read(before), read(after));
    Checker::new(terms).class_of(&Move { rule, reversed: false, from, to, before, after })
}

#[test]
fn steps_at_one_place_are_accepted() {
    for (rule, from, to, before, after) in [
        (Rule::MulZero, "(mul 0 x)", "0", "(add (mul 0 x) v=1)", "(add 0 v=1)"),
        (Rule::MaxDominated, "(max x (add x 1))", "(add x 1)", "(tanh (max x (add x 1)))", "(tanh (add x 1))"),
        // A part of a chain, and every place where a value is used.
        (Rule::CollectTerms, "(add x x)", "(mul 2 x)", "(add (add x v=1) x)", "(add v=1 (mul 2 x))"),
        (Rule::MulOne, "(mul 1 x)", "x", "(add (exp (mul 1 x)) (tanh (mul 1 x)))", "(add (exp x) (tanh x))"),
        (
            Rule::FactorOut,
            "(add (mul x v=1) (mul x w=1))",
            "(mul x (add v=1 w=1))",
            "(add (mul x v=1) (mul x w=1))",
            "(mul x (add v=1 w=1))",
        ),
    ] {
        assert!(step(rule, from, to, before, after).is_ok(), "{}: {before}", rule.name());
    }
}

#[test]
fn a_right_step_at_a_wrong_place_is_refused() {
    for (rule, from, to, before, after) in [
        // What both sides share has to be there: these would make 0 of relu, and y of x * y.
        (Rule::MaxDominated, "(max x (add x 1))", "(add x 1)", "(max x 0)", "0"),
        (Rule::MulZero, "(mul 0 x)", "0", "(mul x v=1)", "v=1"),
        (Rule::CollectTerms, "(add x x)", "(mul 2 x)", "(add (add x v=1) x)", "(add w=1 (mul 2 x))"),
        (Rule::MulOne, "(mul 1 x)", "x", "(exp (mul 1 x))", "(tanh x)"),
        (Rule::MulOne, "(mul 1 x)", "x", "(div (mul 1 x) v=1)", "(div v=1 x)"),
    ] {
        assert!(step(rule, from, to, before, after).is_err(), "{}: {before} -> {after}", rule.name());
    }
}

#[test]
fn a_wrong_instance_is_refused() {
    for (rule, from, to) in [
        (Rule::CollectTerms, "(add x x)", "(mul 3 x)"),
        (Rule::MaxDominated, "(max x v=1)", "x"),
        (Rule::MulOne, "(mul 2 x)", "x"),
        (Rule::PowerOfProduct, "(log (mul x v=1))", "(mul (log x) (log v=1))"),
        (Rule::ExpOfLog, "(exp (log x))", "x"),
        (Rule::KnownSign, "(abs x)", "x"),
        // The right side divides by what the left side does not.
        (Rule::FactorOut, "(add (max x 0) 1)", "(mul (max x 0) (add 1 (div 1 (max x 0))))"),
        // A small term beside a large constant is not nothing.
        (
            Rule::MaxShift,
            "(max (add (add (mul 1e12 x) v=1) w=1) (add (tanh x) w=1))",
            "(add (max (mul 1e12 x) (tanh x)) w=1)",
        ),
        (Rule::MeanOfMean, "(mean/group=2 (mean/group=3 x))", "(mean/group=2 x)"),
        (Rule::MeanOfMean, "(mean/instance (mean/batch x))", "(mean/layer x)"),
        (Rule::MomentAxes, "(mean/batch/0/0.1 x)", "(mean/batch/0/0.9 x)"),
        (Rule::MeanOfProduct, "(mean/batch (mul x (mean/instance x)))", "(mul (mean/instance x) (mean/batch x))"),
        (Rule::VarOfProduct, "(var/batch (mul v=1 x))", "(mul v=1 (var/batch x))"),
    ] {
        assert!(step(rule, from, to, from, to).is_err(), "{}: {from} = {to}", rule.name());
    }
}

#[test]
fn what_cancels_only_almost_everywhere_says_so() {
    let class = |rule, from: &str, to: &str| step(rule, from, to, from, to);
    assert_eq!(class(Rule::ProductOfPowers, "(div x x)", "1"), Ok(Class::AlmostEverywhere));
    assert_eq!(class(Rule::ProductOfPowers, "(div (exp x) (exp x))", "1"), Ok(Class::Guarded));
    // Never zero, and yet not defined everywhere.
    let log = "(add 1 (square (log x)))";
    assert_eq!(class(Rule::ProductOfPowers, &format!("(div {log} {log})"), "1"), Ok(Class::AlmostEverywhere));
    assert_eq!(class(Rule::MulZero, "(mul 0 (div 1 x))", "0"), Ok(Class::AlmostEverywhere));
    assert_eq!(class(Rule::MulZero, "(mul 0 (exp x))", "0"), Ok(Class::Guarded));
}
