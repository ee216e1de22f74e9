//! From operations to the instructions of one function.
//!
//! The function loops over rows, and in each over groups of vectors: each operation is emitted for all vectors of the group
//! before the next one, so that no instruction waits for the one before it, and a number is loaded
//! once for the group. What is left of a row takes a second loop, over masked single vectors.
//!
//! Registers are handed out as the code is written. The sums keep theirs through both loops, and so do
//! the numbers used most, as far as registers are left. Where a value needs a register and none is
//! free, the one whose value is used last is taken: what came from memory is loaded again later, the
//! rest is spilled.

use std::collections::HashMap;

use super::ALIGNMENT;
use super::instructions::{Assembler, Instructions, Memory, Vector};
use super::operations::{Binary, Number, Operation, Operations, Sink, Stream, Value};
use crate::run::AHEAD;

/// The most vectors of a group.
const LARGEST_GROUP: usize = 4;

/// The registers that a group leaves for numbers at least.
const FOR_NUMBERS: usize = 3;

/// The registers that the end of a row needs, from the first on.
const FOR_TOTALS: usize = 2;

/// The registers that one operation needs: its operands and its result.
const FEWEST: usize = 5;

/// So many additions to one f32 are followed by one in f64.
const ADDITIONS: usize = 8;

/// How the output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    Plain,
    /// From an address on that is a multiple of the size of a vector.
    PastCaches,
}

/// A function with the constants in front of it.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) code: Vec<u8>,
    /// Where it starts.
    pub(super) start: usize,
    /// The size of the frame, in numbers.
    pub(super) frame: usize,
}

impl Function {
    /// `None` if the sums of the pass leave too few registers for its operations.
    pub(super) fn of(operations: &Operations, instructions: Instructions, writes: Writes) -> Option<Self> {
        let lanes = instructions.lanes();
        let order = Order::of(operations);
        let sums = operations.sums;
        let fits = |&group: &usize| group * (order.pressure + sums) + FOR_NUMBERS <= instructions.registers();
        let group = (2..=LARGEST_GROUP).rev().find(fits).unwrap_or(1);
        // Numbers that count up, which make masks, and the constants.
        let mut code: Vec<u8> = (0..lanes as u32).flat_map(u32::to_le_bytes).collect();
        let counting = Memory::Constant(0);
        let mut of_row = 0;
        let numbers: Vec<Memory> = operations
            .numbers
            .iter()
            .map(|&number| match number {
                Number::Constant(bits) => {
                    code.extend(bits.to_le_bytes());
                    Memory::Constant(code.len() / 4 - 1)
                }
                Number::Scalar(..) => {
                    of_row += 1;
                    Memory::Row(of_row - 1)
                }
                Number::Window(window) => Memory::Window(window),
            })
            .collect();
        code.resize(code.len().next_multiple_of(ALIGNMENT), 0);
        let entry = code.len();
        let total = |sum: usize| Memory::Frame(sum * lanes);
        let spills_at = sums * lanes;

        let first_sum = instructions.registers().checked_sub(sums * group).filter(|&left| left >= FEWEST)?;
        let sum = |number: usize, lane: usize| (first_sum + number * group + lane) as Vector;
        // Those used most come first; one that has no register of its own needs one for a moment.
        let free = first_sum.saturating_sub((group * order.pressure).max(FOR_TOTALS));
        let mut pinned: Vec<Value> = order.numbers(operations);
        if pinned.len() > free {
            pinned.truncate(free.saturating_sub(2));
        }
        let first_pinned = first_sum - pinned.len();

        let home = |&value: &Value| match operations.operations[value] {
            Operation::Number(number) => numbers[number],
            _ => unreachable!("a number"),
        };
        let homes = || pinned.iter().map(home).zip(first_pinned as Vector..);
        let constant: HashMap<Value, Vector> = pinned.iter().copied().zip(first_pinned as Vector..).collect();
        let is_constant = |home: Memory| matches!(home, Memory::Constant(_));

        let mut assembler = Assembler::new(instructions, entry);
        homes().filter(|&(home, _)| is_constant(home)).for_each(|(home, into)| assembler.broadcast(into, home));
        let row = assembler.begin_row();
        homes().filter(|&(home, _)| !is_constant(home)).for_each(|(home, into)| assembler.broadcast(into, home));
        for number in 0..sums {
            (0..group).for_each(|lane| assembler.zero(sum(number, lane)));
            assembler.store_vector(total(number), sum(number, 0));
        }
        let body = |assembler: &mut Assembler, group: usize, is_rest: bool| {
            let mut body = Body {
                operations,
                order: &order,
                constant: &constant,
                assembler,
                group,
                writes: if is_rest { Writes::Plain } else { writes },
                is_rest,
                numbers: &numbers,
                spills_at,
                spills: 0,
                lanes,
                holds: vec![None; first_pinned],
                places: vec![Location::default(); operations.operations.len() * group],
            };
            for (position, &item) in order.items.iter().enumerate() {
                for lane in 0..group {
                    body.item(position, item, lane, sum);
                }
            }
            body.spills
        };
        // Between the bodies of loops, no value has a register.
        let scratch: Vector = 0;
        let groups = assembler.begin_groups(group * lanes, (sums > 0).then_some(ADDITIONS));
        let spills = body(&mut assembler, group, false);
        assembler.end_groups(groups);
        if sums > 0 {
            for number in 0..sums {
                add_up(&mut assembler, group, |lane| sum(number, lane));
                assembler.add_to_total(total(number), sum(number, 0), scratch);
                (0..group).for_each(|lane| assembler.zero(sum(number, lane)));
            }
            assembler.more_groups(groups);
        }
        let rest = assembler.begin_rest(counting);
        let spills = spills.max(body(&mut assembler, 1, true));
        assembler.end_rest(rest);
        for number in 0..sums {
            assembler.add_to_total(total(number), sum(number, 0), scratch);
        }
        assembler.end_of_rest();
        (0..sums).for_each(|number| assembler.store_total(number, total(number)));
        assembler.end_row(row, operations.streams.len());
        assembler.end();
        code.extend(assembler.finish(entry));
        Some(Self { code, start: entry, frame: spills_at + spills * lanes })
    }
}

