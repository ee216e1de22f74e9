//! What every name means, checked over a whole file before any graph is built.
//!
//! Each function and layer is looked at once, whether it is used or not, and everything wrong is
//! reported. What passes can be built without further questions about names, so that the builder
//! ([`crate::build`]) is left with what only the graph knows.

use std::collections::{HashMap, HashSet};

use normact_ir::stated::Statistic;
use normact_ir::{INDEX_SETS, Moment, Prim};

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::expressions::Reducer;
use crate::parse::Parsed;
use crate::prelude;
use crate::settings::{Known, SettingValue, display, literal, whole};
use crate::source::Span;
use crate::suggest::{did_you_mean, listed};

/// The functions of the prelude and of a file, in one list: those of the prelude first.
#[derive(Debug, Clone)]
pub(crate) struct Library<'a> {
    functions: Vec<&'a Function>,
    prelude: usize,
}

impl<'a> Library<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        let prelude = prelude::functions();
        let own = file.items.iter().filter_map(|item| match item {
            Item::Function(function) => Some(function),
            Item::Layer(_) | Item::Gradient(_) => None,
        });
        Self { functions: prelude.iter().chain(own).collect(), prelude: prelude.len() }
    }

    pub(crate) fn function(&self, index: usize) -> &'a Function {
        self.functions[index]
    }

    pub(crate) fn is_prelude(&self, index: usize) -> bool {
        index < self.prelude
    }

    /// How many functions the prelude has.
    pub(crate) fn prelude_len(&self) -> usize {
        self.prelude
    }

    /// The function that a name means where only the first `visible` functions are defined.
    pub(crate) fn find(&self, name: &str, visible: usize) -> Option<usize> {
        self.functions[..visible].iter().rposition(|function| function.name.text == name)
    }

    /// How many functions are defined before a place of the file.
    pub(crate) fn visible_at(&self, offset: usize) -> usize {
        let before = self.functions[self.prelude..].iter().take_while(|function| function.span.end <= offset);
        self.prelude + before.count()
    }

    fn own(&self) -> impl Iterator<Item = (usize, &'a Function)> + '_ {
        self.functions.iter().copied().enumerate().skip(self.prelude)
    }
}

/// What the check found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked<'a> {
    /// Everything wrong or suspicious.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Names of layers that must not be built.
    pub(crate) broken_layers: HashSet<String>,
    /// The gradients that can be built, by the names of their layers.
    pub(crate) gradients: HashMap<&'a str, &'a Gradient>,
}

/// Checks every definition of a file.
pub(crate) fn check<'a>(parsed: &'a Parsed, library: &Library<'_>) -> Checked<'a> {
    let mut checked = Checked::default();
    redefinitions(&parsed.file, &mut checked);
    let mut broken: HashSet<usize> = HashSet::new();
    let layers: Vec<&str> = layers(&parsed.file).map(|layer| layer.name.text.as_str()).collect();
    for (index, function) in library.own() {
        let mut ctx = Ctx::new(parsed, library, &layers, index, &broken);
        ctx.function(function);
        let failed = ctx.failed();
        checked.diagnostics.append(&mut ctx.diagnostics);
        if failed {
            broken.insert(index);
        }
    }
    for layer in self::layers(&parsed.file) {
        let mut ctx = Ctx::new(parsed, library, &layers, library.visible_at(layer.span.start), &broken);
        ctx.layer(layer);
        let failed = ctx.failed();
        checked.diagnostics.append(&mut ctx.diagnostics);
        if failed || parsed.is_damaged(layer.span) {
            checked.broken_layers.insert(layer.name.text.clone());
        }
    }
    gradients(parsed, library, &layers, &broken, &mut checked);
    checked
}

