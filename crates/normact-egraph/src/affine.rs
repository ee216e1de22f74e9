//! A layer without what training can undo at once: a final scale and shift per channel, and the scales
//! of its parameters.
//!
//! A network that ends a layer with `* gamma + beta`, or follows it with a convolution, cannot tell
//! `f`, `2 * f + 1` and `f * gamma + beta` apart; and `sigmoid(2 * v * x)` is `sigmoid(w * x)` for
//! `w = 2 * v`. Here all of these become one: constants at the end and a `gamma`, `beta` that occur
//! nowhere else are dropped, and a parameter that only ever scales one product takes over that
//! product's constant. It then starts at 1, or at 0 if it did.

use normact_ir::{Dag, Extent, Param, Scalar};

use crate::key::{normal_form, walk};
use crate::normal::{Budget, Normalizer, Relation};
use crate::term::{Head, TermId, Terms};
use crate::write::write;

/// The layer without its final affine part and without the scales of its parameters.
pub(crate) fn without_affine(dag: &Dag, relation: Relation, budget: Budget) -> Dag {
    let mut normalizer = Normalizer::new(relation, budget);
    let normal = normal_form(&mut normalizer, dag);
    if normal.start.is_some() {
        // What is special at the initial values would be lost.
        return dag.clone();
    }
    let core = core(&mut normalizer, normal.root);
    let core = normalizer.canonical(core);
    let mut params = dag.params().to_vec();
    let core = rescaled(&mut normalizer.terms, core, &mut params);
    write(&normalizer.terms, core, &params)
}

/// The summands of a layer in normal form, with constant factors multiplied in.
fn summands(normalizer: &mut Normalizer, root: TermId) -> Vec<TermId> {
    let sum = normalizer.distributed(root).unwrap_or(root);
    let parts = match normalizer.terms.head(sum) {
        Head::Sum => normalizer.terms.operands(sum).to_vec(),
        _ => vec![sum],
    };
    parts.into_iter().map(|part| normalizer.normal(part)).collect()
}

fn core(normalizer: &mut Normalizer, root: TermId) -> TermId {
    let mut parts = summands(normalizer, root);
    let only_here = |terms: &Terms, parts: &[TermId], param: TermId| {
        parts.iter().filter(|&&part| walk(terms, part).contains(&param)).count() == 1
    };
    // Shifts: constants, and parameters per channel that occur nowhere else.
    let all = parts.clone();
    parts.retain(|&part| {
        let (_, rest) = normalizer.terms.split_coefficient(part);
        let constant = normalizer.terms.const_value(part).is_some();
        let shift = is_per_channel(&normalizer.terms, rest) && only_here(&normalizer.terms, &all, rest);
        !constant && !shift
    });
    // Scales: a parameter per channel that is a factor of every summand and occurs in no other way.
    let factors = |terms: &Terms, part: TermId| match terms.head(part) {
        Head::Product => terms.operands(part).to_vec(),
        _ => vec![part],
    };
    let candidates = parts.first().map_or(vec![], |&part| factors(&normalizer.terms, part));
    let candidates: Vec<TermId> =
        candidates.into_iter().filter(|&factor| is_per_channel(&normalizer.terms, factor)).collect();
    for scale in candidates {
        let without: Option<Vec<TermId>> = parts
            .iter()
            .map(|&part| {
                let mut rest = factors(&normalizer.terms, part);
                let position = rest.iter().position(|&factor| factor == scale)?;
                rest.swap_remove(position);
                let rest = normalizer.terms.product(&rest);
                (!walk(&normalizer.terms, rest).contains(&scale)).then_some(rest)
            })
            .collect();
        if let Some(without) = without.filter(|parts| parts.iter().any(|&part| varies(&normalizer.terms, part))) {
            parts = without;
            break;
        }
    }
    let sum = normalizer.terms.sum(&parts);
    let sum = normalizer.canonical(sum);
    normalizer.terms.split_coefficient(sum).1
}

fn varies(terms: &Terms, id: TermId) -> bool {
    walk(terms, id).iter().any(|&part| terms.head(part) == Head::Input)
}

fn is_per_channel(terms: &Terms, id: TermId) -> bool {
    matches!(terms.head(id), Head::Param(param) if terms.param_class(param).extent == Extent::PerChannel)
}

/// Lets parameters that scale one product take over its constant.
fn rescaled(terms: &mut Terms, root: TermId, params: &mut [Param]) -> TermId {
    let mut root = root;
    for (position, param) in params.iter_mut().enumerate() {
        let order = walk(terms, root);
        let Some(&leaf) = order.iter().find(|&&id| terms.head(id) == Head::Param(position as u32)) else { continue };
        let users: Vec<TermId> = order.iter().copied().filter(|&id| terms.operands(id).contains(&leaf)).collect();
        let &[product] = users.as_slice() else { continue };
        if terms.head(product) != Head::Product {
            continue;
        }
        if param.init.get() != 0.0 {
            param.init = Scalar::ONE;
        }
        let (constant, rest) = terms.split_coefficient(product);
        if constant != 1.0 {
            root = replaced(terms, root, product, rest);
        }
    }
    root
}

fn replaced(terms: &mut Terms, root: TermId, old: TermId, new: TermId) -> TermId {
    let mut results: std::collections::HashMap<TermId, TermId> = std::collections::HashMap::new();
    for part in walk(terms, root) {
        let result = if part == old {
            new
        } else {
            let operands: Vec<TermId> = terms.operands(part).iter().map(|operand| results[operand]).collect();
            terms.make(terms.head(part), &operands)
        };
        results.insert(part, result);
    }
    results[&root]
}

#[cfg(test)]
mod tests {
    use crate::equiv::{Options, Verdict, equiv};
    use crate::fingerprint::formula::layer;
    use crate::normal::Relation;

    fn equal(a: &str, b: &str) -> bool {
        let options = Options { modulo_affine: true, relation: Relation::AlmostEverywhere, ..Options::default() };
        matches!(equiv(&layer(a), &layer(b), &options), Verdict::Equal(_))
    }

    #[test]
    fn a_final_scale_and_shift_do_not_count() {
        let core = "(mul x (sigmoid x))";
        for other in [
            "(add (mul (mul x (sigmoid x)) g=1) b=0)",
            "(add (mul -2 (mul x (sigmoid x))) 1)",
            "(mul g=1 (div x (add 1 (exp (neg x)))))",
            "(add (mul (mul x (sigmoid x)) g=1) (mul 3 b=0))",
        ] {
            assert!(equal(core, other), "{other}");
        }
        assert!(!equal(core, "(mul x (tanh x))"));
        // A parameter that also occurs inside is no final scale, one for the whole layer is none either.
        assert!(!equal(core, "(mul g=1 (mul x (sigmoid (mul g=1 x))))"));
        assert!(!equal(core, "(mul x (mul x (sigmoid x)))"));
    }

    #[test]
    fn the_scale_of_a_parameter_does_not_count() {
        assert!(equal("(sigmoid (mul v=1 x))", "(sigmoid (mul -2 (mul x v=1)))"));
        assert!(equal("(tanh (mul v=1 x))", "(tanh (mul v=3 x))"));
        assert!(!equal("(sigmoid (mul v=1 x))", "(sigmoid (mul v=0 x))"));
        assert!(!equal("(sigmoid (mul v=1 x))", "(sigmoid x)"));
        // Used twice with different scales, it is not free.
        assert!(!equal(
            "(add (sigmoid (mul v=1 x)) (tanh (mul v=1 x)))",
            "(add (sigmoid (mul v=1 x)) (tanh (mul 2 (mul v=1 x))))"
        ));
    }
}
