//! Layers as PyTorch users write them and as PyTorch prints them: `nn.GroupNorm(8, 64)`,
//! `BatchNorm2d + ReLU`, `Sequential((0): BatchNorm2d(64, eps=1e-05) (1): ReLU())`.
//!
//! Arguments may be separated by commas or, as in what `print(module)` shows, by line breaks; a name in
//! brackets before a colon names a part.

use crate::Failure;

/// A name with its arguments and parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The name, with what stands before its dots.
    pub(super) name: String,
    /// Arguments without a name.
    pub(super) positional: Vec<Value>,
    /// Arguments with a name.
    pub(super) named: Vec<(String, Value)>,
    /// Parts: `(act): ReLU()`.
    pub(super) parts: Vec<(String, Call)>,
}

impl Call {
    /// The name without what stands before its last dot.
    pub(super) fn class(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// An argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A number as it is written.
    Number(String),
    /// A text in quotes.
    Text(String),
    /// `True`, `None`, a class, or a call.
    Call(Call),
    /// Values in brackets.
    List(Vec<Value>),
}

/// How deep brackets may be nested.
const MAX_DEPTH: usize = 16;

/// Reads one or more layers that follow each other, joined by `+`.
pub(super) fn parse(text: &str) -> Result<Vec<Call>, Failure> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let mut calls = vec![reader.call()?];
    while reader.accept("+") {
        calls.push(reader.call()?);
    }
    match reader.rest().is_empty() {
        true => Ok(calls),
        false => Err(reader.expected("`+` and another layer, or the end")),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn expected(&mut self, what: &str) -> Failure {
        let rest = self.rest();
        let found = match rest.chars().next() {
            None => "the end".to_owned(),
            Some(_) => format!("`{}`", rest.split_whitespace().next().unwrap_or(rest)),
        };
        Failure::new(format!("`{}` is not the name of a layer: expected {what}, found {found}", self.text.trim())).help(
            "write it as in Python or as PyTorch prints it, like `BatchNorm2d(64) + ReLU()` or `EvoNorm2dS0(groups=16)`",
        )
    }

    /// The longest start of the rest whose characters are all `allowed`.
    fn word(&mut self, allowed: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let word = &rest[..rest.find(|c| !allowed(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn name(&mut self) -> Result<String, Failure> {
        if !self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(self.expected("a name"));
        }
        Ok(self.word(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.').to_owned())
    }

    fn call(&mut self) -> Result<Call, Failure> {
        let mut call = Call { name: self.name()?, positional: vec![], named: vec![], parts: vec![] };
        // What PyTorch prints has the name of a part in brackets after a space: `eps=1e-05 (act): ReLU()`.
        if !self.text[self.at..].starts_with('(') {
            return Ok(call);
        }
        self.at += 1;
        self.deeper()?;
        while !self.accept(")") {
            match self.part_name() {
                Some(name) => call.parts.push((name, self.call()?)),
                None => match self.value()? {
                    Value::Call(name) if self.accept("=") => call.named.push((name.name, self.value()?)),
                    value => call.positional.push(value),
                },
            }
            self.accept(",");
        }
        self.depth -= 1;
        Ok(call)
    }

    /// `(act):`
    fn part_name(&mut self) -> Option<String> {
        let (name, _) = self.rest().strip_prefix('(')?.split_once("):")?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        self.at += if is_name { name.len() + 3 } else { 0 };
        is_name.then(|| name.to_owned())
    }

    fn value(&mut self) -> Result<Value, Failure> {
        let rest = self.rest();
        for (open, close) in [("(", ")"), ("[", "]")] {
            if self.accept(open) {
                self.deeper()?;
                let mut values = vec![];
                while !self.accept(close) {
                    values.push(self.value()?);
                    self.accept(",");
                }
                self.depth -= 1;
                return Ok(Value::List(values));
            }
        }
        if let Some(quote) = rest.chars().next().filter(|c| ['"', '\''].contains(c)) {
            let Some((text, _)) = rest[1..].split_once(quote) else { return Err(self.expected("a text that ends")) };
            self.at += text.len() + 2;
            return Ok(Value::Text(text.to_owned()));
        }
        if rest.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
            let mut before = ' ';
            let end = rest.find(|c: char| {
                let inside = c.is_ascii_alphanumeric() || c == '.' || c == '_';
                let sign = (c == '-' || c == '+') && (before == ' ' || before == 'e' || before == 'E');
                before = c;
                !inside && !sign
            });
            let number = &rest[..end.unwrap_or(rest.len())];
            if number.replace('_', "").parse::<f64>().is_ok_and(f64::is_finite) {
                self.at += number.len();
                return Ok(Value::Number(number.replace('_', "")));
            }
        }
        self.call().map(Value::Call)
    }

    fn deeper(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Failure::new(format!("brackets are nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }
}
