//! Elementwise primitives and moments: enums made from the rows of the [table](crate::table).

use crate::interval::Interval;
use crate::math::*;

/// How many operands a primitive takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// One operand.
    Unary,
    /// Two operands.
    Binary,
}

impl Arity {
    /// The number of operands.
    pub fn count(self) -> usize {
        match self {
            Arity::Unary => 1,
            Arity::Binary => 2,
        }
    }
}

/// An algebraic law of a primitive `f`, true as real functions wherever both sides are defined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// `f(a, b) = f(b, a)`
    Commutative,
    /// `f(f(a, b), c) = f(a, f(b, c))`
    Associative,
    /// `f(a, a) = a`
    Idempotent,
    /// `f(a, e) = a` and `f(e, a) = a`
    Identity(f64),
    /// `f(a, e) = a`
    RightIdentity(f64),
    /// `f(a, e) = e` and `f(e, a) = e`
    Absorbing(f64),
    /// `f(f(x)) = x`
    Involution,
    /// `f(f(x)) = f(x)`
    Projection,
    /// `f(-x) = -f(x)`
    Odd,
    /// `f(-x) = f(x)`
    Even,
}

/// The derivative of a primitive at one point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slope {
    /// Of a unary primitive.
    Unary(f64),
    /// Of a binary primitive, with respect to the first and the second operand.
    Binary(f64, f64),
}

/// What a moment averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    /// `x`
    Mean,
    /// `x * x`
    MeanSquare,
    /// `(x - mean(x))` squared
    Variance,
}

macro_rules! define {
    (
        unary { $( $(#[doc = $udoc:literal])+ $Unary:ident $uname:literal {
            laws: [$($ulaw:expr),*], value: $uvalue:expr, slope: $uslope:expr, range: $urange:expr, burn: $uburn:expr,
            text: $utext:tt,
        } )* }
        binary { $( $(#[doc = $bdoc:literal])+ $Binary:ident $bname:literal {
            laws: [$($blaw:expr),*], value: $bvalue:expr, slope: $bslope:expr, range: $brange:expr, burn: $bburn:expr,
            text: $btext:tt,
        } )* }
        moment { $( $(#[doc = $mdoc:literal])+ $Moment:ident $mname:literal {
            quantity: $quantity:ident, root: $root:literal
        } )* }
    ) => {
        /// An elementwise primitive.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Prim {
            $( $(#[doc = $udoc])+ $Unary, )*
            $( $(#[doc = $bdoc])+ $Binary, )*
        }

        impl Prim {
            /// Every elementwise primitive, in the order of the table.
            pub const ALL: &'static [Prim] = &[$(Prim::$Unary,)* $(Prim::$Binary,)*];

            /// The name in the language.
            pub fn name(self) -> &'static str {
                match self { $(Prim::$Unary => $uname,)* $(Prim::$Binary => $bname,)* }
            }

            /// What it computes, in Markdown.
            pub fn doc(self) -> &'static str {
                match self { $(Prim::$Unary => concat!($($udoc),+),)* $(Prim::$Binary => concat!($($bdoc),+),)* }.trim_ascii()
            }

            /// How many operands it takes.
            pub fn arity(self) -> Arity {
                match self { $(Prim::$Unary => Arity::Unary,)* $(Prim::$Binary => Arity::Binary,)* }
            }

            /// The laws it satisfies.
            pub fn laws(self) -> &'static [Law] {
                #[allow(unused_imports)]
                use Law::*;
                match self { $(Prim::$Unary => &[$($ulaw),*],)* $(Prim::$Binary => &[$($blaw),*],)* }
            }

            /// The value on numbers; a unary primitive ignores `b`.
            pub fn value(self, a: f64, b: f64) -> f64 {
                match self {
                    $(Prim::$Unary => { let value: fn(f64) -> f64 = $uvalue; value(a) })*
                    $(Prim::$Binary => { let value: fn(f64, f64) -> f64 = $bvalue; value(a, b) })*
                }
            }

            /// The derivative at operands `a`, `b` where the value is `y`.
            pub fn slope(self, a: f64, b: f64, y: f64) -> Slope {
                match self {
                    $(Prim::$Unary => { let slope: fn(f64, f64) -> f64 = $uslope; Slope::Unary(slope(a, y)) })*
                    $(Prim::$Binary => {
                        let slope: fn(f64, f64, f64) -> (f64, f64) = $bslope;
                        let (da, db) = slope(a, b, y);
                        Slope::Binary(da, db)
                    })*
                }
            }

            /// An interval that holds every value for operands in `a` and `b`.
            pub fn range(self, a: Interval, b: Interval) -> Interval {
                match self {
                    $(Prim::$Unary => { let range: fn(Interval) -> Interval = $urange; range(a) })*
                    $(Prim::$Binary => { let range: fn(Interval, Interval) -> Interval = $brange; range(a, b) })*
                }
            }
        }

        /// A moment: a statistic over an index set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Moment {
            $( $(#[doc = $mdoc])+ $Moment, )*
        }

        impl Moment {
            /// Every moment, in the order of the table.
            pub const ALL: &'static [Moment] = &[$(Moment::$Moment,)*];

            /// The name in the language.
            pub fn name(self) -> &'static str {
                match self { $(Moment::$Moment => $mname,)* }
            }

            /// What it computes, in Markdown.
            pub fn doc(self) -> &'static str {
                match self { $(Moment::$Moment => concat!($($mdoc),+),)* }.trim_ascii()
            }

            /// What it averages.
            pub fn quantity(self) -> Quantity {
                match self { $(Moment::$Moment => Quantity::$quantity,)* }
            }

            /// Whether it is `sqrt(quantity + eps)` rather than the quantity itself.
            pub fn is_root(self) -> bool {
                match self { $(Moment::$Moment => $root,)* }
            }
        }
    };
}

crate::primitives!(define);

impl Prim {
    /// The primitive of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|prim| prim.name() == name)
    }

    /// Whether the law is one of its laws.
    pub fn obeys(self, law: Law) -> bool {
        self.laws().contains(&law)
    }
}

impl Moment {
    /// The moment of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|moment| moment.name() == name)
    }
}