/// Checks every gradient beside its layer.
fn gradients<'a>(
    parsed: &'a Parsed,
    library: &Library<'_>,
    names: &[&str],
    broken: &HashSet<usize>,
    checked: &mut Checked<'a>,
) {
    let mut layers: HashMap<&str, &Layer> = HashMap::new();
    for layer in self::layers(&parsed.file) {
        layers.entry(&layer.name.text).or_insert(layer);
    }
    let mut first: HashMap<&str, Span> = HashMap::new();
    for item in &parsed.file.items {
        let Item::Gradient(gradient) = item else { continue };
        let name = gradient.layer.text.as_str();
        let Some(layer) = layers.get(name) else {
            if !parsed.lost_names.contains(name) {
                checked.diagnostics.push(no_layer(&gradient.layer, names));
            }
            continue;
        };
        if layer.span.start > gradient.span.start {
            let message = format!("layer `{name}` is not defined yet");
            let diagnostic = Diagnostic::new(Code::UnknownName, gradient.layer.span, message)
                .related(layer.name.span, "defined here")
                .help("move the gradient below its layer");
            checked.diagnostics.push(diagnostic);
            continue;
        }
        if let Some(first) = first.get(name) {
            let message = format!("the gradient of `{name}` is stated twice");
            let diagnostic = Diagnostic::new(Code::Redefined, gradient.layer.span, message)
                .label("stated again")
                .related(*first, "first stated here")
                .help("remove one of them");
            checked.diagnostics.push(diagnostic);
            continue;
        }
        first.insert(name, gradient.layer.span);
        let mut ctx = Ctx::new(parsed, library, names, library.visible_at(gradient.span.start), broken);
        ctx.in_gradient = true;
        ctx.gradient(gradient, layer);
        if !ctx.failed() && !parsed.is_damaged(gradient.span) {
            checked.gradients.insert(name, gradient);
        }
        checked.diagnostics.append(&mut ctx.diagnostics);
    }
}

fn no_layer(name: &Name, layers: &[&str]) -> Diagnostic {
    let otherwise = match layers {
        [] => "the file defines no layer; write the layer above its gradient".to_owned(),
        layers => format!("the file defines {}", listed(layers.iter().copied())),
    };
    let help = did_you_mean(&name.text, layers.iter().copied(), otherwise);
    Diagnostic::new(Code::UnknownName, name.span, format!("there is no layer `{}`", name.text)).help(help)
}

pub(crate) fn layers(file: &File) -> impl Iterator<Item = &Layer> {
    file.items.iter().filter_map(|item| match item {
        Item::Layer(layer) => Some(layer),
        Item::Function(_) | Item::Gradient(_) => None,
    })
}

/// A name that is taken; a layer of such a name is not built.
fn redefinitions(file: &File, checked: &mut Checked<'_>) {
    let Checked { diagnostics, broken_layers, .. } = checked;
    let mut defined: HashMap<&str, Span> = HashMap::new();
    for item in file.items.iter().filter(|item| !matches!(item, Item::Gradient(_))) {
        let name = item.name();
        if is_primitive(&name.text) {
            let message = format!("`{}` is a primitive and cannot be defined", name.text);
            diagnostics.push(Diagnostic::new(Code::Redefined, name.span, message).help("give it another name"));
            broken_layers.insert(name.text.clone());
        }
        if let Some(first) = defined.get(name.text.as_str()) {
            let message = format!("`{}` is defined twice", name.text);
            broken_layers.insert(name.text.clone());
            diagnostics.push(
                Diagnostic::new(Code::Redefined, name.span, message)
                    .label("defined again")
                    .related(*first, "first defined here")
                    .help("give one of them another name"),
            );
        } else {
            defined.insert(&name.text, name.span);
        }
    }
}

fn is_primitive(name: &str) -> bool {
    Prim::by_name(name).is_some() || Moment::by_name(name).is_some()
}

/// What a value is, for messages about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Setting,
    Param,
    Let,
    Argument,
    /// A gradient that a line states.
    Result,
}

#[derive(Debug, Clone)]
struct Binding {
    role: Role,
    span: Span,
    used: bool,
}

