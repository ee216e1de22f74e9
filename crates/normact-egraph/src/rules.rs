//! The rules: one algebraic line each, by theme.
//!
//! In a statement, `a b c` are any values, `k l` constants, `p q` exponents of signed powers (see
//! [`crate::term`]: `a^p` keeps the sign of `a` or drops it), `I J` index sets, `eps` the number under
//! a root, and `...` stands for more operands of a chain. Sums, products and maxima are read modulo
//! order and brackets.
//!
//! A rule's class is the weakest it can be used with. Where a statement changes which inputs are
//! defined (`a^p * a^q = a^(p+q)` for `x / x`), the guard is the proof that it does not: an interval
//! without zero. Where the guard cannot be proved, the same statement holds almost everywhere, and is
//! then used to recognise duplicates only, never to change what is executed.

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Theme {
    /// Sums and products.
    Ring,
    /// Signed powers: division, roots, absolute values, signs.
    Power,
    /// Maxima.
    Order,
    /// Exponentials, logarithms and sigmoids.
    Activation,
    /// Statistics.
    Moment,
}

/// How far a rule can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The same real number wherever either side is defined.
    Exact,
    /// Exact with a guard that interval analysis proves.
    Guarded,
    /// Equal except on inputs of measure zero.
    AlmostEverywhere,
}

impl Class {
    /// The name in machine output.
    pub fn name(self) -> &'static str {
        match self {
            Class::Exact => "exact",
            Class::Guarded => "guarded",
            Class::AlmostEverywhere => "almost-everywhere",
        }
    }
}

macro_rules! rules {
    ($( $theme:ident { $( $Rule:ident $name:literal $class:ident $gradient:ident $state:ident $statement:literal; )* } )*) => {
        /// A rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $( $( #[doc = concat!("`", $statement, "`")] $Rule, )* )*
        }

        impl Rule {
            /// Every rule, by theme.
            pub const ALL: &'static [Rule] = &[$($(Rule::$Rule,)*)*];

            /// Its telling name.
            pub fn name(self) -> &'static str {
                match self { $($(Rule::$Rule => $name,)*)* }
            }

            /// The algebraic line.
            pub fn statement(self) -> &'static str {
                match self { $($(Rule::$Rule => $statement,)*)* }
            }

            /// What it is about.
            pub fn theme(self) -> Theme {
                match self { $($(Rule::$Rule => Theme::$theme,)*)* }
            }

            /// The strongest class an application of it can have.
            pub fn class(self) -> Class {
                match self { $($(Rule::$Rule => Class::$class,)*)* }
            }

            /// Whether it can change a gradient where a side has a kink.
            pub fn changes_gradient(self) -> bool {
                match self { $($(Rule::$Rule => rules!(@flag $gradient),)*)* }
            }

            /// Whether it changes what running averages store, so that evaluation mode differs until
            /// they have settled. It concerns moments over samples only.
            pub fn changes_state(self) -> bool {
                match self { $($(Rule::$Rule => rules!(@flag $state),)*)* }
            }
        }
    };
    (@flag smooth) => { false };
    (@flag kink) => { true };
    (@flag keeps) => { false };
    (@flag state) => { true };
}

