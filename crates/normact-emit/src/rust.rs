//! A layer as a Rust file that depends on Burn alone: a module with its configuration, as Burn's own
//! layers are written, and the few functions that Burn does not have.
//!
//! The file is laid out as rustfmt with its default settings leaves it. Nothing is ever broken over
//! lines: a part of an expression that is too long for a line gets a name (see `body`). Names of more
//! than thirty characters are beyond that.
//!
//! Parameters and running averages are fields under their names in the formula. Burn's stores and
//! records know fields by name, so they load what normact's own module saved without any code in the file.

mod body;
mod helpers;
mod number;

use std::collections::BTreeSet;

use normact_ir::{Buffer, Buffers, Extent, Groups, IndexSet, Layer, Op, Param, Quantity};

use crate::emit::{EmitError, EmittedFile, Names, Options};
use crate::listing;
use body::{Body, Grouping};
use helpers::Helper;
use number::number;

const RUST: &str = "Rust";

/// Words of the language.
const KEYWORDS: &[&str] = &[
    "_", "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do",
    "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
    "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Types that the file and Burn's derives name.
const TYPES: &[&str] = &[
    "Clone", "Config", "DType", "Debug", "Device", "Err", "Flag", "Module", "None", "Ok", "Option", "Param", "Result",
    "Some", "String", "Tensor", "Vec", RUNNING,
];

const RUNNING: &str = "RunningState";

/// Words that are no names here.
fn words() -> Vec<&'static str> {
    [KEYWORDS, TYPES].concat()
}

/// Variables of the functions that `#[derive(Module)]` writes, which no field can share.
const DERIVE_WORDS: &[&str] = &["device", "mapper"];

pub(crate) fn emit(layer: &Layer, options: &Options) -> Result<Vec<EmittedFile>, EmitError> {
    let names = Names::new(layer, &words(), RUST)?;
    let items = burn_module(layer, &names.class, options.source.as_deref())?;
    let text = format!("// The layer `{}` as a module for Burn 0.22, written by normact.\n\n{items}", layer.name);
    Ok(vec![EmittedFile { name: format!("{}.rs", names.function), bytes: text.into_bytes() }])
}

