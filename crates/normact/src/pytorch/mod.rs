//! Formulas of layers that PyTorch and timm have, by their names there, and the weights they save.
//!
//! A class is one row of a table: which statistics it subtracts and divides by, and how each of its
//! arguments is written as a setting. An activation is a function of the prelude. Where norm and
//! activation make a built-in layer the formula has that layer's name and equals it.

mod classes;
mod expression;

use std::fmt::Write as _;

use normact_ir::{Layer, Scalar};

use crate::{Failure, from_text};
use classes::{ACTIVATIONS, Activation, BY_LAYER, GROUP_TIMM, NORMS, Norm};
use expression::{Call, Value};

/// What stands for the names of parameters in the weights that PyTorch saves.
const RENAMED: &[(&str, &str)] = &[("gamma", "weight"), ("beta", "bias")];

/// A layer of PyTorch or timm as a formula.
#[derive(Debug, Clone)]
pub(crate) struct FromName {
    /// The formula's text.
    pub(crate) text: String,
    /// The layer it defines.
    pub(crate) layer: Layer,
    /// The number of channels, if the name says it.
    pub(crate) channels: Option<usize>,
}

/// The name that PyTorch's modules give the value which a formula calls `name`.
pub(crate) fn saved_name(name: &str) -> &str {
    RENAMED.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs)
}

/// The formula of a layer as PyTorch users write it or PyTorch prints it.
///
/// # Errors
/// The text cannot be read, or asks for something that the language does not have.
pub(crate) fn from_name(text: &str) -> Result<FromName, Failure> {
    let calls: Vec<Call> = expression::parse(text)?.into_iter().flat_map(flattened).collect();
    let [norm_call, activations @ ..] = calls.as_slice() else {
        return Err(Failure::new(format!("`{}` has no layer in it", text.trim())));
    };
    let norm = find_norm(norm_call)?;
    let mut arguments = Arguments::of(norm, norm_call)?;
    let own = arguments.activation(norm, norm_call)?;
    let function = match (own, activations) {
        (Some(own), []) => own,
        (None, []) => "",
        (None, [one]) => activation_of(&Value::Call(one.clone()))?,
        (Some(_), [more, ..]) | (None, [_, more, ..]) => {
            return Err(Failure::new(format!("`{}` comes after the activation", more.name))
                .help("a layer is one normalization and one activation"));
        }
    };
    let text = arguments.formula(norm, function)?;
    let layer = from_text(&text)?;
    Ok(FromName { text, layer, channels: arguments.channels })
}

/// The parts of a `Sequential`, or the layer itself.
fn flattened(call: Call) -> Vec<Call> {
    if call.class() != "Sequential" {
        return vec![call];
    }
    let positional = call.positional.into_iter().filter_map(|value| match value {
        Value::Call(call) => Some(call),
        Value::Number(_) | Value::Text(_) | Value::List(_) => None,
    });
    positional.chain(call.parts.into_iter().map(|(_, call)| call)).flat_map(flattened).collect()
}

fn find_norm(call: &Call) -> Result<&'static Norm, Failure> {
    let module = call.name.split('.').next().filter(|module| *module != call.name);
    // timm looks names up without underscores and in any case, and without `2d`.
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let class = plain(call.class());
    let short = |known: &str| plain(known).replace("norm2d", "norm");
    let named = |norm: &&Norm| norm.classes.iter().any(|known| plain(known) == class || short(known) == class);
    let fits = |norm: &&Norm| norm.module.is_none_or(|needed| module == Some(needed));
    // `RMSNorm` is PyTorch's and `RmsNorm` timm's, so a name as it is written comes first.
    let exact = |norm: &&Norm| norm.classes.contains(&call.class());
    let found = NORMS.iter().filter(exact).find(fits).or_else(|| NORMS.iter().filter(named).find(fits));
    found.ok_or_else(|| {
        let known: Vec<&str> = NORMS.iter().flat_map(|norm| norm.classes).copied().collect();
        let help = match normact_syntax::nearest(call.class(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let classes: Vec<&str> = known.into_iter().filter(|name| !name.ends_with("Fp32")).collect();
                format!("there are {}", classes.join(", "))
            }
        };
        Failure::new(format!("no normalization of PyTorch or timm is known as `{}`", call.name)).help(help)
    })
}