rules! {
    Ring {
        UndefinedSpreads "undefined-spreads" Exact smooth keeps "f(undefined) = undefined";
        AddConstants "add-constants" Exact smooth keeps "k + l = (k + l)";
        MulConstants "mul-constants" Exact smooth keeps "k * l = (k * l)";
        AddZero "add-zero" Exact smooth keeps "a + 0 = a";
        MulOne "mul-one" Exact smooth keeps "a * 1 = a";
        MulZero "mul-zero" Guarded smooth keeps "a * 0 = 0 if a is defined";
        CollectTerms "collect-terms" Exact smooth keeps "k * a + l * a = (k + l) * a";
        Distribute "distribute" Exact smooth keeps "(a + b + ...) * c = a * c + b * c + ...";
        FactorOut "factor-out" Exact smooth keeps "c * a + c * b + ... = c * (a + b + ...)";
    }
    Power {
        PowerOfConstant "power-of-constant" Exact smooth keeps "k^p = (k^p)";
        PowerOfProduct "power-of-product" Exact smooth keeps "(a * b * ...)^p = a^p * b^p * ...";
        PowerOfPower "power-of-power" Guarded kink keeps "(a^p)^q = a^(p*q) if a != 0 and, where p*q = 0, a is defined";
        PowerOfExp "power-of-exp" Exact smooth keeps "exp(a)^p = exp(p * a)";
        ProductOfPowers "product-of-powers" Guarded kink keeps "a^p * a^q = a^(p+q) if a != 0 and, where p+q = 0, a is defined";
        KnownSign "known-sign" Guarded smooth keeps "|a| = a if a >= 0, |a| = -a if a <= 0";
        SignOfNonzero "sign-of-nonzero" Guarded smooth keeps "sign(a) = 1 if a > 0, -1 if a < 0, |sign(a)| = 1 if a != 0, if a is defined";
        SignOfOdd "sign-of-odd" Exact kink keeps "sign(f(a)) = sign(a) for f = tanh, erf";
        ParityOfOdd "parity-of-odd" Exact kink keeps "|f(a)| = sign(a) * f(a) for f = tanh, erf";
    }
    Order {
        MaxOfConstants "max-of-constants" Exact kink keeps "max(k, l) = (max(k, l))";
        MaxIdempotent "max-idempotent" Exact kink keeps "max(a, a) = a";
        MaxDominated "max-dominated" Guarded kink keeps "max(a, b) = a if a >= b";
        MaxOfAbs "max-of-abs" Exact kink keeps "max(a + k * |b|, c) = max(a + k * b, a - k * b, c) if k > 0";
        MaxAsAbs "max-as-abs" Exact kink keeps "max(a, b) = 0.5 * (a + b) + 0.5 * |a - b|";
        MaxShift "max-shift" Exact kink keeps "max(a + c, b + c, ...) = max(a, b, ...) + c";
        MaxScale "max-scale" Guarded kink keeps "max(c * a, c * b, ...) = c * max(a, b, ...) if c >= 0";
    }
    Activation {
        FunctionOfConstant "function-of-constant" Exact smooth keeps "f(k) = (f(k))";
        ExpOfSum "exp-of-sum" Exact smooth keeps "exp(k + a) = (exp(k)) * exp(a)";
        ExpOfLog "exp-of-log" Guarded kink keeps "exp(k * log(|a|) + b) = |a|^k * exp(b) if a != 0";
        ProductOfExps "product-of-exps" Exact smooth keeps "exp(a) * exp(b) = exp(a + b)";
        LogOfProduct "log-of-product" Exact kink keeps "log(k * a^p * exp(b)) = sign(k * a^p) * (log(|k|) + p * log(|a|) + b)";
        OddFunction "odd-function" Exact smooth keeps "f(-a) = -f(a) for f = tanh, erf";
        OddFunctionOfSign "odd-function-of-sign" Exact kink keeps "f(|a| * b) = sign(a) * f(a * b) for f = tanh, erf";
        SigmoidReflection "sigmoid-reflection" Exact smooth keeps "c - c * sigmoid(a) = c * sigmoid(-a)";
        SigmoidSplit "sigmoid-split" Exact smooth keeps "c * sigmoid(-a) = c - c * sigmoid(a)";
        TanhOfSigmoid "tanh-of-sigmoid" Exact smooth keeps "2 * c * sigmoid(a) - c = c * tanh(0.5 * a)";
        TanhSplit "tanh-split" Exact smooth keeps "c * tanh(a) = 2 * c * sigmoid(2 * a) - c";
        ExpTimesSigmoid "exp-times-sigmoid" Exact smooth keeps "exp(-p * a) * sigmoid(a)^p = sigmoid(-a)^p";
        LogisticQuotient "logistic-quotient" Exact smooth keeps "k + exp(a) = k * sigmoid(log(k) - a)^-1 if k > 0";
    }
    Moment {
        MomentAxes "moment-axes" Exact smooth keeps "mean[I](a) = mean[J](a) if I and J reduce the same axes of a";
        MeanOfConstant "mean-of-constant" Exact smooth keeps "mean[I](a) = a if a is constant along I";
        VarOfConstant "var-of-constant" Guarded smooth state "var[I](a) = 0 if a is constant along I and defined";
        RmsDefinition "rms-definition" Exact smooth state "rms[I](a, eps) = sqrt(mean[I](square(a)) + eps)";
        StdDefinition "std-definition" Exact smooth keeps "std[I](a, eps) = sqrt(var[I](a) + eps)";
        MeanOfSum "mean-of-sum" Exact smooth state "mean[I]((a + b + ...) * c) = mean[I](a * c) + mean[I](b * c) + ...";
        MeanOfProduct "mean-of-product" Exact smooth state "mean[I](c * a) = c * mean[I](a) if c is constant along I";
        MeanOfMean "mean-of-mean" Exact smooth state "mean[I](mean[J](a)) = mean[I+J](a)";
        MeansSwap "means-swap" Exact smooth state "mean[batch](mean[group](a)) = mean[group](mean[batch](a))";
        MeanOfVar "mean-of-var" Exact smooth state "mean[I](var[J](a)) = var[I+J](a) - var[I](mean[J](a))";
        MeanInside "mean-inside" Exact smooth state "mean[I](c * a) = mean[I](c * mean[J](a)) if J is part of I and c is constant along J";
        MeanOfSquare "mean-of-square" Exact smooth state "mean[I](square(a)) = var[I](a) + square(mean[I](a))";
        VarOfSum "var-of-sum" Exact smooth state "var[I](a + c) = var[I](a) if c is constant along I";
        VarOfProduct "var-of-product" Exact smooth state "var[I](c * a) = square(c) * var[I](a) if c is constant along I";
    }
}