/// A layer as the items of a Rust module: imports, the struct `name`, its configuration `nameConfig` and
/// functions. `source` is quoted in the documentation; without it the graph is.
///
/// # Errors
/// A name of the layer cannot be one in Rust.
pub fn burn_module(layer: &Layer, name: &str, source: Option<&str>) -> Result<String, EmitError> {
    Names::new(layer, &words(), RUST)?;
    if words().contains(&name) {
        return Err(EmitError::Keyword { name: name.to_owned(), what: "layer", target: RUST });
    }
    let params = layer.dag.params();
    let fields = Fields::new(layer);
    if let Some(name) = fields.stored().find(|name| DERIVE_WORDS.contains(name)) {
        let (what, target) = ("parameter", "Burn's `derive(Module)`");
        return Err(EmitError::Keyword { name: name.to_owned(), what, target });
    }
    let body = Body::new(&layer.dag, &fields);
    let live = layer.dag.live();
    let used = |param: &Param| {
        let reads = |op| matches!(op, Op::Param(id) if layer.dag.param(id).name == param.name);
        layer.dag.ids().any(|id| live[id.index()] && reads(layer.dag.op(id)))
    };

    let mut file = File::default();
    file.imports(&body, &fields, !params.is_empty());
    file.config(name, layer, &fields);
    file.line(0, "");
    file.doc(0, &format!("The layer `{}`.", layer.name));
    file.doc(0, "");
    file.doc(0, "```text");
    let quoted = source.map_or_else(|| listing(layer), str::to_owned);
    quoted.trim_end().lines().for_each(|line| file.doc(0, &printable(line)));
    file.doc(0, "```");
    if !fields.buffers.list().is_empty() {
        file.doc(0, "");
        file.doc(0, "Statistics of the batch are computed, and their running averages moved, where the input is on");
        file.doc(0, "an autodiff device and the layer is not frozen; otherwise the running averages are read.");
    }
    if fields.stored().next().is_some() {
        let what = match (params.is_empty(), fields.buffers.list().is_empty()) {
            (false, false) => "Parameters and running averages",
            (false, true) => "Parameters",
            (true, _) => "Running averages",
        };
        file.doc(0, "");
        file.doc(0, &format!("{what} are saved and loaded under their names in the formula."));
    }
    file.line(0, "#[derive(Module, Debug)]");
    file.line(0, &format!("pub struct {name} {{"));
    for param in params {
        let extent = match param.extent {
            Extent::PerChannel => "one value per channel",
            Extent::Scalar => "one value",
        };
        let unused = if used(param) { "" } else { "; the result does not depend on it" };
        file.doc(1, &format!("Trainable, {extent}{unused}."));
        file.line(1, &format!("pub {}: Param<Tensor<1>>,", param.name));
    }
    for buffer in fields.buffers.list() {
        file.doc(1, &format!("The running {} over `{}`.", quantity(buffer), buffer.over));
        file.line(1, &format!("pub {}: RunningState<Tensor<1>>,", buffer.name));
    }
    if let Some(training) = &fields.training {
        file.doc(1, "Whether the layer is trained; [`Module::freeze`] turns it off.");
        file.line(1, &format!("pub {training}: Param<Flag>,"));
    }
    for (most, field) in &fields.groups {
        file.doc(1, &format!("The number of groups: at most {most}, and a divisor of the channels."));
        file.line(1, &format!("pub {field}: usize,"));
    }
    if let ChannelsFrom::Field(channels) = &fields.channels {
        file.doc(1, "The number of channels.");
        file.line(1, &format!("pub {channels}: usize,"));
    }
    file.line(0, "}");
    file.line(0, "");
    file.line(0, &format!("impl {name} {{"));
    file.forward(&fields, &body);
    file.line(0, "");
    file.doc(1, "The formula, on a view of `[samples, channels, positions]`.");
    file.line(1, &format!("fn formula(&self, {}: Tensor<3>) -> Tensor<3> {{", body.input()));
    body.lines().iter().for_each(|(indent, line)| file.line(indent + 2, line));
    file.line(1, "}");
    file.line(0, "}");
    for helper in Helper::ALL.iter().filter(|helper| fields.helpers.contains(helper) || body.helpers.contains(helper)) {
        file.line(0, "");
        helper.text().lines().for_each(|line| file.line(0, line));
    }
    Ok(file.text)
}

/// The fields of the struct beside its parameters.
struct Fields {
    params: Vec<String>,
    buffers: Buffers,
    /// The flag of layers with running averages.
    training: Option<String>,
    /// The most groups of each `group` without a number, with the field of the number in force.
    groups: Vec<(u32, String)>,
    /// The numbers of `group(8)`.
    exact_groups: BTreeSet<u32>,
    channels: ChannelsFrom,
    /// What `init` calls.
    helpers: Vec<Helper>,
}

/// Where `forward` knows the number of channels from.
enum ChannelsFrom {
    /// The length of a parameter.
    Param(String),
    /// A field of its own.
    Field(String),
}

impl Fields {
    fn new(layer: &Layer) -> Self {
        let (dag, live) = (&layer.dag, layer.dag.live());
        let buffers = Buffers::of(dag);
        let params: Vec<String> = dag.params().iter().map(|param| param.name.clone()).collect();
        let mut taken = params.clone();
        taken.extend(buffers.list().iter().map(|buffer| buffer.name.clone()));
        let training = (!buffers.list().is_empty()).then(|| fresh("training", &mut taken));
        let (mut groups, mut exact_groups) = (vec![], BTreeSet::new());
        for id in dag.ids().filter(|id| live[id.index()]) {
            let Op::Moment(op) = dag.op(id) else { continue };
            match op.over() {
                IndexSet::Group(Groups::AtMost(most)) if groups.iter().all(|(known, _)| *known != most.get()) => {
                    groups.push((most.get(), fresh("groups", &mut taken)));
                }
                IndexSet::Group(Groups::Exactly(count)) => {
                    exact_groups.insert(count.get());
                }
                _ => {}
            }
        }
        let per_channel = dag.params().iter().find(|param| param.extent == Extent::PerChannel);
        let channels = match per_channel {
            Some(param) => ChannelsFrom::Param(param.name.clone()),
            None => ChannelsFrom::Field(fresh("channels", &mut taken)),
        };
        let helpers = if groups.is_empty() { vec![] } else { vec![Helper::GroupCount] };
        Self { params, buffers, training, groups, exact_groups, channels, helpers }
    }