/// The function of the prelude that an activation is.
fn activation_of(value: &Value) -> Result<&'static str, Failure> {
    let none = Call { name: "Identity".to_owned(), positional: vec![], named: vec![], parts: vec![] };
    let call = match value {
        Value::Call(call) if call.name == "None" => none,
        Value::Call(call) => call.clone(),
        Value::Text(name) => Call { name: name.clone(), ..none },
        Value::Number(number) => return Err(Failure::new(format!("{number} is not an activation"))),
        Value::List(_) => return Err(Failure::new("a list is not an activation")),
    };
    let class = call.class();
    let found = ACTIVATIONS.iter().find(|(theirs, timm, _)| *theirs == class || *timm == class);
    let Some((_, _, function)) = found else {
        let known = ACTIVATIONS.iter().flat_map(|(theirs, timm, _)| [*theirs, *timm]);
        let help = match normact_syntax::nearest(class, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let known: Vec<&str> = ACTIVATIONS.iter().map(|(theirs, ..)| *theirs).collect();
                format!("there are {}", known.join(", "))
            }
        };
        return Err(Failure::new(format!("the language has no activation for `{}`", call.name)).help(help));
    };
    for (name, value) in &call.named {
        let default = match (*function, name.as_str(), value) {
            (_, "inplace", _) => true,
            ("gelu", "approximate", Value::Text(kind)) if kind == "tanh" => return Ok("gelu_tanh"),
            ("gelu", "approximate", Value::Text(kind)) => kind == "none",
            ("leaky_relu", "negative_slope", Value::Number(slope)) => slope.parse() == Ok(0.01),
            ("elu", "alpha", Value::Number(alpha)) => alpha.parse() == Ok(1.0),
            ("softplus", "beta", Value::Number(beta)) => beta.parse() == Ok(1.0),
            ("softplus", "threshold", Value::Number(_)) => true,
            _ => false,
        };
        if !default {
            return Err(Failure::new(format!("`{}` with `{name}` is not an activation of the language", call.name))
                .help("import the layer without it and change the formula"));
        }
    }
    match (*function, call.positional.as_slice()) {
        (function, []) => Ok(function),
        _ => Err(Failure::new(format!("`{}` has arguments without a name", call.name)).help("name them")),
    }
}

/// What the arguments of a class say.
struct Arguments {
    settings: Vec<(&'static str, String)>,
    channels: Option<usize>,
    gamma: bool,
    beta: bool,
    /// What the argument `bias` says, in whatever order the arguments come.
    bias: Option<bool>,
    act: bool,
    act_layer: Option<Value>,
}

impl Arguments {
    fn of(norm: &Norm, call: &Call) -> Result<Self, Failure> {
        let mut given: Vec<(String, Value)> = vec![];
        for (number, value) in call.positional.iter().enumerate() {
            let Some(name) = norm.arguments.get(number) else {
                return Err(Failure::new(format!(
                    "`{}` takes {} arguments without a name, not {}",
                    call.name,
                    norm.arguments.len(),
                    call.positional.len()
                )));
            };
            given.push(((*name).to_owned(), value.clone()));
        }
        // PyTorch prints a group norm's two counts in the order of its own arguments, also for timm's.
        let is_one_group = norm.classes[0].starts_with("GroupNorm1") && given.len() > 1;
        if is_one_group && given[1].0 == "eps" {
            given.remove(0);
            given[0].0 = "num_channels".to_owned();
        }
        if norm.arguments == GROUP_TIMM && call.parts.iter().any(|(part, _)| part == "act") && given.len() > 1 {
            given.swap(0, 1);
            given[0].0 = "num_channels".to_owned();
            given[1].0 = "num_groups".to_owned();
        }
        given.extend(call.named.iter().cloned());
        let settings = norm.settings.iter().map(|(name, default)| (*name, (*default).to_owned())).collect();
        let [gamma, beta] = norm.affine;
        let mut arguments = Self { settings, channels: None, gamma, beta, bias: None, act: true, act_layer: None };
        let mut group_size = None;
        for (name, value) in &given {
            arguments.take(norm, call, name, value, &mut group_size)?;
        }
        if let Some(size) = group_size {
            let channels = arguments.channels.ok_or_else(|| {
                Failure::new(format!("`{}` has a group_size but no number of channels", call.name))
                    .help("say it, as in `EvoNorm2dS0(64, group_size=16)`")
            })?;
            if !channels.is_multiple_of(size) {
                return Err(Failure::new(format!("groups of {size} do not divide {channels} channels")));
            }
            arguments.set("groups", (channels / size).to_string());
        }
        if arguments.settings.iter().any(|(_, value)| value.is_empty()) {
            return Err(Failure::new(format!("`{}` does not say its number of groups", call.name))
                .help("write it as `GroupNorm(32, 64)` or `GroupNorm(num_groups=32)`"));
        }
        Ok(arguments)
    }