/// Adds the sums of a group to the first of them: pairs, then pairs of pairs.
fn add_up(assembler: &mut Assembler, group: usize, sum: impl Fn(usize) -> Vector) {
    let mut distance = 1;
    while distance < group {
        for lane in (0..group - distance).step_by(2 * distance) {
            assembler.binary(Binary::Add, sum(lane), sum(lane), sum(lane + distance));
        }
        distance *= 2;
    }
}

#[derive(Debug, Clone, Copy)]
enum Item {
    Value(Value),
    Sink(Sink),
}

/// Operations and sinks in the order of their code.
struct Order {
    items: Vec<Item>,
    /// For each value, the positions of the items that use it.
    uses: Vec<Vec<usize>>,
    /// The most values that are needed at one time, beside numbers.
    pressure: usize,
}

impl Order {
    fn of(operations: &Operations) -> Self {
        // A sink follows its last operand, which may then leave its register.
        let mut sinks = vec![vec![]; operations.operations.len()];
        for &sink in &operations.sinks {
            let last = sink.operands().into_iter().max().expect("a sink has an operand");
            sinks[last].push(sink);
        }
        let mut items = vec![];
        for (value, sinks) in sinks.into_iter().enumerate() {
            items.push(Item::Value(value));
            items.extend(sinks.into_iter().map(Item::Sink));
        }
        let mut uses = vec![vec![]; operations.operations.len()];
        for (position, item) in items.iter().enumerate() {
            item.operands(operations).into_iter().for_each(|operand| uses[operand].push(position));
        }
        let mut order = Self { items, uses, pressure: 0 };
        let mut live = 0;
        for (position, &item) in order.items.iter().enumerate() {
            let mut operands = item.operands(operations);
            operands.sort_unstable();
            operands.dedup();
            let ends =
                |&operand: &Value| !is_number(operations, operand) && order.uses[operand].last() == Some(&position);
            let ending = operands.into_iter().filter(ends).count();
            let begins = matches!(item, Item::Value(value) if !is_number(operations, value));
            // The result may take the place of an operand that ends here.
            live = live + usize::from(begins) - ending;
            order.pressure = order.pressure.max(live + ending.saturating_sub(usize::from(begins)));
        }
        order
    }

    /// The numbers, those used most first.
    fn numbers(&self, operations: &Operations) -> Vec<Value> {
        let mut numbers: Vec<Value> =
            (0..operations.operations.len()).filter(|&value| is_number(operations, value)).collect();
        numbers.sort_by_key(|&value| std::cmp::Reverse(self.uses[value].len()));
        numbers
    }
}

