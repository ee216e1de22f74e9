//! Any text: messages without a panic; where it parses, a layout that means the same; where it
//! compiles, layers of which everything in the library holds.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use normact_fuzz::{analyse, holds};
use normact_ir::{Layer, Shape};
use normact_syntax::{Analysis, Source, format, parse, render, shape_diagnostics};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    let (source, analysis) = analyse(text);
    let (parsed, diagnostics) = parse(&source);
    if diagnostics.is_empty() {
        let once = format(&source, &parsed.file);
        layout_is_stable(&once);
        let (_, again) = analyse(&once);
        assert_eq!(layers(&again), layers(&analysis), "formatting changed the meaning:\n{once}");
        assert_eq!(codes(&again), codes(&analysis), "formatting changed the messages:\n{once}");
    }
    for compiled in &analysis.layers {
        holds(&compiled.layer);
        for dims in [&[2, 4, 3][..], &[1, 1]] {
            let shape = Shape::new(dims).expect("the sizes are positive");
            render(&source, &shape_diagnostics(compiled, &shape), true);
        }
    }
    Corpus::Keep
});

// Changed bytes seldom make another formula, so every second change is one of a word or sign.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.into());
    let text = std::str::from_utf8(&bytes[..size]).ok().filter(|_| rng.random_bool(0.5));
    match text.and_then(|text| with_another_token(text, &mut rng)) {
        Some(text) if text.len() <= max_size => {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            text.len()
        }
        _ => fuzzer_mutate(bytes, size, max_size),
    }
});

fn layout_is_stable(once: &str) {
    let source = Source::new("formatted.nact", once);
    let (parsed, diagnostics) = parse(&source);
    assert!(diagnostics.is_empty(), "the layout is no text:\n{once}\n{}", render(&source, &diagnostics, false));
    assert_eq!(format(&source, &parsed.file), once, "formatting twice is not formatting once");
}

fn layers(analysis: &Analysis) -> Vec<&Layer> {
    analysis.layers.iter().map(|compiled| &compiled.layer).collect()
}

fn codes(analysis: &Analysis) -> BTreeSet<&'static str> {
    analysis.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect()
}

/// The text with one token put into brackets, negated, replaced by another of the text, or followed
/// by layout.
fn with_another_token(text: &str, rng: &mut ChaCha8Rng) -> Option<String> {
    let layout = [" ", "\n", "\n\n", " // c\n", "//\n", "\n// c\n\n", "\t", "\r\n", ","];
    let tokens = tokens(text);
    let place = rng.random_range(0..tokens.len().max(1));
    let token = tokens.get(place)?;
    let changed = match rng.random_range(0..5) {
        0 => format!("({token})"),
        1 => format!("-{token}"),
        2 => (*tokens.choose(rng)?).to_owned(),
        3 => format!("{token}{}{}", ["+", "-", "*", "/"].choose(rng)?, tokens.choose(rng)?),
        _ => format!("{token}{}", layout.choose(rng)?),
    };
    Some([&tokens[..place].concat(), &changed, &tokens[place + 1..].concat()].map(String::as_str).concat())
}

/// Words and numbers, and every other character by itself.
fn tokens(text: &str) -> Vec<&str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(if word > 0 { word } else { first.len_utf8() });
        tokens.push(token);
        rest = after;
    }
    tokens
}