    fn beta_or(&self, default: bool) -> bool {
        self.bias.unwrap_or(default)
    }

    fn set(&mut self, setting: &str, value: String) {
        self.settings.iter_mut().filter(|(name, _)| *name == setting).for_each(|(_, old)| old.clone_from(&value));
    }

    fn take(
        &mut self,
        norm: &Norm,
        call: &Call,
        name: &str,
        value: &Value,
        group_size: &mut Option<usize>,
    ) -> Result<(), Failure> {
        let wrong = |expected: &str| Failure::new(format!("`{name}` of `{}` is not {expected}", call.name));
        let word = match value {
            Value::Call(call) => Some(call.name.as_str()),
            Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        };
        let flag = || match word {
            Some("True") => Ok(true),
            Some("False") => Ok(false),
            _ => Err(wrong("True or False")),
        };
        let count = |value: &Value| match value {
            Value::Number(number) => number.parse::<usize>().ok().filter(|count| *count > 0),
            Value::List(values) => match values.as_slice() {
                [Value::Number(number)] => number.parse::<usize>().ok().filter(|count| *count > 0),
                _ => None,
            },
            Value::Text(_) | Value::Call(_) => None,
        };
        let positive = || match value {
            Value::Number(number) => number.parse::<f64>().ok().filter(|number| *number >= 0.0).and_then(Scalar::new),
            Value::Text(_) | Value::Call(_) | Value::List(_) => None,
        };
        // Keyword arguments that their class lacks are ignored by some classes of timm, and a mistake here.
        let known = norm.arguments.contains(&name)
            || [
                "inplace",
                "device",
                "dtype",
                "elementwise_affine",
                "affine",
                "bias",
                "normalization_shape",
                "channels",
            ]
            .contains(&name);
        if !known {
            let mut failure = Failure::new(format!("`{}` has no argument `{name}`", call.name));
            if let Some(near) = normact_syntax::nearest(name, norm.arguments.iter().copied()) {
                failure = failure.help(format!("did you mean `{near}`?"));
            }
            return Err(failure);
        }
        match name {
            "num_features" | "num_channels" | "normalized_shape" | "normalization_shape" | "channels" => {
                let channels = count(value).ok_or_else(|| {
                    wrong("one number of channels").help("the language normalizes over one axis of channels")
                })?;
                self.channels = Some(channels);
            }
            "num_groups" | "groups" => {
                self.set("groups", count(value).ok_or_else(|| wrong("a number of groups"))?.to_string());
            }
            "group_size" if word == Some("None") => {}
            "group_size" => *group_size = Some(count(value).ok_or_else(|| wrong("a number of channels"))?),
            "eps" if word == Some("None") && norm.classes.contains(&"RMSNorm") => {}
            "eps" => self.set("eps", positive().ok_or_else(|| wrong("a number from 0"))?.to_string()),
            "momentum" if word == Some("None") => {
                return Err(Failure::new(format!("`{}` without a momentum averages over all steps", call.name))
                    .help("the language has running averages with a momentum only"));
            }
            "momentum" => self.set("momentum", positive().ok_or_else(|| wrong("a number from 0"))?.to_string()),
            "affine" | "elementwise_affine" => {
                let [gamma, beta] = norm.affine;
                self.gamma = flag()?;
                self.beta = self.gamma && self.beta_or(beta || !gamma);
            }
            "bias" => {
                self.bias = Some(flag()?);
                self.beta = self.gamma && self.beta_or(self.beta);
            }
            "track_running_stats" => {
                // Only these track by default; the others never use a running average.
                let tracks = norm.settings.iter().any(|(setting, _)| *setting == "momentum");
                if flag()? != tracks {
                    return Err(Failure::new(format!(
                        "`{}` with track_running_stats={} is not a layer of the language",
                        call.name,
                        if tracks { "False" } else { "True" }
                    ))
                    .help("statistics over samples have running averages for evaluation, and others have none"));
                }
            }
            "apply_act" => self.act = flag()?,
            "act_layer" => self.act_layer = Some(value.clone()),
            "rms" if flag()? => {}
            "rms" => return Err(wrong("True").help("the language has the form with a root")),
            _ => {}
        }
        Ok(())
    }

