//! The classes of PyTorch and timm that are known: a row of a table each. Facts: PyTorch 2.15, timm 1.0.31.

/// A class that normalizes.
pub(super) struct Norm {
    /// The names of the class, and of those that compute the same.
    pub(super) classes: &'static [&'static str],
    /// The module that has it, where another one has a class of the same name.
    pub(super) module: Option<&'static str>,
    /// How the formula's name starts.
    pub(super) stem: &'static str,
    /// The parameters other than gamma and beta, as in the formula.
    pub(super) params: &'static str,
    /// What the affine map is applied to.
    pub(super) normalized: &'static str,
    /// The arguments in order.
    pub(super) arguments: &'static [&'static str],
    /// The settings of the formula, with the class's default values.
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// Whether gamma and beta are there if no argument says so.
    pub(super) affine: [bool; 2],
    /// Where the activation stands.
    pub(super) activation: Activation,
}

/// Where the activation of a class stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Activation {
    /// In another module that follows.
    Follows,
    /// In the same class, after the affine map; ReLU unless `act_layer` says otherwise.
    Argument,
    /// In the formula.
    Built,
    /// In the formula, with a threshold instead of a function.
    Threshold,
}

const BATCH: &[&str] = &["num_features", "eps", "momentum", "affine", "track_running_stats", "apply_act", "act_layer"];
const INSTANCE: &[&str] = &["num_features", "eps", "momentum", "affine", "track_running_stats"];
const GROUP: &[&str] = &["num_groups", "num_channels", "eps", "affine"];
pub(super) const GROUP_TIMM: &[&str] =
    &["num_channels", "num_groups", "eps", "affine", "group_size", "apply_act", "act_layer"];
const LAYER: &[&str] = &["normalized_shape", "eps", "elementwise_affine", "bias"];
const LAYER_TIMM: &[&str] = &["num_channels", "eps", "affine", "apply_act", "act_layer"];
const EVO_B: &[&str] = &["num_features", "apply_act", "momentum", "eps"];
const EVO_S0: &[&str] = &["num_features", "groups", "group_size", "apply_act", "eps"];
const EVO_S: &[&str] = &["num_features", "groups", "group_size", "apply_act", "act_layer", "eps"];
const FILTER: &[&str] = &["num_features", "apply_act", "eps", "rms"];
const FILTER_ACT: &[&str] = &["num_features", "apply_act", "act_layer", "inplace", "rms", "eps"];

const BY_BATCH: &str = "(x - mean[batch](x)) / std[batch](x)";
const BY_GROUP: &str = "(x - mean[group](x)) / std[group](x)";
pub(super) const BY_LAYER: &str = "(x - mean[layer](x)) / std[layer](x)";
const BY_CHANNEL: &str = "(x - mean[channel](x)) / std[channel](x)";
const RUNNING: &[(&str, &str)] = &[("eps", "1e-5"), ("momentum", "0.1"), ("running", "unbiased")];

/// A row for a class whose activation follows; others say what differs.
const PLAIN: Norm = Norm {
    classes: &[],
    module: None,
    stem: "",
    params: "",
    normalized: "",
    arguments: LAYER,
    settings: &[("eps", "1e-5")],
    affine: [true, true],
    activation: Activation::Follows,
};

