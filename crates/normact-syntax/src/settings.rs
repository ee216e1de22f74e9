//! Settings: the numbers a layer takes after its input, and the four that moments read.

use std::num::NonZeroU32;

use normact_ir::json::defaults;
use normact_ir::{Running, Scalar};

use crate::ast::{Value, ValueKind};

/// The value of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SettingValue {
    /// A number.
    Number(f64),
    /// `biased` or `unbiased`.
    Running(Running),
}

/// The settings that moments read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The number of groups of `group`.
    Groups,
    /// What `std` and `rms` add under the root.
    Eps,
    /// The weight of the new value in a running average.
    Momentum,
    /// What a running variance stores.
    Running,
}

impl Known {
    /// All of them.
    pub const ALL: [Known; 4] = [Known::Groups, Known::Eps, Known::Momentum, Known::Running];

    /// Its name in the language.
    pub fn name(self) -> &'static str {
        match self {
            Known::Groups => "groups",
            Known::Eps => "eps",
            Known::Momentum => "momentum",
            Known::Running => "running",
        }
    }

    /// The setting of that name.
    pub fn by_name(name: &str) -> Option<Known> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// What values it can have.
    pub fn values(self) -> &'static str {
        match self {
            Known::Groups => "a whole number from 1",
            Known::Eps => "a number from 0",
            Known::Momentum => "a number from 0 to 1",
            Known::Running => "`biased` or `unbiased`",
        }
    }

    /// Whether it can have that value.
    pub fn accepts(self, value: SettingValue) -> bool {
        match (self, value) {
            (Known::Groups, SettingValue::Number(value)) => whole(value).is_some(),
            (Known::Eps, SettingValue::Number(value)) => value >= 0.0 && value.is_finite(),
            (Known::Momentum, SettingValue::Number(value)) => (0.0..=1.0).contains(&value),
            (Known::Running, SettingValue::Running(_)) => true,
            (Known::Groups | Known::Eps | Known::Momentum, SettingValue::Running(_))
            | (Known::Running, SettingValue::Number(_)) => false,
        }
    }
}

/// A whole number from 1 that fits 32 bits.
pub(crate) fn whole(value: f64) -> Option<NonZeroU32> {
    let fits = value.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&value);
    fits.then(|| NonZeroU32::new(value as u32)).flatten()
}

/// What the word or number means by itself; `None` for a word that is no value.
pub(crate) fn literal(kind: &ValueKind) -> Option<SettingValue> {
    match kind {
        ValueKind::Number(value, _) => Some(SettingValue::Number(*value)),
        ValueKind::Word(word) => running(word).map(SettingValue::Running),
    }
}

fn running(word: &str) -> Option<Running> {
    match word {
        "biased" => Some(Running::Biased),
        "unbiased" => Some(Running::Unbiased),
        _ => None,
    }
}

/// Settings a caller overrides: `--set name=value`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides(Vec<(String, SettingValue)>);

impl Overrides {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads `name=value` texts.
    ///
    /// # Errors
    /// A text is not of that form, or the setting cannot have the value. The message says which.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut overrides = Self::default();
        for text in texts {
            let form = || format!("`{text}` is not a setting; write name=value, as in groups=8 or running=unbiased");
            let (name, value) = text.split_once('=').ok_or_else(form)?;
            let (name, value) = (name.trim(), value.trim());
            let value = match (running(value), value.parse::<f64>()) {
                (Some(running), _) => SettingValue::Running(running),
                (None, Ok(number)) if number.is_finite() => SettingValue::Number(number),
                _ => return Err(form()),
            };
            if let Some(known) = Known::by_name(name).filter(|known| !known.accepts(value)) {
                return Err(format!("`{text}` is not possible: `{name}` is {}", known.values()));
            }
            overrides.set(name, value);
        }
        Ok(overrides)
    }

    /// Overrides one setting.
    pub fn set(&mut self, name: &str, value: SettingValue) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<SettingValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, SettingValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

/// The four settings in force at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce {
    pub(crate) groups: NonZeroU32,
    pub(crate) eps: Scalar,
    pub(crate) momentum: Scalar,
    pub(crate) running: Running,
}

impl Default for InForce {
    fn default() -> Self {
        let number = |value: f64| Scalar::new(value).unwrap_or(Scalar::ZERO);
        Self {
            groups: NonZeroU32::new(defaults::GROUPS).unwrap_or(NonZeroU32::MIN),
            eps: number(defaults::EPS),
            momentum: number(defaults::MOMENTUM),
            running: Running::Biased,
        }
    }
}

impl InForce {
    /// Puts a value that [`Known::accepts`] in its place; other values change nothing.
    pub(crate) fn set(&mut self, known: Known, value: SettingValue) {
        match (known, value) {
            (Known::Groups, SettingValue::Number(value)) => self.groups = whole(value).unwrap_or(self.groups),
            (Known::Eps, SettingValue::Number(value)) => self.eps = Scalar::new(value).unwrap_or(self.eps),
            (Known::Momentum, SettingValue::Number(value)) => {
                self.momentum = Scalar::new(value).unwrap_or(self.momentum);
            }
            (Known::Running, SettingValue::Running(running)) => self.running = running,
            (Known::Groups | Known::Eps | Known::Momentum, SettingValue::Running(_))
            | (Known::Running, SettingValue::Number(_)) => {}
        }
    }
}

/// How a value is written.
pub(crate) fn display(value: &Value) -> &str {
    match &value.kind {
        ValueKind::Number(_, text) | ValueKind::Word(text) => text,
    }
}
