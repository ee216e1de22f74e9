//! Scores by key: what a search remembers of layers it has met, however they were written.
//!
//! A score is usually noisy (a short training run), so a search may want to evaluate a layer a few
//! times before it trusts what it knows:
//!
//! ```
//! use normact_egraph::{Scores, Seen, key};
//! # let dag = |text: &str| normact_ir::json::from_json(text).unwrap().dag;
//! # let doubled = dag(r#"{"normact":1,"name":"a","nodes":[{"op":"input"},{"op":"add","args":[0,0]}],"output":1}"#);
//! # let same = dag(r#"{"normact":1,"name":"b","nodes":[{"op":"input"},{"op":"constant","value":2},{"op":"mul","args":[1,0]}],"output":2}"#);
//! # let train = |_: &normact_ir::Dag| 0.9;
//! let mut scores = Scores::new(0);
//! for layer in [&doubled, &same] {
//!     let (key, _) = key(layer);
//!     let score = match scores.look_up(key) {
//!         Seen::New | Seen::Again(_) => {
//!             let score = train(layer);
//!             scores.record(key, score);
//!             score
//!         }
//!         Seen::Exhausted(known) => known[0],
//!     };
//!     assert_eq!(score, 0.9);
//! }
//! assert_eq!(scores.len(), 1);
//! ```

use std::collections::HashMap;

use crate::key::Key;

/// What is known about a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a, T> {
    /// Nothing: it was never evaluated.
    New,
    /// It was evaluated, with these scores from first to last, and may be evaluated again.
    Again(&'a [T]),
    /// It was evaluated as often as it may be, with these scores: one of them, or their mean, is to be
    /// used.
    Exhausted(&'a [T]),
}

/// The scores of every layer that was evaluated.
#[derive(Debug, Clone)]
pub struct Scores<T> {
    max_duplicates: usize,
    by_key: HashMap<Key, Vec<T>>,
}

impl<T> Scores<T> {
    /// No scores yet. A duplicate is a layer with the key of an earlier one; this many duplicates are
    /// evaluated afresh, so each key is evaluated `1 + max_duplicates` times at most.
    pub fn new(max_duplicates: usize) -> Self {
        Self { max_duplicates, by_key: HashMap::new() }
    }

    /// What is known about the layer with this key.
    pub fn look_up(&self, key: Key) -> Seen<'_, T> {
        match self.by_key.get(&key) {
            None => Seen::New,
            Some(scores) if scores.len() <= self.max_duplicates => Seen::Again(scores),
            Some(scores) => Seen::Exhausted(scores),
        }
    }

    /// Adds a score. It is kept even where the key was exhausted meanwhile, as happens when several
    /// evaluations of one layer run at the same time.
    pub fn record(&mut self, key: Key, score: T) {
        self.by_key.entry(key).or_default().push(score);
    }

    /// The number of different layers with a score.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no layer has a score.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        format!("{number:032x}").parse().unwrap()
    }

    #[test]
    fn without_duplicates_each_layer_is_evaluated_once() {
        let mut scores = Scores::new(0);
        assert_eq!(scores.look_up(key(1)), Seen::New);
        scores.record(key(1), 0.5);
        assert_eq!(scores.look_up(key(1)), Seen::Exhausted(&[0.5]));
        assert_eq!(scores.look_up(key(2)), Seen::New);
        assert_eq!(scores.len(), 1);
    }

    #[test]
    fn duplicates_are_evaluated_up_to_the_limit() {
        let mut scores = Scores::new(2);
        assert!(scores.is_empty());
        for (number, known) in [&[][..], &[0], &[0, 1]].into_iter().enumerate() {
            match scores.look_up(key(7)) {
                Seen::New => assert!(known.is_empty()),
                Seen::Again(scores) => assert_eq!(scores, known),
                Seen::Exhausted(scores) => panic!("exhausted after {scores:?}"),
            }
            scores.record(key(7), number);
        }
        assert_eq!(scores.look_up(key(7)), Seen::Exhausted(&[0, 1, 2]));
    }

    #[test]
    fn scores_that_come_late_are_kept() {
        let mut scores = Scores::new(0);
        scores.record(key(3), "first");
        scores.record(key(3), "late");
        assert_eq!(scores.look_up(key(3)), Seen::Exhausted(&["first", "late"]));
    }
}