/// Every class that is known.
pub(super) const NORMS: &[Norm] = &[
    Norm {
        classes: &["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"],
        stem: "bn",
        normalized: BY_BATCH,
        arguments: BATCH,
        settings: RUNNING,
        ..PLAIN
    },
    Norm {
        classes: &["BatchNormAct2d", "SyncBatchNormAct"],
        stem: "bn",
        normalized: BY_BATCH,
        arguments: BATCH,
        settings: RUNNING,
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm {
        classes: &["GroupNorm"],
        module: Some("timm"),
        stem: "gn",
        normalized: BY_GROUP,
        arguments: GROUP_TIMM,
        settings: &[("groups", "32"), ("eps", "1e-5")],
        ..PLAIN
    },
    Norm {
        classes: &["GroupNorm"],
        stem: "gn",
        normalized: BY_GROUP,
        arguments: GROUP,
        settings: &[("groups", ""), ("eps", "1e-5")],
        ..PLAIN
    },
    Norm {
        classes: &["GroupNormAct"],
        stem: "gn",
        normalized: BY_GROUP,
        arguments: GROUP_TIMM,
        settings: &[("groups", "32"), ("eps", "1e-5")],
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm { classes: &["GroupNorm1"], stem: "ln", normalized: BY_LAYER, arguments: LAYER_TIMM, ..PLAIN },
    Norm {
        classes: &["GroupNorm1Act"],
        stem: "ln",
        normalized: BY_LAYER,
        arguments: LAYER_TIMM,
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm {
        classes: &["LayerNorm"],
        module: Some("timm"),
        stem: "channel_norm",
        normalized: BY_CHANNEL,
        arguments: LAYER_TIMM,
        settings: &[("eps", "1e-6")],
        ..PLAIN
    },
    Norm { classes: &["LayerNorm"], stem: "channel_norm", normalized: BY_CHANNEL, ..PLAIN },
    Norm {
        classes: &["LayerNorm2d"],
        stem: "channel_norm",
        normalized: BY_CHANNEL,
        arguments: LAYER_TIMM,
        settings: &[("eps", "1e-6")],
        ..PLAIN
    },
    Norm {
        classes: &["LayerNormAct", "LayerNormAct2d", "LayerNormActFp32", "LayerNormAct2dFp32"],
        stem: "channel_norm",
        normalized: BY_CHANNEL,
        arguments: LAYER_TIMM,
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm {
        classes: &["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"],
        stem: "in",
        normalized: "(x - mean[instance](x)) / std[instance](x)",
        arguments: INSTANCE,
        affine: [false, false],
        ..PLAIN
    },
    Norm {
        classes: &["RMSNorm"],
        stem: "rms_norm",
        normalized: "x / rms[channel](x)",
        affine: [true, false],
        arguments: &["normalized_shape", "eps", "elementwise_affine"],
        // Without an eps PyTorch takes the machine epsilon of f32.
        settings: &[("eps", "1.1920929e-7")],
        ..PLAIN
    },
    Norm {
        classes: &["RmsNorm", "RmsNorm2d", "RmsNormFp32", "RmsNorm2dFp32"],
        stem: "rms_norm",
        normalized: "x / rms[channel](x)",
        affine: [true, false],
        arguments: LAYER_TIMM,
        settings: &[("eps", "1e-6")],
        ..PLAIN
    },
    Norm {
        classes: &["RmsNormAct", "RmsNormAct2d", "RmsNormActFp32", "RmsNormAct2dFp32"],
        stem: "rms_norm",
        normalized: "x / rms[channel](x)",
        affine: [true, false],
        arguments: LAYER_TIMM,
        settings: &[("eps", "1e-6")],
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm {
        classes: &["FilterResponseNormTlu2d", "frntlu"],
        stem: "frn_tlu",
        params: "    param tau = 0\n",
        normalized: "x / rms[instance](x)",
        arguments: FILTER,
        activation: Activation::Threshold,
        ..PLAIN
    },
    Norm {
        classes: &["FilterResponseNormAct2d", "frn"],
        stem: "frn",
        normalized: "x / rms[instance](x)",
        arguments: FILTER_ACT,
        activation: Activation::Argument,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dB0"],
        stem: "evonorm_b0",
        params: "    param v = 1\n",
        normalized: "x / max(std[batch](x), v * x + std[instance](x))",
        arguments: EVO_B,
        settings: &[("eps", "1e-3"), ("momentum", "0.1"), ("running", "unbiased")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dB1"],
        stem: "evonorm_b1",
        normalized: "x / max(std[batch](x), (x + 1) * rms[instance](x))",
        arguments: EVO_B,
        settings: RUNNING,
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dB2"],
        stem: "evonorm_b2",
        normalized: "x / max(std[batch](x), rms[instance](x) - x)",
        arguments: EVO_B,
        settings: RUNNING,
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS0"],
        stem: "evonorm_s0",
        params: "    param v = 1\n",
        normalized: "x * sigmoid(v * x) / std[group](x)",
        arguments: EVO_S0,
        settings: &[("groups", "32"), ("eps", "1e-5")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS0a"],
        stem: "evonorm_s0",
        params: "    param v = 1\n",
        normalized: "x * sigmoid(v * x) / std[group](x)",
        arguments: EVO_S0,
        settings: &[("groups", "32"), ("eps", "1e-3")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS1"],
        stem: "evonorm_s1",
        normalized: "silu(x) / std[group](x)",
        arguments: EVO_S,
        settings: &[("groups", "32"), ("eps", "1e-5")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS1a"],
        stem: "evonorm_s1",
        normalized: "silu(x) / std[group](x)",
        arguments: EVO_S,
        settings: &[("groups", "32"), ("eps", "1e-3")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS2"],
        stem: "evonorm_s2",
        normalized: "silu(x) / rms[group](x)",
        arguments: EVO_S,
        settings: &[("groups", "32"), ("eps", "1e-5")],
        activation: Activation::Built,
        ..PLAIN
    },
    Norm {
        classes: &["EvoNorm2dS2a"],
        stem: "evonorm_s2",
        normalized: "silu(x) / rms[group](x)",
        arguments: EVO_S,
        settings: &[("groups", "32"), ("eps", "1e-3")],
        activation: Activation::Built,
        ..PLAIN
    },
];

/// Activations: the class, its name in timm, and the function of the prelude.
pub(super) const ACTIVATIONS: &[(&str, &str, &str)] = &[
    ("ReLU", "relu", "relu"),
    ("ReLU6", "relu6", "relu6"),
    ("LeakyReLU", "leaky_relu", "leaky_relu"),
    ("SiLU", "silu", "silu"),
    ("Swish", "swish", "silu"),
    ("GELU", "gelu", "gelu"),
    ("GELUTanh", "gelu_tanh", "gelu_tanh"),
    ("Mish", "mish", "mish"),
    ("ELU", "elu", "elu"),
    ("Sigmoid", "sigmoid", "sigmoid"),
    ("Tanh", "tanh", "tanh"),
    ("Softplus", "softplus", "softplus"),
    ("Softsign", "softsign", "softsign"),
    ("Hardsigmoid", "hard_sigmoid", "hard_sigmoid"),
    ("Hardswish", "hard_swish", "hard_swish"),
    ("Identity", "identity", ""),
];
