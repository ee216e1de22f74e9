//! Formulas in Rust code: [`layer!`] becomes the Burn module that `normact emit --target rust` writes,
//! while the crate is compiled. The crate that uses it needs `burn` and nothing of normact at run time.
//!
//! The macro puts its tokens together to the text they came from, remembers the place of each, and hands
//! the text to the compiler of the language. A mistake in the formula is an error of rustc at the tokens
//! it is in, with the message and the help of the command line.

mod expand;
mod input;
mod quoted;

use proc_macro::TokenStream;

/// Makes a Burn module of a formula.
///
/// The name of the module and the formula; `v` and `gamma` are parameters that start at 1 and `beta` one
/// that starts at 0, if the formula uses them without a definition:
///
/// ```ignore
/// layer! {
///     /// EvoNorm-S0, Liu et al. 2020.
///     pub EvoNormS0 { x * sigmoid(v * x) / std[group](x) * gamma + beta }
/// }
///
/// let norm = EvoNormS0Config::new(64).init(&device);
/// let y = norm.forward(x);
/// ```
///
/// With settings, parameters and `let` as the language has them:
///
/// ```ignore
/// layer! {
///     pub DynamicErf(x, groups = 8) {
///         param alpha: scalar = 0.5
///         let z = alpha * x
///         gamma * erf(z) + beta
///     }
/// }
/// ```
///
/// A text of the language, with functions; a layer `swish_norm` becomes the module `SwishNorm`:
///
/// ```ignore
/// layer! {
///     pub
///     fn swish(x, v) = x * sigmoid(v * x)
///     layer swish_norm(x) { param v = 1  swish(x, v) / rms[group](x) }
/// }
/// ```
///
/// A file, from the folder of the crate's `Cargo.toml`, and one layer of it:
///
/// ```ignore
/// layer!(pub "layers/all.nact");
/// layer!(pub Norm = "layers/all.nact:evonorm_b0");
/// ```
///
/// Warnings are not reported; `normact check` shows those of a file.
#[proc_macro]
pub fn layer(input: TokenStream) -> TokenStream {
    expand::expand(input).unwrap_or_else(|mistakes| mistakes.into_iter().map(expand::Mistake::tokens).collect())
}
