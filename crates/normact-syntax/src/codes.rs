//! The codes of diagnostics: one row each, with the text of `normact explain`.
//!
//! `E01..` are about the text, `E02..` about names and settings, `E03..` about shapes; `W04..` are
//! warnings. A code keeps its meaning for ever; a retired one is not used again.

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The layer cannot be used.
    Error,
    /// The layer can be used; its author may want to know.
    Warning,
}

macro_rules! codes {
    ($($Variant:ident $code:literal $severity:ident $title:literal $example:literal $text:literal)*) => {
        /// The code of a diagnostic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $Variant,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$Variant,)*];

            /// `E0201`
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$Variant => $code,)* }
            }

            /// Error or warning.
            pub fn severity(self) -> Severity {
                match self { $(Code::$Variant => Severity::$severity,)* }
            }

            /// What it says, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$Variant => $title,)* }
            }

            /// A text that gets this diagnostic; empty where no text can show it.
            pub fn example(self) -> &'static str {
                match self { $(Code::$Variant => $example,)* }
            }

            /// What it means and what to do, at length.
            pub fn explanation(self) -> &'static str {
                match self { $(Code::$Variant => $text,)* }
            }
        }
    };
}

codes! {
    NotUtf8 "E0100" Error "the file is not UTF-8 text" "" "\
normact reads UTF-8 text. The message names the first byte that is none. Often the file is a
compiled or compressed one, or was saved in another encoding: save it again as UTF-8."

    Syntax "E0101" Error "the text does not follow the grammar"
    "layer swish(x) {\n    x * * sigmoid(x)\n}\n" "\
Something else was expected at this place. A file holds functions, layers and gradients:

    fn name(argument, ...) = expression

    layer name(x, setting = number, ...) {
        param name = number
        let name = expression
        expression
    }

    gradient name(x, dy) {
        let name = expression
        dx = expression
    }

An expression is made of numbers, names, + - * /, parentheses and calls such as tanh(x) and
std[group](x). There is no space between a called name and its bracket. Comments start with //."

    TooDeep "E0102" Error "brackets nest too deeply" "" "\
Brackets may nest 200 deep. Give parts of the formula a name:

    let inner = ...
    let outer = ... inner ..."

    TooLarge "E0103" Error "the text is too large" "" "\
A file of formulas may have one megabyte, and one layer a hundred thousand operations after its
functions are inlined. A function that calls others twice on different arguments doubles at each
step; name shared results with `let`, or check that the path names the file you meant."

    NumberRange "E0104" Error "a number is too large"
    "layer l(x) {\n    x * 1e999\n}\n" "\
Numbers are double precision: their magnitude is at most about 1.8e308."

    NoLayer "E0105" Error "the file defines no layer" "" "\
A command that needs a layer was given a file without one, or a name that the file does not define.
Write `layer name(x) { ... }`, or name one of the file's layers as `file.nact:name`."

    UnknownName "E0201" Error "a name is not defined"
    "layer l(x) {\n    param gamma = 1\n    gama * x\n}\n" "\
Every name is defined before it is used: the input, a setting of the layer, a param or a let above
this line. Names of functions are only used in calls."

    UnknownFunction "E0202" Error "a function is not defined"
    "layer l(x) {\n    tahn(x)\n}\n" "\
A call names a primitive, a moment, a function of the prelude, or a function defined earlier in the
file. `normact list --functions` prints them all."

    Redefined "E0203" Error "a name is defined twice"
    "layer l(x) {\n    let x = 2\n    x\n}\n" "\
A name means one thing in a layer: a let or param must not have the name of another, of the input
or of a setting. Two functions or layers of one file must not share a name either, and a function
must not have the name of a primitive or a moment."

    Recursion "E0204" Error "a function calls itself"
    "fn f(x) = f(x) + 1\nlayer l(x) {\n    f(x)\n}\n" "\
Functions are inlined, so a function can only call those defined above it. Repetition is written
out: let y = f(x), let z = f(y)."

    ArgumentCount "E0205" Error "a call has the wrong number of arguments"
    "layer l(x) {\n    max(x)\n}\n" "\
The message says how many arguments the function takes. add, mul, div and max take two; for more,
nest them: max(a, max(b, c))."

    UnknownSetting "E0206" Error "a setting does not exist here"
    "layer l(x) {\n    mean[batch](x, epsilon = 1)\n}\n" "\
A moment may override the layer's settings where they make a difference: eps for std and rms,
groups for group, momentum and running for batch and all. A caller may override (--set name=value)
what the layer declares after its input, and these four."

    BadSetting "E0207" Error "a setting has a value it cannot have"
    "layer l(x, groups = 0) {\n    x / std[group](x)\n}\n" "\
groups is a whole number from 1, eps a number from 0, momentum a number from 0 to 1 (the weight of
the new value), running is biased or unbiased. Other settings are numbers."

    MissingIndexSet "E0208" Error "a moment has no index set"
    "layer l(x) {\n    x - mean(x)\n}\n" "\
A moment says what it averages over: mean[batch](x).

    batch       samples and positions      one statistic per channel
    instance    positions                  per sample and channel
    layer       channels and positions     per sample
    group       positions and the channels of one group
    channel     channels                   per sample and position
    all         everything"

    UnexpectedIndexSet "E0209" Error "only moments have an index set"
    "layer l(x) {\n    tanh[batch](x)\n}\n" "\
mean, rms, std and var average over an index set, written in brackets after the name. Other
functions work element by element and have none."

    UnknownIndexSet "E0210" Error "an index set does not exist"
    "layer l(x) {\n    x - mean[rows](x)\n}\n" "\
The index sets are batch, instance, layer, group, channel and all; group may have a number, as in
group(8)."

    NotAFunction "E0211" Error "a value is called, or a function used as a value"
    "layer l(x) {\n    param v = 1\n    v(x)\n}\n" "\
Multiplication is written with *: v * (x + 1). A function's name is followed by its arguments in
parentheses: relu(x). A layer cannot be called; turn the shared part into a function."

    NoResult "E0212" Error "a layer has no result"
    "layer l(x) {\n    let y = tanh(x)\n}\n" "\
The last thing in a layer is an expression without `let`: the layer's result."

    OnlyInGradient "E0213" Error "a sum or count outside of a gradient"
    "layer l(x) {\n    x / sum[channel](x)\n}\n" "\
sum and count are known in a gradient only:

    layer scale(x) {
        param gamma = 1
        gamma * x
    }

    gradient scale(x, dy) {
        dx     = gamma * dy
        dgamma = sum[batch](x * dy)
    }