    /// The names that weights are saved under.
    fn stored(&self) -> impl Iterator<Item = &str> {
        let buffers = self.buffers.list().iter().map(|buffer| buffer.name.as_str());
        self.params.iter().map(String::as_str).chain(buffers)
    }

    /// How many groups a moment has, as the file writes it.
    fn grouping(&self, groups: Groups) -> Grouping {
        match groups {
            Groups::Exactly(count) => Grouping(count.to_string()),
            Groups::AtMost(most) => {
                let field = self.groups.iter().find(|(known, _)| *known == most.get());
                let (_, field) = field.unwrap_or_else(|| unreachable!("every grouping has a field"));
                Grouping(format!("self.{field}"))
            }
        }
    }
}

/// The stem, or the stem with the first number that makes it new.
fn fresh(stem: &str, taken: &mut Vec<String>) -> String {
    let numbered = (2..).map(|number| format!("{stem}_{number}"));
    let name = std::iter::once(stem.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let name = name.unwrap_or_else(|| unreachable!("there are more numbers than names"));
    taken.push(name.clone());
    name
}

fn quantity(buffer: &Buffer) -> &'static str {
    match buffer.quantity {
        Quantity::Mean => "mean",
        Quantity::MeanSquare => "mean square",
        Quantity::Variance => "variance",
    }
}

/// A line as a comment may hold it: no tabs, control characters or changes of the direction of writing.
fn printable(line: &str) -> String {
    let line = line.trim_end().replace('\t', "    ");
    let odd = |char: char| char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars().map(|char| if odd(char) { '\u{fffd}' } else { char }).collect()
}

/// The text so far.
#[derive(Default)]
struct File {
    text: String,
}

