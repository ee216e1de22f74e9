//! What every name means, checked over a whole file before any graph is built.
//!
//! Each function and layer is looked at once, whether it is used or not, and everything wrong is
//! reported. What passes can be built without further questions about names, so that the builder
//! ([`crate::build`]) is left with what only the graph knows.

use std::collections::{HashMap, HashSet};

use normact_ir::{INDEX_SETS, Moment, Prim};

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
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
            Item::Layer(_) => None,
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
pub(crate) struct Checked {
    /// Everything wrong or suspicious.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Names of layers that must not be built.
    pub(crate) broken_layers: HashSet<String>,
}

/// Checks every definition of a file.
pub(crate) fn check(parsed: &Parsed, library: &Library<'_>) -> Checked {
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
    checked
}

pub(crate) fn layers(file: &File) -> impl Iterator<Item = &Layer> {
    file.items.iter().filter_map(|item| match item {
        Item::Layer(layer) => Some(layer),
        Item::Function(_) => None,
    })
}

/// A name that is taken; a layer of such a name is not built.
fn redefinitions(file: &File, checked: &mut Checked) {
    let Checked { diagnostics, broken_layers } = checked;
    let mut defined: HashMap<&str, Span> = HashMap::new();
    for item in &file.items {
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
                Role::Input => continue,
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
            let otherwise = format!("there are {names}; a trainable value is declared with `param {name} = 1`");
            diagnostic.help(did_you_mean(name, known, otherwise))
        };
        self.report(diagnostic);
    }

    fn call(&mut self, call: &Call, span: Span) {
        let name = call.function.text.as_str();
        if let Some(moment) = Moment::by_name(name) {
            self.moment(moment, call, span);
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
        } else {
            let known = Prim::ALL
                .iter()
                .map(|prim| prim.name())
                .chain(Moment::ALL.iter().map(|moment| moment.name()))
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
            let help = "only mean, rms, std and var average over an index set; remove the brackets";
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

    fn moment(&mut self, moment: Moment, call: &Call, span: Span) {
        self.argument_count(call, span, 1, moment.doc());
        let Some(set) = &call.index_set else {
            let name = moment.name();
            let sets: Vec<&str> = INDEX_SETS.iter().map(|(name, _)| *name).collect();
            let message = format!("`{name}` does not say what it averages over");
            let diagnostic = Diagnostic::new(Code::MissingIndexSet, call.function.span, message)
                .label("an index set is missing after this")
                .help(format!("write `{name}[batch](...)`; the index sets are {}", sets.join(", ")));
            self.report(diagnostic);
            return;
        };
        self.index_set(set);
        for setting in &call.settings {
            let known = Known::by_name(&setting.name.text);
            let applies = known.is_some_and(|known| applies(known, moment, set));
            if applies {
                self.setting_value(setting, known);
            } else {
                let call = format!("{}[{}]", moment.name(), set.name.text);
                let usable: Vec<&str> = Known::ALL
                    .into_iter()
                    .filter(|known| self::applies(*known, moment, set))
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
        for known in Known::ALL.into_iter().filter(|known| self::applies(*known, moment, set)) {
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
}

/// Whether a setting makes a difference to a moment.
fn applies(known: Known, moment: Moment, set: &IndexSet) -> bool {
    let over_samples = matches!(set.name.text.as_str(), "batch" | "all");
    match known {
        Known::Groups => set.name.text == "group" && set.count.is_none(),
        Known::Eps => moment.is_root(),
        Known::Momentum => over_samples,
        Known::Running => over_samples && moment.quantity() == normact_ir::Quantity::Variance,
    }
}
