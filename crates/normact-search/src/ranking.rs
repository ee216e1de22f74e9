//! Which of the layers of a search are the best.

use std::collections::HashSet;

use crate::fitness::Verdict;
use crate::store::Candidate;

/// The mean; of numbers that are not all finite it is not finite either.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Candidate {
    /// Its scores, if it was trained to the end and they are numbers.
    pub fn scores(&self) -> Option<&[f64]> {
        match &self.verdict {
            Some(Verdict::Scored(scores)) if mean(scores).is_finite() => Some(scores),
            Some(Verdict::Scored(_) | Verdict::Rejected { .. }) | None => None,
        }
    }

    /// The mean of its scores.
    pub fn mean(&self) -> Option<f64> {
        self.scores().map(mean)
    }
}

/// The layers with scores, the best mean first, and of equal ones that which its run met the earliest. Spellings
/// of one layer count once: the first stands for all.
pub fn ranked(candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut scored: Vec<(f64, &Candidate)> =
        candidates.iter().filter_map(|candidate| Some((candidate.mean()?, candidate))).collect();
    scored.sort_by(|(a, one), (b, other)| {
        b.total_cmp(a).then_with(|| (one.number, one.run).cmp(&(other.number, other.run)))
    });
    let mut keys = HashSet::new();
    scored.into_iter().map(|(_, candidate)| candidate).filter(|candidate| keys.insert(&candidate.key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fitness::Reason;
    use crate::store::Origin;

    #[test]
    fn the_best_come_first_and_each_layer_once() {
        let candidate = |run, number, key: &str, verdict| Candidate {
            run,
            number,
            origin: Origin::Fresh,
            graph: String::new(),
            key: key.to_owned(),
            is_duplicate: false,
            verdict,
            seconds: 0.0,
            finished_at: None,
            finish: None,
        };
        let scored = |scores: &[f64]| Some(Verdict::Scored(scores.to_vec()));
        let all = [
            candidate(0, 5, "late", scored(&[0.5, 0.7])),
            candidate(0, 8, "nan", scored(&[f64::NAN, 0.7])),
            candidate(0, 9, "best", scored(&[0.9, 0.7])),
            candidate(1, 2, "best", scored(&[0.9, 0.7])),
            candidate(1, 3, "early", scored(&[0.7, 0.5])),
            candidate(1, 4, "none", scored(&[])),
            candidate(1, 5, "bad", Some(Verdict::Rejected { reason: Reason::Quality, detail: String::new() })),
            candidate(1, 6, "new", None),
        ];
        let found: Vec<_> = ranked(&all).into_iter().map(|one| (one.key.as_str(), one.number)).collect();
        assert_eq!(found, [("best", 2), ("early", 3), ("late", 5)]);
        assert_eq!((all[0].mean(), all[1].mean(), all[6].mean()), (Some(0.6), None, None));
    }
}
