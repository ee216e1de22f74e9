//! The report of a search as one page.

use normact_ir::Layer;
use normact_search::{Candidate, Run, Space};

/// What a report is about.
pub(crate) struct Subject<'a> {
    pub(crate) title: &'a str,
    pub(crate) anchors: &'a [String],
    pub(crate) runs: &'a [Run],
    pub(crate) candidates: &'a [Candidate],
    pub(crate) space: &'a Space,
    pub(crate) fixed: &'a [(String, Layer)],
    pub(crate) reranked: &'a [Reranked],
}

/// A layer that was trained again.
pub(crate) struct Reranked {
    pub(crate) graph: String,
    pub(crate) scores: Vec<Vec<f64>>,
}

/// The page.
pub(crate) fn html(subject: &Subject<'_>) -> String {
    format!("<!doctype html><title>{}</title>", subject.title)
}