struct Ctx<'a> {
    parsed: &'a Parsed,
    library: &'a Library<'a>,
    layers: &'a [&'a str],
    /// How many functions of the library are defined here.
    visible: usize,
    broken: &'a HashSet<usize>,
    /// Whether sums and counts are known, and running averages are not kept.
    in_gradient: bool,
    values: Vec<(String, Binding)>,
    /// Where in `values` each name is.
    index: HashMap<String, usize>,
    /// Values defined further down, for "defined below".
    later: HashMap<String, Span>,
    calls_broken: bool,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Ctx<'a> {
    fn new(
        parsed: &'a Parsed,
        library: &'a Library<'a>,
        layers: &'a [&'a str],
        visible: usize,
        broken: &'a HashSet<usize>,
    ) -> Self {
        Self {
            parsed,
            library,
            layers,
            visible,
            broken,
            in_gradient: false,
            values: vec![],
            index: HashMap::new(),
            later: HashMap::new(),
            calls_broken: false,
            diagnostics: vec![],
        }
    }

    fn failed(&self) -> bool {
        self.calls_broken || crate::diagnostic::any_error(&self.diagnostics)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn function(&mut self, function: &Function) {
        for argument in &function.arguments {
            self.define(argument, Role::Argument);
        }
        self.expr(&function.body);
        self.report_unused(function.span);
    }

    fn layer(&mut self, layer: &Layer) {
        self.define(&layer.input, Role::Input);
        for setting in &layer.settings {
            self.define(&setting.name, Role::Setting);
            self.setting_value(setting, Known::by_name(&setting.name.text));
        }
        self.later =
            layer.statements.iter().map(|statement| (statement.name().text.clone(), statement.name().span)).collect();
        for statement in &layer.statements {
            match statement {
                Statement::Param { name, extent, init, .. } => {
                    self.extent(extent.as_ref());
                    self.init(init);
                    self.define(name, Role::Param);
                }
                Statement::Let { name, value, .. } => {
                    self.expr(value);
                    self.define(name, Role::Let);
                }
            }
            self.later.remove(&statement.name().text);
        }
        match &layer.result {
            Some(result) => self.expr(result),
            None if self.is_damaged(layer.span) => {}
            None => {
                let end = Span::new(layer.span.end.saturating_sub(1), layer.span.end);
                let message = format!("layer `{}` has no result", layer.name.text);
                self.report(
                    Diagnostic::new(Code::NoResult, end, message)
                        .label("an expression is missing before this")
                        .help("end the layer with an expression without `let`, such as `x * gamma + beta`"),
                );
            }
        }
        self.report_unused(layer.span);
    }

    fn gradient(&mut self, gradient: &Gradient, layer: &Layer) {
        self.inherit(layer);
        if gradient.arguments.len() != 2 {
            let message = format!("a gradient has two arguments, found {}", gradient.arguments.len());
            let help = format!(
                "they are the layer's input and the upstream gradient: `gradient {}({}, dy)`",
                layer.name.text, layer.input.text
            );
            self.report(Diagnostic::new(Code::ArgumentCount, gradient.layer.span, message).help(help));
        }
        if let Some(setting) = gradient.settings.first() {
            let message = "a gradient has no settings of its own";
            let help = "it reads those of its layer; remove what stands after the upstream gradient";
            self.report(Diagnostic::new(Code::UnknownSetting, setting.name.span, message).help(help));
        }
        gradient.arguments.iter().for_each(|argument| self.define(argument, Role::Input));
        self.later = gradient.lines.iter().rev().map(|line| (line.name.text.clone(), line.name.span)).collect();
        let listed = results(gradient, layer);
        let results = Results { known: listed.iter().map(String::as_str).collect(), listed: &listed };
        let mut stated: HashMap<&str, Span> = HashMap::new();
        for line in &gradient.lines {
            self.expr(&line.value);
            match line.is_let {
                true => self.define(&line.name, Role::Let),
                false => self.result(&line.name, &results, &mut stated),
            }
            self.later.remove(&line.name.text);
        }
        if !self.failed() && !self.is_damaged(gradient.span) {
            self.report_not_stated(gradient, &results, &stated);
        }
        self.report_unused(gradient.span);
    }

    /// A gradient reads the settings and params of its layer, and need not read them all.
    fn inherit(&mut self, layer: &Layer) {
        let settings = layer.settings.iter().map(|setting| (&setting.name, Role::Setting));
        let params = layer.statements.iter().filter_map(|statement| match statement {
            Statement::Param { name, .. } => Some((name, Role::Param)),
            Statement::Let { .. } => None,
        });
        for (name, role) in settings.chain(params) {
            if !self.index.contains_key(&name.text) {
                self.index.insert(name.text.clone(), self.values.len());
                self.values.push((name.text.clone(), Binding { role, span: name.span, used: true }));
            }
        }
    }

    /// A line that states a gradient. Its name can be used below, unless it is that of another value: with
    /// params `a` and `da`, `da` goes on meaning the param.
    fn result<'l>(&mut self, name: &'l Name, results: &Results<'_>, stated: &mut HashMap<&'l str, Span>) {
        let known = self.index.get(&name.text).map(|&known| self.values[known].1.role);
        if let Some(first) = stated.get(name.text.as_str()) {
            let message = format!("`{}` is stated twice", name.text);
            let diagnostic = Diagnostic::new(Code::Redefined, name.span, message)
                .label("stated again")
                .related(*first, "first stated here")
                .help("add the two up in one line, or remove one");
            self.report(diagnostic);
            return;
        }
        // The param itself may be what could not be read.
        let is_lost = name.text.strip_prefix('d').is_some_and(|of| self.parsed.lost_names.contains(of));
        if !results.known.contains(name.text.as_str()) && !is_lost && !self.said_enough() {
            let message = format!("`{}` is the gradient of nothing", name.text);
            let all = results.listed.iter().map(String::as_str);
            let otherwise =
                format!("the gradients are {}; another value is `let {} = ...`", listed(all.clone()), name.text);
            let help = did_you_mean(&name.text, all, otherwise);
            self.report(Diagnostic::new(Code::UnknownName, name.span, message).help(help));
        }
        stated.insert(&name.text, name.span);
        match known {
            None | Some(Role::Let) => self.define(name, Role::Result),
            Some(Role::Input | Role::Setting | Role::Param | Role::Argument | Role::Result) => {}
        }
    }

    fn report_not_stated(&mut self, gradient: &Gradient, results: &Results<'_>, stated: &HashMap<&str, Span>) {
        let missing: Vec<&str> =
            results.listed.iter().map(String::as_str).filter(|result| !stated.contains_key(result)).collect();
        let Some(first) = missing.first() else { return };
        let message = match missing.as_slice() {
            [one] => format!("`{one}` is not stated"),
            several => format!("{} are not stated", listed(several.iter().copied())),
        };
        let as_let = gradient.lines.iter().find(|line| line.is_let && results.known.contains(line.name.text.as_str()));
        let help = match as_let {
            Some(line) => format!("write `{} = ...` without `let`", line.name.text),
            None => format!("add a line `{first} = ...`; what is not stated is not checked"),
        };
        self.report(Diagnostic::new(Code::NotStated, gradient.layer.span, message).help(help));
    }

    fn is_damaged(&self, definition: Span) -> bool {
        self.parsed.is_damaged(definition)
    }

    fn define(&mut self, name: &Name, role: Role) {
        if let Some(&known) = self.index.get(&name.text) {
            let known = &self.values[known].1;
            let message = format!("`{}` is already defined", name.text);
            let diagnostic = Diagnostic::new(Code::Redefined, name.span, message)
                .label("defined again")
                .related(known.span, "first defined here")
                .help("give it another name");
            self.report(diagnostic);
            return;
        }
        if is_primitive(&name.text) {
            let message = format!("`{}` is a primitive and cannot be the name of a value", name.text);
            self.report(Diagnostic::new(Code::Redefined, name.span, message).help("give it another name"));
        }
        self.index.insert(name.text.clone(), self.values.len());
        self.values.push((name.text.clone(), Binding { role, span: name.span, used: false }));
    }

    fn use_value(&mut self, name: &str) -> bool {
        match self.index.get(name) {
            Some(&known) => {
                self.values[known].1.used = true;
                true
            }
            None => false,
        }
    }

    fn report_unused(&mut self, definition: Span) {
        if self.failed() || self.is_damaged(definition) {
            return;
        }
        for (name, known) in std::mem::take(&mut self.values) {
            if known.used || name.starts_with('_') {
                continue;
            }
            let (code, what) = match known.role {
                Role::Input | Role::Result => continue,
                Role::Setting => (Code::UnusedSetting, "setting"),
                Role::Param => (Code::UnusedParam, "param"),
                Role::Let => (Code::UnusedLet, "let"),
                Role::Argument => (Code::UnusedArgument, "argument"),
            };
            let message = format!("{what} `{name}` is never used");
            let help = format!("use it, remove it, or call it `_{name}` to keep it");
            self.report(Diagnostic::new(code, known.span, message).help(help));
        }
    }

    fn extent(&mut self, extent: Option<&Name>) {
        let Some(extent) = extent else { return };
        if !["channel", "scalar"].contains(&extent.text.as_str()) {
            let message = format!("`{}` is not an extent of a param", extent.text);
            let otherwise = "write `channel` (one value per channel, the default) or `scalar` (one value)".to_owned();
            let help = did_you_mean(&extent.text, ["channel", "scalar"], otherwise);
            self.report(Diagnostic::new(Code::UnknownName, extent.span, message).help(help));
        }
    }

    /// A param starts at a number or at the number of a setting.
    fn init(&mut self, init: &Value) {
        if let ValueKind::Word(word) = &init.kind {
            let is_setting = self.values.iter().any(|(name, known)| name == word && known.role == Role::Setting);
            if is_setting {
                self.use_value(word);
            } else {
                let message = format!("a param starts at a number, found `{word}`");
                let help = "write a number, or the name of a setting of the layer";
                self.report(Diagnostic::new(Code::UnknownName, init.span, message).help(help));
            }
        }
    }

    fn setting_value(&mut self, setting: &Setting, known: Option<Known>) {
        let value = match &setting.value.kind {
            ValueKind::Word(word) if literal(&setting.value.kind).is_none() => {
                // The value of another setting, checked where the setting itself is.
                let is_setting = self.values.iter().any(|(name, value)| name == word && value.role == Role::Setting);
                if is_setting && word != &setting.name.text {
                    self.use_value(word);
                    return;
                }
                None
            }
            kind => literal(kind),
        };
        let allowed = match (known, value) {
            (Some(known), Some(value)) => known.accepts(value),
            (None, Some(SettingValue::Number(_))) => true,
            (None, Some(SettingValue::Running(_))) | (_, None) => false,
        };
        if !allowed {
            let name = &setting.name.text;
            let values = known.map_or("a number", Known::values);
            let message = format!("`{name}` cannot be {}", display(&setting.value));
            let diagnostic =
                Diagnostic::new(Code::BadSetting, setting.value.span, message).help(format!("`{name}` is {values}"));
            self.report(diagnostic);
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Number(..) => {}
            ExprKind::Name(name) => self.name(name, expr.span),
            ExprKind::Minus(_, operand) => self.expr(operand),
            ExprKind::Sum(first, rest) => {
                self.expr(first);
                rest.iter().for_each(|(_, term)| self.expr(term));
            }
            ExprKind::Product(first, rest) => {
                self.expr(first);
                rest.iter().for_each(|(_, factor)| self.expr(factor));
            }
            ExprKind::Call(call) => self.call(call, expr.span),
        }
    }

    fn name(&mut self, name: &str, span: Span) {
        if self.use_value(name) || self.parsed.lost_names.contains(name) || self.said_enough() {
            return;
        }
        let message = format!("`{name}` is not defined");
        let diagnostic = Diagnostic::new(Code::UnknownName, span, message);
        let diagnostic = if let Some(later) = self.later.get(name) {
            diagnostic.label("used here").related(*later, "defined here").help("define it before its first use")
        } else if self.library.find(name, self.visible).is_some() || is_primitive(name) {
            Diagnostic::new(Code::NotAFunction, span, format!("`{name}` is a function, not a value"))
                .help(format!("give it its arguments, as in `{name}(x)`"))
        } else {
            let known = self.values.iter().map(|(name, _)| name.as_str());
            let names = listed(self.values.iter().map(|(name, _)| name.as_str()));
            let otherwise = match self.in_gradient {
                true => format!("there are {names}; another value is `let {name} = ...`"),
                false => format!("there are {names}; a trainable value is declared with `param {name} = 1`"),
            };
            diagnostic.help(did_you_mean(name, known, otherwise))
        };
        self.report(diagnostic);
    }

    fn call(&mut self, call: &Call, span: Span) {
        let name = call.function.text.as_str();
        if let Some(reducer) = self.reducer(call) {
            self.reducer_call(reducer, call, span);
        } else if let Some(prim) = Prim::by_name(name) {
            self.no_index_set(call);
            self.no_settings(call);
            self.argument_count(call, span, prim.arity().count(), prim.doc());
        } else if let Some(index) = self.library.find(name, self.visible) {
            self.no_index_set(call);
            self.no_settings(call);
            let arguments = &self.library.function(index).arguments;
            let form: Vec<&str> = arguments.iter().map(|argument| argument.text.as_str()).collect();
            self.argument_count(call, span, arguments.len(), &format!("`{name}({})`", form.join(", ")));
            self.calls_broken |= self.broken.contains(&index);
            if !self.library.is_prelude(index) {
                // Moments inside the function read the layer's settings.
                Known::ALL.iter().for_each(|known| {
                    self.use_value(known.name());
                });
            }
        } else {
            self.unknown_function(call);
        }
        call.arguments.iter().for_each(|argument| self.expr(argument));
    }

    /// What a call over an index set computes. A function of the file may be called `sum` too; it has none.
    fn reducer(&self, call: &Call) -> Option<Reducer> {
        let name = call.function.text.as_str();
        let is_own = self.in_gradient && (call.index_set.is_some() || self.library.find(name, self.visible).is_none());
        let own = Statistic::own(name).filter(|_| is_own).map(Reducer::Own);
        Moment::by_name(name).map(Reducer::Moment).or(own)
    }

    /// Whether so much is wrong with this definition that more would neither be shown nor help.
    fn said_enough(&self) -> bool {
        const ENOUGH: usize = 200;
        self.diagnostics.len() >= ENOUGH
    }

    fn unknown_function(&mut self, call: &Call) {
        let (name, span) = (call.function.text.as_str(), call.function.span);
        if self.parsed.lost_names.contains(name) {
            self.calls_broken = true;
            return;
        }
        if self.said_enough() {
            return;
        }
        let below = self.library.own().find(|(_, function)| function.name.text == name);
        let diagnostic = if self.values.iter().any(|(known, _)| known == name) {
            Diagnostic::new(Code::NotAFunction, span, format!("`{name}` is a value, not a function"))
                .help(format!("multiplication is written with `*`: `{name} * (...)`"))
        } else if self.layers.contains(&name) {
            Diagnostic::new(Code::NotAFunction, span, format!("`{name}` is a layer and cannot be called"))
                .help("put the shared part into a `fn`")
        } else if let Some((index, function)) = below {
            let itself = index == self.visible && !self.values.iter().any(|(_, known)| known.role == Role::Input);
            if itself {
                Diagnostic::new(Code::Recursion, span, format!("`{name}` calls itself"))
                    .help("functions are inlined; write the repetition out")
            } else {
                Diagnostic::new(Code::UnknownFunction, span, format!("`{name}` is not defined yet"))
                    .related(function.name.span, "defined here")
                    .help("move the function above its first use")
            }
        } else if Statistic::own(name).is_some() {
            Diagnostic::new(Code::OnlyInGradient, span, format!("`{name}` is known in a gradient only"))
                .help("layers and functions have mean, rms, std and var")
        } else {
            let own = Statistic::OWN.iter().map(|(name, ..)| *name).filter(|_| self.in_gradient);
            let known = Prim::ALL
                .iter()
                .map(|prim| prim.name())
                .chain(Moment::ALL.iter().map(|moment| moment.name()))
                .chain(own)
                .chain(self.library.functions[..self.visible].iter().map(|function| function.name.text.as_str()));
            let otherwise = "`normact list --functions` prints what there is".to_owned();
            Diagnostic::new(Code::UnknownFunction, span, format!("there is no function `{name}`"))
                .help(did_you_mean(name, known, otherwise))
        };
        self.report(diagnostic);
    }

    fn argument_count(&mut self, call: &Call, span: Span, expected: usize, form: &str) {
        let found = call.arguments.len();
        if found != expected {
            let noun = if expected == 1 { "argument" } else { "arguments" };
            let message = format!("`{}` takes {expected} {noun}, found {found}", call.function.text);
            self.report(Diagnostic::new(Code::ArgumentCount, span, message).help(format!("it is {form}")));
        }
    }

    fn no_index_set(&mut self, call: &Call) {
        if let Some(set) = &call.index_set {
            let message = format!("`{}` works element by element and has no index set", call.function.text);
            let help = match self.in_gradient {
                true => "only mean, rms, std, var, sum and count have an index set; remove the brackets",
                false => "only mean, rms, std and var average over an index set; remove the brackets",
            };
            self.report(Diagnostic::new(Code::UnexpectedIndexSet, set.span, message).help(help));
        }
    }

    fn no_settings(&mut self, call: &Call) {
        if let Some(setting) = call.settings.first() {
            let message = format!("`{}` has no setting `{}`", call.function.text, setting.name.text);
            let help = "only moments have settings of their own";
            self.report(Diagnostic::new(Code::UnknownSetting, setting.name.span, message).help(help));
        }
    }

    fn reducer_call(&mut self, reducer: Reducer, call: &Call, span: Span) {
        self.argument_count(call, span, 1, reducer.doc());
        let name = reducer.name();
        let Some(set) = &call.index_set else {
            let sets: Vec<&str> = INDEX_SETS.iter().map(|(name, _)| *name).collect();
            let message = match reducer {
                Reducer::Moment(_) => format!("`{name}` does not say what it averages over"),
                Reducer::Own(_) => format!("`{name}` does not say what it sums over"),
            };
            let diagnostic = Diagnostic::new(Code::MissingIndexSet, call.function.span, message)
                .label("an index set is missing after this")
                .help(format!("write `{name}[batch](...)`; the index sets are {}", sets.join(", ")));
            self.report(diagnostic);
            return;
        };
        self.index_set(set);
        for setting in &call.settings {
            let known = Known::by_name(&setting.name.text);
            let applies = known.is_some_and(|known| self.applies(known, reducer, set));
            if applies {
                self.setting_value(setting, known);
            } else {
                let call = format!("{name}[{}]", set.name.text);
                let usable: Vec<&str> = Known::ALL
                    .into_iter()
                    .filter(|known| self.applies(*known, reducer, set))
                    .map(Known::name)
                    .collect();
                let message = format!("`{call}` has no setting `{}`", setting.name.text);
                let otherwise = match usable.as_slice() {
                    [] => "it has none of its own".to_owned(),
                    usable => format!("it has {}", usable.join(", ")),
                };
                let help = did_you_mean(&setting.name.text, usable.iter().copied(), otherwise);
                self.report(Diagnostic::new(Code::UnknownSetting, setting.name.span, message).help(help));
            }
        }
        // What the moment does not override itself, it reads from the layer.
        let read = Known::ALL.map(|known| self.applies(known, reducer, set).then_some(known));
        for known in read.into_iter().flatten() {
            if !call.settings.iter().any(|setting| setting.name.text == known.name()) {
                self.use_value(known.name());
            }
        }
    }

    fn index_set(&mut self, set: &IndexSet) {
        let name = set.name.text.as_str();
        let names = || INDEX_SETS.iter().map(|(name, _)| *name);
        if !names().any(|known| known == name) {
            let otherwise = format!("the index sets are {}", names().collect::<Vec<_>>().join(", "));
            let help = did_you_mean(name, names(), otherwise);
            let message = format!("there is no index set `{name}`");
            self.report(Diagnostic::new(Code::UnknownIndexSet, set.name.span, message).help(help));
        } else if let Some(count) = &set.count {
            let is_whole = matches!(&count.kind, ValueKind::Number(value, _) if whole(*value).is_some());
            if name != "group" {
                let message = format!("`{name}` has no number");
                let help = "only `group(8)` has one, the exact number of groups";
                self.report(Diagnostic::new(Code::UnknownIndexSet, set.span, message).help(help));
            } else if !is_whole {
                let message = format!("there cannot be {} groups", display(count));
                let help = "the number of groups is a whole number from 1";
                self.report(Diagnostic::new(Code::BadSetting, count.span, message).help(help));
            }
        }
    }

    /// Whether a setting makes a difference to a statistic.
    fn applies(&self, known: Known, reducer: Reducer, set: &IndexSet) -> bool {
        let is_tracked = matches!(set.name.text.as_str(), "batch" | "all") && !self.in_gradient;
        match (known, reducer) {
            (Known::Groups, _) => set.name.text == "group" && set.count.is_none(),
            (Known::Eps, Reducer::Moment(moment)) => moment.is_root(),
            (Known::Momentum, Reducer::Moment(_)) => is_tracked,
            (Known::Running, Reducer::Moment(moment)) => {
                is_tracked && moment.quantity() == normact_ir::Quantity::Variance
            }
            (Known::Eps | Known::Momentum | Known::Running, Reducer::Own(_)) => false,
        }
    }
}

/// The names of the lines that may state gradients, in order and to look one up.
struct Results<'a> {
    listed: &'a [String],
    known: HashSet<&'a str>,
}

/// The names of the lines that state gradients: that of the input, then those of the params.
fn results(gradient: &Gradient, layer: &Layer) -> Vec<String> {
    let input = gradient.arguments.first().unwrap_or(&layer.input);
    let params = layer.statements.iter().filter_map(|statement| match statement {
        Statement::Param { name, .. } => Some(name),
        Statement::Let { .. } => None,
    });
    std::iter::once(input).chain(params).map(|name| format!("d{}", name.text)).collect()
}
