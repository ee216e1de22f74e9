//! How primitives are written: the `text` column of the primitive table.

use normact_ir::Prim;

/// A primitive in each language: a template with `{}` for each operand, or the sign of an operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    /// On Burn tensors.
    pub(crate) rust: &'static str,
    /// On torch tensors.
    pub(crate) torch: &'static str,
    /// On JAX arrays.
    pub(crate) jax: &'static str,
    /// The ONNX operator; in lower case, the name of what several operators make.
    pub(crate) onnx: &'static str,
    /// In a node of a drawing.
    pub(crate) sign: &'static str,
    /// The sign or the command of a LaTeX formula, without operands.
    pub(crate) latex: &'static str,
}

macro_rules! texts {
    (
        unary { $( $(#[doc = $udoc:literal])+ $Unary:ident $uname:literal {
            laws: [$($ulaw:expr),*], value: $uvalue:expr, slope: $uslope:expr, range: $urange:expr, burn: $uburn:expr,
            text: [rust $urust:literal, torch $utorch:literal, jax $ujax:literal, onnx $uonnx:literal,
                   sign $usign:literal, latex $ulatex:literal],
        } )* }
        binary { $( $(#[doc = $bdoc:literal])+ $Binary:ident $bname:literal {
            laws: [$($blaw:expr),*], value: $bvalue:expr, slope: $bslope:expr, range: $brange:expr, burn: $bburn:expr,
            text: [rust $brust:literal, torch $btorch:literal, jax $bjax:literal, onnx $bonnx:literal,
                   sign $bsign:literal, latex $blatex:literal],
        } )* }
        moment { $($moment:tt)* }
    ) => {
        /// How a primitive is written.
        pub(crate) fn text(prim: Prim) -> Text {
            match prim {
                $(Prim::$Unary => Text {
                    rust: $urust, torch: $utorch, jax: $ujax, onnx: $uonnx, sign: $usign, latex: $ulatex,
                },)*
                $(Prim::$Binary => Text {
                    rust: $brust, torch: $btorch, jax: $bjax, onnx: $bonnx, sign: $bsign, latex: $blatex,
                },)*
            }
        }
    };
}

normact_ir::primitives!(texts);