impl File {
    fn line(&mut self, indent: usize, line: &str) {
        if !line.is_empty() {
            self.text.push_str(&"    ".repeat(indent));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    fn doc(&mut self, indent: usize, line: &str) {
        self.line(indent, format!("/// {line}").trim_end());
    }

    fn imports(&mut self, body: &Body<'_>, fields: &Fields, has_params: bool) {
        self.line(0, "use burn::config::Config;");
        let training = fields.training.is_some();
        let of_module = [(training, "Flag"), (true, "Module"), (has_params || training, "Param")];
        let of_module = of_module.into_iter().chain([(training, RUNNING)]);
        let of_module: Vec<&str> = of_module.filter_map(|(used, name)| used.then_some(name)).collect();
        self.line(
            0,
            &match of_module.as_slice() {
                [one] => format!("use burn::module::{one};"),
                several => format!("use burn::module::{{{}}};", several.join(", ")),
            },
        );
        if body.calls_sigmoid {
            self.line(0, "use burn::tensor::activation::sigmoid;");
        }
        self.line(0, "use burn::tensor::{DType, Device, Tensor};");
        if body.names_constants {
            self.line(0, "use std::f64::consts;");
        }
        self.line(0, "");
    }

    fn config(&mut self, name: &str, layer: &Layer, fields: &Fields) {
        let full = |extent: Extent, value: f64| {
            let len = match extent {
                Extent::PerChannel => "channels",
                Extent::Scalar => "1",
            };
            match value {
                0.0 => format!("Tensor::zeros([{len}], device)"),
                1.0 => format!("Tensor::ones([{len}], device)"),
                _ => format!("Tensor::full([{len}], {}, device)", number(value)),
            }
        };
        let mut inits: Vec<String> = vec![];
        for param in layer.dag.params() {
            let tensor = full(param.extent, param.init.get());
            inits.push(format!("{}: Param::from_tensor({tensor}),", param.name));
        }
        for buffer in fields.buffers.list() {
            inits.push(format!("{}: RunningState::new({}),", buffer.name, full(buffer.extent, buffer.init())));
        }
        inits.extend(fields.training.iter().map(|training| format!("{training}: Param::from_bool(true),")));
        inits.extend(fields.groups.iter().map(|(most, field)| format!("{field}: group_count(channels, {most}),")));
        if let ChannelsFrom::Field(field) = &fields.channels {
            inits.push(if field == "channels" { "channels,".to_owned() } else { format!("{field}: channels,") });
        }
        let device = if inits.iter().any(|init| init.contains("device")) { "device" } else { "_device" };

        self.doc(0, &format!("Configuration of [`{name}`]."));
        self.line(0, "#[derive(Config, Debug)]");
        self.line(0, &format!("pub struct {name}Config {{"));
        self.doc(1, "The number of channels.");
        self.line(1, "pub channels: usize,");
        self.line(0, "}");
        self.line(0, "");
        self.line(0, &format!("impl {name}Config {{"));
        let content = match (layer.dag.params().is_empty(), fields.buffers.list().is_empty()) {
            (true, true) => "The layer.",
            (false, true) => "The layer with its parameters at their initial values.",
            (true, false) => "The layer with its running averages at their initial values.",
            (false, false) => "The layer with its parameters and running averages at their initial values.",
        };
        self.doc(1, content);
        self.doc(1, "");
        self.doc(1, "# Panics");
        let exact: Vec<String> = fields.exact_groups.iter().map(u32::to_string).collect();
        self.doc(
            1,
            &match exact.as_slice() {
                [] => "There are no channels.".to_owned(),
                counts => format!("There are no channels, or {} does not divide their number.", counts.join(" or ")),
            },
        );
        self.line(1, &format!("pub fn init(&self, {device}: &Device) -> {name} {{"));
        self.line(2, "let channels = self.channels;");
        self.line(2, "assert!(channels > 0, \"the layer has no channels\");");
        for count in exact {
            self.line(2, "assert!(");
            self.line(3, &format!("channels.is_multiple_of({count}),"));
            self.line(3, &format!("\"group({count}) does not divide {{channels}} channels\""));
            self.line(2, ");");
        }
        match inits.as_slice() {
            [one] if one == "channels," => self.line(2, &format!("{name} {{ channels }}")),
            _ => {
                self.line(2, &format!("{name} {{"));
                inits.iter().for_each(|init| self.line(3, init));
                self.line(2, "}");
            }
        }
        self.line(1, "}");
        self.line(0, "}");
    }

    fn forward(&mut self, fields: &Fields, body: &Body<'_>) {
        self.doc(1, "Applies the layer to an input of shape `[samples, channels, ...]` and rank 2 to 5.");
        self.doc(1, "");
        self.doc(1, "# Panics");
        self.doc(1, "The input has another number of channels.");
        self.line(1, "pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {");
        self.line(2, "const { assert!(2 <= D && D <= 5, \"the input has rank 2 to 5\") };");
        self.line(2, "let (dims, dtype) = (x.dims(), x.dtype());");
        match &fields.channels {
            ChannelsFrom::Param(param) => self.line(2, &format!("let [channels] = self.{param}.dims();")),
            ChannelsFrom::Field(field) => self.line(2, &format!("let channels = self.{field};")),
        }
        self.line(2, "assert_eq!(dims[1], channels, \"axis 1 of the input is its channels\");");
        self.line(2, "let view = [dims[0], channels, dims[2..].iter().product()];");
        self.line(2, "// Half precision is computed in f32.");
        self.line(2, "let x = match dtype {");
        self.line(3, "DType::F64 => x.reshape(view),");
        self.line(3, "_ => x.reshape(view).cast(DType::F32),");
        self.line(2, "};");
        let expand = if body.is_full_size { "" } else { ".expand(view)" };
        self.line(2, &format!("self.formula(x).cast(dtype){expand}.reshape(dims)"));
        self.line(1, "}");
    }
}