Layers and functions have mean, rms, std and var, which do not grow with the size of the input."

    IgnoresInput "E0301" Error "the result does not depend on the input"
    "layer l(x) {\n    param gamma = 1\n    gamma + 1\n}\n" "\
A layer whose result is the same for every input cannot train the network before it. (The JSON form
allows such graphs, since a search meets them.)"

    Groups "E0302" Error "groups do not divide the channels" "" "\
group(8) means exactly 8 groups, so it needs a number of channels that 8 divides. Plain `group`
takes the layer's `groups` setting and lowers it one at a time until it divides the channels, the
rule of the authors of EvoNorm."

    Rank "E0303" Error "the input's shape is not supported" "" "\
The input has 2 to 5 axes: samples, channels, and up to three spatial ones. No axis is empty."

    GradientAxes "E0304" Error "a gradient has more axes than what it is the gradient of"
    "layer l(x) {\n    param v = 1\n    v * x\n}\ngradient l(x, dy) {\n    dx = v * dy\n    dv = x * dy\n}\n" "\
Where a param is used for many elements, its gradient is a sum over all of them: sum[batch](x * dy) for
a param with one value per channel, sum[all](x * dy) for a scalar. A gradient with fewer axes than what
it belongs to is broadcast."

    UnusedLet "W0401" Warning "a let is never used"
    "layer l(x) {\n    let y = tanh(x)\n    x\n}\n" "\
Nothing after this let uses its name. Use it or remove it."

    UnusedParam "W0402" Warning "a param is never used"
    "layer l(x) {\n    param v = 1\n    x\n}\n" "\
A parameter that no expression uses is still allocated, saved and given to the optimizer. Use it or
remove it."

    IndependentOfParam "W0403" Warning "the result does not depend on a param"
    "layer l(x) {\n    param v = 1\n    let y = v * x\n    x\n}\n" "\
The param is used, but only in expressions that do not reach the result, so its gradient is always
zero."

    ConstantResult "W0404" Warning "the result does not vary along an axis of the input"
    "layer l(x) {\n    mean[instance](x)\n}\n" "\
Every element along that axis gets the same value. The result is broadcast to the input's shape, so
that the layer fits where any other does; usually the input itself is missing from the formula."

    Degenerate "W0405" Warning "a statistic is degenerate"
    "layer l(x) {\n    let m = mean[instance](x)\n    x * std[instance](m)\n}\n" "\
The value does not vary along the axes the moment averages over, or there is only one element along
them (a 1x1 map, a batch of one). A mean is then the value itself, a variance 0, and a std the root
of eps, whatever the input."

    DivisionByZero "W0406" Warning "a divisor can be zero"
    "layer l(x) {\n    x / mean[layer](x)\n}\n" "\
Interval analysis cannot exclude that the divisor is 0 for some input or parameters, where the
quotient is infinite or NaN. Divide by std or rms (positive through eps), by 1 + square(d), or by
max(d, 1e-5)."

    ExpOverflow "W0407" Warning "exp can overflow"
    "layer l(x) {\n    x * exp(x)\n}\n" "\
exp is infinite in single precision for operands above 88.7, and nothing bounds this operand. Bound
it, as in exp(min(y, 20)) or exp(-abs(y)), or use sigmoid, tanh or softplus, which are safe."

    GroupsLowered "W0408" Warning "the number of groups was lowered" "" "\
Plain `group` takes the largest number of groups, at most the `groups` setting, that divides the
channels. Write group(8) for exactly 8, or --set groups=8."

    UnusedSetting "W0409" Warning "a setting is never used"
    "layer l(x, slope = 0.1) {\n    tanh(x)\n}\n" "\
Neither an expression nor a moment reads the setting, so a caller who changes it changes nothing."

    UnusedArgument "W0410" Warning "a function's argument is never used"
    "fn f(x, y) = tanh(x)\nlayer l(x) {\n    f(x, 2)\n}\n" "\
The function's result does not depend on this argument. Use it or remove it."

    NotStated "W0411" Warning "a gradient is not stated"
    "layer l(x) {\n    param v = 1\n    v * x\n}\ngradient l(x, dy) {\n    dx = v * dy\n}\n" "\
A gradient has a line for the input and for each param of its layer: dx for x, dv for v. Those that are
missing are left out when `normact gradcheck` compares the gradient with the layer's."
}

impl Code {
    /// The code of that text, in any case.
    pub fn by_str(text: &str) -> Option<Code> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text.trim()))
    }
}