fn is_number(operations: &Operations, value: Value) -> bool {
    matches!(operations.operations[value], Operation::Number(_))
}

impl Item {
    fn operands(&self, operations: &Operations) -> Vec<Value> {
        match self {
            Item::Value(value) => operations.operations[*value].operands(),
            Item::Sink(sink) => sink.operands(),
        }
    }
}

/// Where the value of one vector of a group is.
#[derive(Debug, Clone, Copy, Default)]
struct Location {
    register: Option<Vector>,
    memory: Option<Saved>,
}

#[derive(Debug, Clone, Copy)]
enum Saved {
    Stream(usize),
    Spilled(usize),
}

/// A value of one vector of a group; a number has that of the first vector.
type Instance = (Value, usize);

/// The code of one group of vectors.
struct Body<'a> {
    operations: &'a Operations,
    order: &'a Order,
    /// The registers of the numbers that keep theirs.
    constant: &'a HashMap<Value, Vector>,
    assembler: &'a mut Assembler,
    group: usize,
    writes: Writes,
    is_rest: bool,
    /// Where each number is.
    numbers: &'a [Memory],
    spills_at: usize,
    spills: usize,
    lanes: usize,
    /// What each register holds.
    holds: Vec<Option<Instance>>,
    places: Vec<Location>,
}

