//! Who has children: a tournament over a random part of the recent layers.
//!
//! Each layer has a score per anchor network. The winner is the layer with the best mean, or one drawn
//! from those that no other dominates. Liu et al. 2020, section 3.3.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::ranking::mean;

/// How the winner of a tournament is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Winner {
    /// The highest mean over the anchors.
    Average,
    /// Uniformly one of those that no other dominates.
    Pareto,
}

/// The position of the winner among the last `window` of `scores`, in the order of their age, by a
/// tournament over a random `share` of them (one at least); `None` if there is nobody.
pub fn tournament(scores: &[Vec<f64>], window: usize, share: f64, winner: Winner, rng: &mut impl Rng) -> Option<usize> {
    let oldest = scores.len().saturating_sub(window);
    let recent = scores.len() - oldest;
    if recent == 0 {
        return None;
    }
    let size = ((recent as f64 * share).round() as usize).clamp(1, recent);
    let mut contestants: Vec<usize> =
        rand::seq::index::sample(rng, recent, size).into_iter().map(|index| oldest + index).collect();
    // In the order of age, so that ties do not depend on the order of drawing.
    contestants.sort_unstable();
    match winner {
        Winner::Average => contestants.into_iter().max_by(|&a, &b| mean(&scores[a]).total_cmp(&mean(&scores[b]))),
        Winner::Pareto => {
            let front = front(&contestants.iter().map(|&index| scores[index].as_slice()).collect::<Vec<_>>());
            front.choose(rng).map(|&place| contestants[place])
        }
    }
}

/// The positions of those that no other dominates: none is at least as good on every anchor and better on
/// one.
pub fn front(scores: &[&[f64]]) -> Vec<usize> {
    let dominates = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a >= b) && a.iter().zip(b).any(|(a, b)| a > b);
    (0..scores.len()).filter(|&one| !scores.iter().any(|other| dominates(other, scores[one]))).collect()
}

/// One of `count` with that chance, without drawing where the answer is certain.
pub(crate) fn happens(chance: f64, rng: &mut impl Rng) -> bool {
    chance >= 1.0 || (chance > 0.0 && rng.random_bool(chance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_front_is_what_nobody_dominates() {
        let scores: [&[f64]; 5] = [&[0.5, 0.5], &[0.9, 0.1], &[0.1, 0.9], &[0.4, 0.5], &[0.5, 0.5]];
        assert_eq!(front(&scores), [0, 1, 2, 4]);
        assert_eq!(front(&[]), [] as [usize; 0]);
    }

    #[test]
    fn only_the_recent_take_part() {
        let scores: Vec<Vec<f64>> = (0..100).map(|age| vec![-f64::from(age)]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for winner in [Winner::Average, Winner::Pareto] {
            for _ in 0..200 {
                let found = tournament(&scores, 30, 0.1, winner, &mut rng).unwrap();
                assert!((70..100).contains(&found));
            }
            assert_eq!(tournament(&scores, 30, 1.0, winner, &mut rng), Some(70), "all take part, and the best wins");
            assert_eq!(tournament(&[], 30, 0.1, winner, &mut rng), None);
        }
    }

    #[test]
    fn a_pareto_tournament_takes_every_layer_of_the_front() {
        let scores = [vec![1.0, 0.0], vec![0.0, 1.0], vec![0.6, 0.6], vec![0.5, 0.5]];
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut wins = [0; 4];
        (0..300).for_each(|_| wins[tournament(&scores, 9, 1.0, Winner::Pareto, &mut rng).unwrap()] += 1);
        assert!(wins[..3].iter().all(|&wins| wins > 60) && wins[3] == 0, "{wins:?}");
    }
}
