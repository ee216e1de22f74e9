//! A canonical form for people: the same term with `std`, `rms` and `max` where the normal form has
//! their definitions. Nothing depends on this but what is printed.

use std::collections::HashMap;

use normact_ir::Moment;

use crate::key::walk;
use crate::normal::{rounded, with};
use crate::term::{Exponent, Head, TermId, Terms};

/// A sum as constants times terms.
type Parts = Vec<(f64, TermId)>;

/// The term with statistics and maxima put back.
pub(crate) fn readable(terms: &mut Terms, root: TermId) -> TermId {
    let mut results: HashMap<TermId, TermId> = HashMap::new();
    for part in walk(terms, root) {
        let operands: Vec<TermId> = terms.operands(part).iter().map(|operand| results[operand]).collect();
        let result = match terms.head(part) {
            Head::Power(exponent) if exponent.get().abs() == 0.5 && exponent.odd => {
                root_of_statistic(terms, operands[0], exponent)
            }
            Head::Sum => maximum(terms, 1.0, part, &results),
            Head::Product => maximum_in_product(terms, part, &results),
            _ => None,
        };
        let result = result.unwrap_or_else(|| terms.make(terms.head(part), &operands));
        results.insert(part, result);
    }
    results[&root]
}

/// `sqrt(var(a) + eps)` as `std(a)`, `sqrt(var(a) + square(mean(a)) + eps)` as `rms(a)`.
fn root_of_statistic(terms: &mut Terms, under: TermId, exponent: Exponent) -> Option<TermId> {
    if terms.head(under) != Head::Sum {
        return None;
    }
    let operands = terms.operands(under).to_vec();
    let eps = match terms.head(operands[0]) {
        Head::Const(eps) if eps.get() > 0.0 => eps,
        _ => return None,
    };
    let var = operands[1..]
        .iter()
        .copied()
        .find(|&operand| matches!(terms.head(operand), Head::Moment(op) if op.moment() == Moment::Var))?;
    let Head::Moment(op) = terms.head(var) else { return None };
    let of = terms.operand(var);
    let moment = match operands.len() {
        2 => Moment::Std,
        3 => {
            let mean = terms.moment(with(op, Moment::Mean), of);
            let square = terms.power(mean, Exponent::natural(2.0)?);
            if !operands.contains(&square) {
                return None;
            }
            Moment::Rms
        }
        _ => return None,
    };
    let plain = with(op, moment);
    let op = normact_ir::MomentOp::new(moment, plain.over(), eps, plain.tracking().unwrap_or(DEFAULT_TRACKING));
    let statistic = terms.moment(op, of);
    Some(if exponent.get() > 0.0 {
        statistic
    } else {
        let inverse = Exponent::new(-1.0, true)?;
        terms.power(statistic, inverse)
    })
}

/// Index sets within a sample have no tracking; what is given for them is dropped.
const DEFAULT_TRACKING: normact_ir::Tracking =
    normact_ir::Tracking { momentum: normact_ir::Scalar::ZERO, running: normact_ir::Running::Biased };

/// `c * (a + b + |a - b|)`, or `c / (a + b + |a - b|)`, inside a product, with its constant.
fn maximum_in_product(terms: &mut Terms, product: TermId, results: &HashMap<TermId, TermId>) -> Option<TermId> {
    let operands = terms.operands(product).to_vec();
    let constant = terms.const_value(operands[0])?;
    for (position, &operand) in operands.iter().enumerate() {
        let (base, exponent) = terms.as_power(operand);
        if terms.head(base) != Head::Sum || exponent.get().abs() != 1.0 || !exponent.odd {
            continue;
        }
        let scale = if exponent == Exponent::ONE { constant.abs() } else { 1.0 / constant.abs() };
        let Some(max) = maximum(terms, scale, base, results) else { continue };
        let mut factors = vec![terms.power(max, exponent)];
        if constant < 0.0 {
            factors.push(terms.number(-1.0));
        }
        let others = (1..operands.len()).filter(|&index| index != position).map(|index| results[&operands[index]]);
        factors.extend(others);
        return Some(terms.product(&factors));
    }
    None
}

/// `scale` times a sum with a `k * |d|`, `k > 0`, as the maximum of two sums where that is shorter.
fn maximum(terms: &mut Terms, scale: f64, sum: TermId, results: &HashMap<TermId, TermId>) -> Option<TermId> {
    let parts = parts_of(terms, sum);
    for (index, &(k, factor)) in parts.iter().enumerate() {
        let (base, exponent) = terms.as_power(factor);
        if k <= 0.0 || exponent != Exponent::ABS {
            continue;
        }
        let inner = parts_of(terms, base);
        let side = |sign: f64| -> Parts {
            let mut side: Parts =
                parts.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, &part)| part).collect();
            for &(l, rest) in &inner {
                match side.iter_mut().find(|(_, other)| *other == rest) {
                    Some((constant, _)) => *constant += sign * k * l,
                    None => side.push((sign * k * l, rest)),
                }
            }
            side.retain(|(constant, _)| constant.abs() > 1e-12 * k);
            side
        };
        let (a, b) = (side(1.0), side(-1.0));
        if a.len().max(1) + b.len().max(1) > parts.len() {
            continue;
        }
        let mut written = |side: Parts| -> TermId {
            let all: Vec<TermId> = side
                .into_iter()
                .map(|(constant, rest)| {
                    let constant = rounded(scale * constant).unwrap_or(scale * constant);
                    // A constant part is 1 times its value.
                    let rest = results.get(&rest).copied().unwrap_or_else(|| readable(terms, rest));
                    match terms.const_value(rest) {
                        Some(value) => terms.number(constant * value),
                        None if constant == 1.0 => rest,
                        None => terms.scaled(constant, rest),
                    }
                })
                .collect();
            terms.sum(&all)
        };
        let sides = [written(a), written(b)];
        return Some(terms.max(&sides));
    }
    None
}

fn parts_of(terms: &mut Terms, id: TermId) -> Parts {
    let operands = match terms.head(id) {
        Head::Sum => terms.operands(id).to_vec(),
        _ => vec![id],
    };
    operands.into_iter().map(|operand| terms.split_coefficient(operand)).collect()
}