impl Body<'_> {
    fn item(&mut self, position: usize, item: Item, lane: usize, sum: impl Fn(usize, usize) -> Vector) {
        match item {
            Item::Value(value) => self.operation(position, value, lane),
            Item::Sink(sink) => {
                let mut taken = vec![];
                let registers: Vec<Vector> =
                    sink.operands().into_iter().map(|a| self.operand(position, a, lane, &mut taken)).collect();
                match sink {
                    Sink::Store(stream, value) => {
                        let is_output = self.operations.streams[stream] == Stream::Output;
                        if is_output && self.writes == Writes::PastCaches {
                            self.assembler.store_past_caches(stream, lane, registers[0]);
                        } else {
                            self.assembler.store(stream, lane, registers[0], self.is_rest);
                            self.fetch_ahead(stream, lane);
                        }
                        if !is_number(self.operations, value) {
                            self.place((value, lane)).memory = Some(Saved::Stream(stream));
                        }
                    }
                    Sink::Sum(number, _) => {
                        self.assembler.accumulate(sum(number, lane), registers[0], None, self.is_rest);
                    }
                    Sink::SumProduct(number, ..) => {
                        self.assembler.accumulate(sum(number, lane), registers[0], Some(registers[1]), self.is_rest);
                    }
                }
                self.release(position, &sink.operands(), lane);
            }
        }
    }

    /// Asks for the memory of a tensor that a later group needs.
    fn fetch_ahead(&mut self, stream: usize, lane: usize) {
        if self.is_rest {
            return;
        }
        match self.operations.streams[stream] {
            Stream::Input | Stream::Upstream => self.assembler.prefetch(stream, lane, AHEAD, false),
            Stream::Output => self.assembler.prefetch(stream, lane, AHEAD, true),
            Stream::Held(_) | Stream::Register(_) => {}
        }
    }

    fn operation(&mut self, position: usize, value: Value, lane: usize) {
        let operation = self.operations.operations[value];
        if self.order.uses[value].is_empty() {
            return;
        }
        let operands = operation.operands();
        let mut taken = vec![];
        let registers: Vec<Vector> = operands.iter().map(|&a| self.operand(position, a, lane, &mut taken)).collect();
        self.release(position, &operands, lane);
        let into = match operation {
            // Loaded where it is used.
            Operation::Number(_) => return,
            Operation::Load(stream) => {
                let into = self.free(position, &taken);
                self.assembler.load(into, stream, lane, self.is_rest);
                self.fetch_ahead(stream, lane);
                self.place((value, lane)).memory = Some(Saved::Stream(stream));
                into
            }
            Operation::Unary(unary, _) => {
                let into = self.free(position, &taken);
                self.assembler.unary(unary, into, registers[0]);
                into
            }
            Operation::Binary(binary, ..) => {
                let into = self.free(position, &taken);
                self.assembler.binary(binary, into, registers[0], registers[1]);
                into
            }
            Operation::Select(comparison, _) => {
                let into = self.free(position, &taken);
                let operands = registers.try_into().expect("a selection has four operands");
                self.assembler.select(comparison, into, operands);
                into
            }
            Operation::MultiplyAdd(..) => {
                let [a, b, c] = registers.try_into().expect("three operands");
                let is_free = |register: Vector| self.holds.get(usize::from(register)).is_some_and(Option::is_none);
                // The instruction overwrites one of its operands.
                if is_free(c) {
                    self.assembler.multiply_into_sum(c, a, b);
                    c
                } else if is_free(a) {
                    self.assembler.multiply_into_factor(a, b, c);
                    a
                } else if is_free(b) {
                    self.assembler.multiply_into_factor(b, a, c);
                    b
                } else {
                    let into = self.free(position, &taken);
                    self.assembler.copy(into, c);
                    self.assembler.multiply_into_sum(into, a, b);
                    into
                }
            }
        };
        self.hold(into, (value, lane));
    }

    fn instance(&self, value: Value, lane: usize) -> Instance {
        if is_number(self.operations, value) { (value, 0) } else { (value, lane) }
    }

    fn place(&mut self, (value, lane): Instance) -> &mut Location {
        &mut self.places[value * self.group + lane]
    }

    fn hold(&mut self, register: Vector, instance: Instance) {
        self.holds[usize::from(register)] = Some(instance);
        self.place(instance).register = Some(register);
    }

    /// The register of an operand, which is loaded if it is in memory only.
    fn operand(&mut self, position: usize, value: Value, lane: usize, taken: &mut Vec<Vector>) -> Vector {
        if let Some(&register) = self.constant.get(&value) {
            return register;
        }
        let instance = self.instance(value, lane);
        let place = *self.place(instance);
        let register = place.register.unwrap_or_else(|| {
            let register = self.free(position, taken);
            match (self.operations.operations[value], place.memory) {
                (Operation::Number(number), _) => self.assembler.broadcast(register, self.numbers[number]),
                (_, Some(Saved::Stream(stream))) => self.assembler.load(register, stream, lane, self.is_rest),
                (_, Some(Saved::Spilled(place))) => self.assembler.load_vector(register, Memory::Frame(place)),
                (_, None) => unreachable!("a value is computed before it is used"),
            }
            self.hold(register, instance);
            register
        });
        taken.push(register);
        register
    }

    /// The position of the next item that uses what a register holds.
    fn next_use(&self, position: usize, (value, _): Instance) -> Option<usize> {
        // In the order of positions.
        let uses = &self.order.uses[value];
        uses.get(uses.partition_point(|&user| user <= position)).copied()
    }

    /// Frees the registers of operands that no later code uses.
    fn release(&mut self, position: usize, operands: &[Value], lane: usize) {
        for &operand in operands {
            let instance = self.instance(operand, lane);
            // A number serves all vectors of the group.
            let is_last = !is_number(self.operations, operand) || lane + 1 == self.group;
            if is_last
                && self.next_use(position, instance).is_none()
                && let Some(register) = self.place(instance).register.take()
            {
                self.holds[usize::from(register)] = None;
            }
        }
    }

    /// A register to write, none of those `taken`.
    fn free(&mut self, position: usize, taken: &[Vector]) -> Vector {
        if let Some(register) = self.holds.iter().position(Option::is_none) {
            return register as Vector;
        }
        let candidates = (0..self.holds.len()).filter(|&register| !taken.contains(&(register as Vector)));
        let last_used = |&register: &usize| {
            let instance = self.holds[register].expect("none is free");
            let next = self.next_use(position, instance).unwrap_or(usize::MAX);
            // Another vector of the group may use it right after this one.
            if self.order.uses[instance.0].binary_search(&position).is_ok() { position } else { next }
        };
        let register = candidates.max_by_key(last_used).expect("an operation has fewer operands than registers");
        let instance = self.holds[register].take().expect("none is free");
        let place = self.spills_at + self.spills * self.lanes;
        let needs_memory = !is_number(self.operations, instance.0) && self.place(instance).memory.is_none();
        if needs_memory {
            self.assembler.store_vector(Memory::Frame(place), register as Vector);
            self.spills += 1;
            self.place(instance).memory = Some(Saved::Spilled(place));
        }
        self.place(instance).register = None;
        register as Vector
    }
}
