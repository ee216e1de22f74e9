//! Numbers for parameters: which of several alike is the first.
//!
//! Parameters differ by extent and initial value; those of one class are told apart by a label, their
//! number within the class. Names and the order of declaration say nothing about it, so all orders are
//! tried, and the caller takes the one whose normal form comes first.

use rustc_hash::FxHashMap;

use crate::term::ParamClass;

/// The number of each parameter within its class, in the order of declaration.
pub(crate) fn by_declaration(classes: &[ParamClass]) -> Vec<u32> {
    let mut counts: FxHashMap<ParamClass, u32> = FxHashMap::default();
    classes
        .iter()
        .map(|class| {
            let count = counts.entry(*class).or_default();
            *count += 1;
            *count - 1
        })
        .collect()
}

/// Every way to number the parameters that occur in a layer.
pub(crate) struct Orders {
    /// Those that occur, class by class.
    groups: Vec<Vec<usize>>,
    /// The labels of all parameters; those that do not occur come after those that do.
    labels: Vec<u32>,
}

impl Orders {
    pub(crate) fn new(classes: &[ParamClass], occurs: &[bool]) -> Self {
        let mut position: FxHashMap<ParamClass, usize> = FxHashMap::default();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for param in (0..classes.len()).filter(|&param| occurs[param]) {
            let group = *position.entry(classes[param]).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(param);
        }
        let mut next: FxHashMap<ParamClass, u32> = FxHashMap::default();
        let mut labels = vec![0; classes.len()];
        for wanted in [true, false] {
            for param in (0..classes.len()).filter(|&param| occurs[param] == wanted) {
                let label = next.entry(classes[param]).or_default();
                labels[param] = *label;
                *label += 1;
            }
        }
        Self { groups, labels }
    }

    /// How many orders there are.
    pub(crate) fn count(&self) -> usize {
        self.groups.iter().map(|group| factorial(group.len())).fold(1, usize::saturating_mul)
    }

    /// The labels in that order; order 0 is that of declaration.
    pub(crate) fn labels(&self, order: usize) -> Vec<u32> {
        let mut labels = self.labels.clone();
        let mut rest = order;
        for group in &self.groups {
            let count = factorial(group.len());
            for (&param, label) in group.iter().zip(permutation(group.len(), rest % count)) {
                labels[param] = label;
            }
            rest /= count;
        }
        labels
    }
}

fn factorial(count: usize) -> usize {
    (1..=count).fold(1, usize::saturating_mul)
}

/// The permutation of `0..count` with that number in lexicographic order.
fn permutation(count: usize, mut number: usize) -> Vec<u32> {
    let mut left: Vec<u32> = (0..count as u32).collect();
    let mut permutation = Vec::with_capacity(count);
    for remaining in (0..count).rev() {
        let block = factorial(remaining);
        permutation.push(left.remove(number / block));
        number %= block;
    }
    permutation
}

#[cfg(test)]
mod tests {
    use super::*;
    use normact_ir::{Extent, Scalar};

    #[test]
    fn orders_are_all_different_and_start_with_the_declaration() {
        let class = |init: f64| ParamClass { extent: Extent::PerChannel, init: Scalar::new(init).unwrap() };
        let classes = [class(0.0), class(1.0), class(1.0), class(0.0), class(1.0), class(1.0)];
        assert_eq!(by_declaration(&classes), [0, 0, 1, 1, 2, 3]);
        let orders = Orders::new(&classes, &[true, true, false, true, true, true]);
        assert_eq!(orders.count(), 2 * 6);
        assert_eq!(orders.labels(0), [0, 0, 3, 1, 1, 2]);
        let mut all: Vec<Vec<u32>> = (0..orders.count()).map(|order| orders.labels(order)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), orders.count());
        assert!(all.iter().all(|labels| labels[2] == 3));
    }

    #[test]
    fn a_hundred_parameters_do_not_overflow() {
        let class = ParamClass { extent: Extent::Scalar, init: Scalar::ONE };
        let orders = Orders::new(&[class; 100], &[true; 100]);
        assert_eq!(orders.count(), usize::MAX);
        assert_eq!(orders.labels(0), by_declaration(&[class; 100]));
    }
}