    /// The function of a class that has its own activation; `None` where one may follow.
    fn activation(&mut self, norm: &Norm, call: &Call) -> Result<Option<&'static str>, Failure> {
        // What PyTorch prints has the activation as a part, if there is one.
        let part = call.parts.iter().find(|(name, _)| name == "act").map(|(_, act)| Value::Call(act.clone()));
        if let Some((name, part)) = call.parts.iter().find(|(name, part)| name != "act" && part.class() != "Identity") {
            return Err(Failure::new(format!("the part `{name}` of `{}` is a {}", call.name, part.name))
                .help("a layer is one normalization and one activation"));
        }
        let given = part.or_else(|| self.act_layer.take());
        match norm.activation {
            Activation::Follows if given.is_some() || !self.act => {
                Err(Failure::new(format!("`{}` has no activation of its own", call.name)))
            }
            Activation::Follows => Ok(None),
            Activation::Argument if !self.act => Ok(None),
            Activation::Argument => given.as_ref().map_or(Ok("relu"), activation_of).map(Some),
            Activation::Threshold if !self.act => Ok(None),
            Activation::Built if !self.act => {
                Err(Failure::new(format!("`{}` without its activation is the affine map alone", call.name))
                    .help("the built-in layer `affine` is that"))
            }
            Activation::Built | Activation::Threshold => match given.as_ref().map(activation_of).transpose()? {
                None | Some("silu") => Ok(Some("")),
                Some(_) => Err(Failure::new(format!("`{}` with another activation is not known", call.name))
                    .help("import it without, and change the formula")),
            },
        }
    }

    /// The text of the layer.
    fn formula(&self, norm: &Norm, function: &str) -> Result<String, Failure> {
        let layer_wide =
            norm.stem == "gn" && self.settings.iter().any(|(name, value)| *name == "groups" && value == "1");
        let (stem, normalized) = if layer_wide { ("ln", BY_LAYER) } else { (norm.stem, norm.normalized) };
        let threshold = norm.activation == Activation::Threshold && self.act;
        let name = match function {
            "" if threshold || norm.activation == Activation::Built || stem.ends_with("norm") => stem.to_owned(),
            "" if stem == "frn_tlu" => "frn".to_owned(),
            "" => format!("{stem}_only"),
            function => format!("{stem}_{function}"),
        };
        let mut settings = String::new();
        for (setting, value) in self.settings.iter().filter(|(setting, _)| !(layer_wide && *setting == "groups")) {
            let _ = write!(settings, ", {setting} = {value}");
        }
        let mut text = format!("layer {name}(x{settings}) {{\n");
        text += if threshold || norm.activation == Activation::Built { norm.params } else { "" };
        text += if self.gamma { "    param gamma = 1\n" } else { "" };
        text += if self.beta { "    param beta = 0\n" } else { "" };
        text += if self.gamma || self.beta || !norm.params.is_empty() { "\n" } else { "" };
        let mut result = normalized.to_owned();
        if self.gamma && !function.is_empty() {
            let _ = writeln!(text, "    let z = {normalized}");
            result = "z".to_owned();
        }
        result += if self.gamma { " * gamma" } else { "" };
        result += if self.beta { " + beta" } else { "" };
        if !function.is_empty() {
            result = format!("{function}({result})");
        }
        if threshold {
            result = format!("max({result}, tau)");
        }
        text += &format!("    {result}\n}}\n");
        let source = normact_syntax::Source::new("<formula>", text);
        Ok(normact_syntax::format(&source, &normact_syntax::parse(&source).0.file))
    }
}
