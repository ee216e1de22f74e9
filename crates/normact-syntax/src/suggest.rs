//! "Did you mean": the known name nearest to a misspelt one.

/// The nearest of `known`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    // The distance takes time in proportion to the product of the lengths.
    if length > LONGEST_WORD {
        return None;
    }
    let distance = |name: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase());
    // One slip in a short name, two in a long one; any two single letters are one slip apart.
    let slips = match length {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    let near_in_length = |name: &&str| name.chars().count().abs_diff(length) <= slips;
    let (distance, name) = known.into_iter().filter(near_in_length).map(|name| (distance(name), name)).min()?;
    (distance <= slips).then_some(name)
}

/// Nothing is suggested for longer words.
const LONGEST_WORD: usize = 64;

/// The first names of a list, and how many more there are.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.into_iter().collect();
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// "did you mean `x`?", or what there is.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, otherwise: String) -> String {
    match nearest(word, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise,
    }
}
