//! The instructions that operations become, in the two encodings of vectors.

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

use super::MOST_ROWS;
use super::operations::{Binary, Comparison, Unary};

/// Which vector instructions native code is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 16 registers of 8 numbers: AVX2 with fused multiply-add.
    Avx2,
    /// 32 registers of 16 numbers: AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Instructions {
    /// The widest that this processor has.
    pub fn detect() -> Option<Self> {
        [Self::Avx512, Self::Avx2].into_iter().find(|instructions| instructions.is_available())
    }

    /// Whether this processor has them.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("bmi2")
                    && Self::Avx2.is_available()
            }
        };
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The numbers in a vector.
    pub(super) fn lanes(self) -> usize {
        match self {
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        }
    }

    /// The vector registers that values may have: with AVX2, two have other tasks.
    pub(super) fn registers(self) -> usize {
        match self {
            Self::Avx2 => 14,
            Self::Avx512 => 32,
        }
    }
}

/// The mask of the elements that are left, in AVX2 a vector.
const MASK: Register = Register::YMM14;
/// The second task: what a selection and a masked sum need for a moment.
const SCRATCH: Register = Register::YMM15;
/// The mask registers of AVX-512: of what is left, and of a selection.
const LEFT: Register = Register::K2;
const CHOICE: Register = Register::K1;

/// The registers of the arguments: the list of [`Argument`]s, and the frame.
const ARGUMENTS: Register = Register::RDI;
const FRAME: Register = Register::RSI;
/// The numbers of the row, those of its windows, the totals of its sums, and how many bytes of each stream a
/// row has.
const NUMBERS: Register = Register::RDX;
const WINDOWS: Register = Register::RCX;
const TOTALS: Register = Register::R8;
const END: Register = Register::R9;
/// The byte of a stream where the loop is, and the last one where it goes on.
const AT: Register = Register::R10;
const LAST: Register = Register::R11;
/// The address of a stream.
const ADDRESS: Register = Register::RAX;

/// The arguments of a function that are in a list of 64-bit numbers, by their positions. The address of each
/// stream follows, with the bytes from one row to the next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// The address of the first row's numbers, and the bytes from one row's to those of the next.
    Numbers,
    NumbersStride,
    /// The addresses of the first row's windows and totals; those of the next row follow.
    Windows,
    Totals,
    /// The bytes of a row in each stream.
    Bytes,
    /// How many rows there are.
    Rows,
    /// The first of the streams.
    Streams,
}

impl Argument {
    fn operand(self) -> MemoryOperand {
        MemoryOperand::with_base_displ(ARGUMENTS, 8 * self as i64)
    }

    /// The address of a stream, or how far apart its rows are.
    fn of_stream(stream: usize, is_stride: bool) -> MemoryOperand {
        let position = Argument::Streams as usize + 2 * stream + usize::from(is_stride);
        MemoryOperand::with_base_displ(ARGUMENTS, 8 * position as i64)
    }
}

/// Bytes.
const CACHE_LINE: usize = 64;

/// A loop over groups that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loop {
    outer: usize,
    inner: usize,
    bytes: i32,
}

/// A vector register, by its number.
pub(super) type Vector = u8;

/// Writes instructions.
pub(super) struct Assembler {
    encoder: Encoder,
    instructions: Instructions,
    /// The address of the next instruction: constants come first, from 0 on.
    length: usize,
    /// The stream whose address is in its register.
    addressed: Option<usize>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

/// Where a number or a vector is that is no part of a stream, in numbers from the start. What differs from row to
/// row is in columns: the place is that of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// In front of the code.
    Constant(usize),
    Row(usize),
    Window(usize),
    Frame(usize),
}

impl Memory {
    fn operand(self) -> MemoryOperand {
        let (base, place) = match self {
            // Relative to the instruction, which the encoder works out.
            Memory::Constant(place) => (Register::RIP, place),
            Memory::Row(place) => (NUMBERS, place * MOST_ROWS),
            Memory::Window(place) => (WINDOWS, place * MOST_ROWS),
            Memory::Frame(place) => (FRAME, place),
        };
        MemoryOperand::with_base_displ(base, 4 * place as i64)
    }
}

/// A place in the code to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The loop over what is left.
    Rest,
    /// What follows the loops.
    End,
}

impl Assembler {
    /// Begins a function that starts at this address.
    pub(super) fn new(instructions: Instructions, start: usize) -> Self {
        let mut assembler = Self {
            encoder: Encoder::new(64),
            instructions,
            length: start,
            addressed: None,
            jumps: vec![],
            labels: vec![],
        };
        for (register, argument) in [
            (NUMBERS, Argument::Numbers),
            (WINDOWS, Argument::Windows),
            (TOTALS, Argument::Totals),
            (END, Argument::Bytes),
        ] {
            assembler.emit(valid(Instruction::with2(Code::Mov_r64_rm64, register, argument.operand())));
        }
        assembler
    }

    /// Begins a row: gives where it starts.
    pub(super) fn begin_row(&mut self) -> usize {
        let start = self.length;
        self.emit(valid(Instruction::with2(Code::Xor_r32_rm32, Register::R10D, Register::R10D)));
        start
    }

    /// Ends it, and goes on with the next one, if there is one, of so many streams.
    pub(super) fn end_row(&mut self, start: usize, streams: usize) {
        let (add, add_to) = (Code::Add_r64_rm64, Code::Add_rm64_r64);
        self.emit(valid(Instruction::with2(add, NUMBERS, Argument::NumbersStride.operand())));
        self.emit(valid(Instruction::with2(Code::Add_rm64_imm32, WINDOWS, 4)));
        self.emit(valid(Instruction::with2(Code::Add_rm64_imm32, TOTALS, 8)));
        for stream in 0..streams {
            let stride = Argument::of_stream(stream, true);
            self.emit(valid(Instruction::with2(Code::Mov_r64_rm64, ADDRESS, stride)));
            self.emit(valid(Instruction::with2(add_to, Argument::of_stream(stream, false), ADDRESS)));
        }
        self.emit(valid(Instruction::with1(Code::Dec_rm64, Argument::Rows.operand())));
        self.emit(valid(Instruction::with_branch(Code::Jne_rel32_64, start as u64)));
    }

    /// The code, with all jumps to labels.
    pub(super) fn finish(mut self, start: usize) -> Vec<u8> {
        let mut code = self.encoder.take_buffer();
        for (end, label) in self.jumps {
            let (_, target) = self.labels.iter().find(|(known, _)| *known == label).expect("every label is placed");
            let distance = *target as i32 - end as i32;
            code[end - start - 4..end - start].copy_from_slice(&distance.to_le_bytes());
        }
        code
    }

    fn emit(&mut self, instruction: Instruction) {
        let written = self.encoder.encode(&instruction, self.length as u64);
        self.length += written.expect("the operands fit the instruction");
    }

    fn register(&self, vector: Vector) -> Register {
        match self.instructions {
            Instructions::Avx2 => Register::YMM0 + u32::from(vector),
            Instructions::Avx512 => Register::ZMM0 + u32::from(vector),
        }
    }

    fn code(&self, [avx512, avx2]: [Code; 2]) -> Code {
        match self.instructions {
            Instructions::Avx2 => avx2,
            Instructions::Avx512 => avx512,
        }
    }

    fn three(&mut self, codes: [Code; 2], into: Vector, a: Vector, b: Vector) {
        let [into, a, b] = [into, a, b].map(|vector| self.register(vector));
        self.emit(valid(Instruction::with3(self.code(codes), into, a, b)));
    }

    pub(super) fn copy(&mut self, into: Vector, from: Vector) {
        let codes = [Code::EVEX_Vmovaps_zmm_k1z_zmmm512, Code::VEX_Vmovaps_ymm_ymmm256];
        let [into, from] = [into, from].map(|vector| self.register(vector));
        self.emit(valid(Instruction::with2(self.code(codes), into, from)));
    }

    pub(super) fn zero(&mut self, into: Vector) {
        self.binary(Binary::ExclusiveOr, into, into, into);
    }

    pub(super) fn unary(&mut self, unary: Unary, into: Vector, a: Vector) {
        let (codes, bits) = match unary {
            Unary::SquareRoot => ([Code::EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er, Code::VEX_Vsqrtps_ymm_ymmm256], None),
            Unary::FromInteger => ([Code::EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er, Code::VEX_Vcvtdq2ps_ymm_ymmm256], None),
            Unary::ShiftLeft(bits) => {
                ([Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8, Code::VEX_Vpslld_ymm_ymm_imm8], Some(bits))
            }
            Unary::ShiftRight(bits) => {
                ([Code::EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8, Code::VEX_Vpsrld_ymm_ymm_imm8], Some(bits))
            }
            Unary::ShiftSigned(bits) => {
                ([Code::EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8, Code::VEX_Vpsrad_ymm_ymm_imm8], Some(bits))
            }
        };
        let [into, a] = [into, a].map(|vector| self.register(vector));
        let code = self.code(codes);
        self.emit(valid(match bits {
            None => Instruction::with2(code, into, a),
            Some(bits) => Instruction::with3(code, into, a, u32::from(bits)),
        }));
    }

    pub(super) fn binary(&mut self, binary: Binary, into: Vector, a: Vector, b: Vector) {
        let codes = match binary {
            Binary::Add => [Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vaddps_ymm_ymm_ymmm256],
            Binary::Subtract => [Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vsubps_ymm_ymm_ymmm256],
            Binary::Multiply => [Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vmulps_ymm_ymm_ymmm256],
            Binary::Divide => [Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vdivps_ymm_ymm_ymmm256],
            Binary::Minimum => [Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae, Code::VEX_Vminps_ymm_ymm_ymmm256],
            Binary::Maximum => [Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae, Code::VEX_Vmaxps_ymm_ymm_ymmm256],
            Binary::And => [Code::EVEX_Vandps_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vandps_ymm_ymm_ymmm256],
            Binary::Or => [Code::EVEX_Vorps_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vorps_ymm_ymm_ymmm256],
            Binary::ExclusiveOr => [Code::EVEX_Vxorps_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vxorps_ymm_ymm_ymmm256],
            Binary::SubtractIntegers => [Code::EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32, Code::VEX_Vpsubd_ymm_ymm_ymmm256],
        };
        self.three(codes, into, a, b);
    }

    /// `a = a * b + c`
    pub(super) fn multiply_into_factor(&mut self, a: Vector, b: Vector, c: Vector) {
        let codes = [Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vfmadd213ps_ymm_ymm_ymmm256];
        self.three(codes, a, b, c);
    }

    /// `c = a * b + c`
    pub(super) fn multiply_into_sum(&mut self, c: Vector, a: Vector, b: Vector) {
        let codes = [Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er, Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256];
        self.three(codes, c, a, b);
    }

    /// `into = if a ? b { yes } else { no }`
    pub(super) fn select(&mut self, comparison: Comparison, into: Vector, [a, b, yes, no]: [Vector; 4]) {
        let [into, a, b, yes, no] = [into, a, b, yes, no].map(|vector| self.register(vector));
        let comparison = comparison as u32;
        match self.instructions {
            Instructions::Avx512 => {
                let compare = Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae;
                self.emit(valid(Instruction::with4(compare, CHOICE, a, b, comparison)));
                let blend = Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32;
                let mut blend = valid(Instruction::with3(blend, into, no, yes));
                blend.set_op_mask(CHOICE);
                self.emit(blend);
            }
            Instructions::Avx2 => {
                let compare = Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8;
                self.emit(valid(Instruction::with4(compare, SCRATCH, a, b, comparison)));
                let blend = Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm;
                self.emit(valid(Instruction::with4(blend, into, no, yes, SCRATCH)));
            }
        }
    }

    /// Adds the product of two vectors, or a vector, to a sum: if `is_rest`, of the elements that are left.
    pub(super) fn accumulate(&mut self, sum: Vector, a: Vector, b: Option<Vector>, is_rest: bool) {
        match (self.instructions, is_rest) {
            (Instructions::Avx2, true) => {
                let [to, a] = [sum, a].map(|vector| self.register(vector));
                let product = b.map(|b| {
                    let b = self.register(b);
                    self.emit(valid(Instruction::with3(Code::VEX_Vmulps_ymm_ymm_ymmm256, SCRATCH, a, b)));
                    SCRATCH
                });
                let added = product.unwrap_or(a);
                self.emit(valid(Instruction::with3(Code::VEX_Vandps_ymm_ymm_ymmm256, SCRATCH, added, MASK)));
                self.emit(valid(Instruction::with3(Code::VEX_Vaddps_ymm_ymm_ymmm256, to, to, SCRATCH)));
            }
            (Instructions::Avx512, true) => {
                let code = match b {
                    Some(_) => Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er,
                    None => Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er,
                };
                let (to, a, b) = (self.register(sum), self.register(a), b.map(|b| self.register(b)));
                let mut add = valid(match b {
                    Some(b) => Instruction::with3(code, to, a, b),
                    None => Instruction::with3(code, to, to, a),
                });
                add.set_op_mask(LEFT);
                self.emit(add);
            }
            (_, false) => match b {
                Some(b) => self.multiply_into_sum(sum, a, b),
                None => self.binary(Binary::Add, sum, sum, a),
            },
        }
    }

    /// The address of a stream's vector number `lane` of the current group.
    fn stream(&mut self, stream: usize, lane: usize) -> MemoryOperand {
        if self.addressed != Some(stream) {
            let address = Argument::of_stream(stream, false);
            self.emit(valid(Instruction::with2(Code::Mov_r64_rm64, ADDRESS, address)));
            self.addressed = Some(stream);
        }
        let offset = (4 * self.instructions.lanes() * lane) as i64;
        MemoryOperand::with_base_index_scale_displ_size(ADDRESS, AT, 1, offset, 1)
    }

    pub(super) fn load(&mut self, into: Vector, stream: usize, lane: usize, is_rest: bool) {
        let from = self.stream(stream, lane);
        let into = self.register(into);
        if is_rest && self.instructions == Instructions::Avx2 {
            return self.emit(valid(Instruction::with3(Code::VEX_Vmaskmovps_ymm_ymm_m256, into, MASK, from)));
        }
        let codes = [Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::VEX_Vmovups_ymm_ymmm256];
        let mut load = valid(Instruction::with2(self.code(codes), into, from));
        if is_rest {
            load.set_op_mask(LEFT);
            load.set_zeroing_masking(true);
        }
        self.emit(load);
    }

    /// Asks for the cache line that lies `ahead` numbers behind a vector of a stream, if the vector starts
    /// one, to be read or `written`. An address that is not one does no harm.
    pub(super) fn prefetch(&mut self, stream: usize, lane: usize, ahead: usize, written: bool) {
        if !(4 * self.instructions.lanes() * lane).is_multiple_of(CACHE_LINE) {
            return;
        }
        let mut line = self.stream(stream, lane);
        line.displacement += 4 * ahead as i64;
        let code = if written { Code::Prefetchw_m8 } else { Code::Prefetcht0_m8 };
        self.emit(valid(Instruction::with1(code, line)));
    }

    pub(super) fn store(&mut self, stream: usize, lane: usize, from: Vector, is_rest: bool) {
        let into = self.stream(stream, lane);
        let from = self.register(from);
        if is_rest && self.instructions == Instructions::Avx2 {
            return self.emit(valid(Instruction::with3(Code::VEX_Vmaskmovps_m256_ymm_ymm, into, MASK, from)));
        }
        let codes = [Code::EVEX_Vmovups_zmmm512_k1z_zmm, Code::VEX_Vmovups_ymmm256_ymm];
        let mut store = valid(Instruction::with2(self.code(codes), into, from));
        if is_rest {
            store.set_op_mask(LEFT);
        }
        self.emit(store);
    }

    /// Stores a whole vector past the caches; it starts at a multiple of its size.
    pub(super) fn store_past_caches(&mut self, stream: usize, lane: usize, from: Vector) {
        let into = self.stream(stream, lane);
        let codes = [Code::EVEX_Vmovntps_m512_zmm, Code::VEX_Vmovntps_m256_ymm];
        let from = self.register(from);
        self.emit(valid(Instruction::with2(self.code(codes), into, from)));
    }

    pub(super) fn load_vector(&mut self, into: Vector, from: Memory) {
        let codes = [Code::EVEX_Vmovups_zmm_k1z_zmmm512, Code::VEX_Vmovups_ymm_ymmm256];
        let into = self.register(into);
        self.emit(valid(Instruction::with2(self.code(codes), into, from.operand())));
    }

    pub(super) fn store_vector(&mut self, into: Memory, from: Vector) {
        let codes = [Code::EVEX_Vmovups_zmmm512_k1z_zmm, Code::VEX_Vmovups_ymmm256_ymm];
        let from = self.register(from);
        self.emit(valid(Instruction::with2(self.code(codes), into.operand(), from)));
    }

    /// A number, in every element.
    pub(super) fn broadcast(&mut self, into: Vector, from: Memory) {
        let codes = [Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32, Code::VEX_Vbroadcastss_ymm_m32];
        let into = self.register(into);
        self.emit(valid(Instruction::with2(self.code(codes), into, from.operand())));
    }

    /// Adds the elements of `sum` to a vector in the frame, of half as many f64.
    pub(super) fn add_to_total(&mut self, total: Memory, sum: Vector, scratch: Vector) {
        let widen = [Code::EVEX_Vcvtps2pd_zmm_k1z_ymmm256b32_sae, Code::VEX_Vcvtps2pd_ymm_xmmm128];
        let upper = [Code::EVEX_Vextractf32x8_ymmm256_k1z_zmm_imm8, Code::VEX_Vextractf128_xmmm128_ymm_imm8];
        let add = [Code::EVEX_Vaddpd_zmm_k1z_zmm_zmmm512b64_er, Code::VEX_Vaddpd_ymm_ymm_ymmm256];
        let store = [Code::EVEX_Vmovupd_zmmm512_k1z_zmm, Code::VEX_Vmovupd_ymmm256_ymm];
        let [widen, upper, add, store] = [widen, upper, add, store].map(|codes| self.code(codes));
        let [to, from] = [scratch, sum].map(|vector| self.register(vector));
        let half = self.half(sum);
        self.emit(valid(Instruction::with2(widen, to, half)));
        self.emit(valid(Instruction::with3(upper, half, from, 1)));
        self.emit(valid(Instruction::with2(widen, from, half)));
        self.emit(valid(Instruction::with3(add, to, to, from)));
        self.emit(valid(Instruction::with3(add, to, to, total.operand())));
        self.emit(valid(Instruction::with2(store, total.operand(), to)));
    }

    /// Stores the sum of the f64 in the frame as the total of that number, by halves.
    pub(super) fn store_total(&mut self, number: usize, total: Memory) {
        let (x, y) = (Register::XMM0, Register::XMM1);
        let (wide_x, wide_y) = (Register::YMM0, Register::YMM1);
        match self.instructions {
            Instructions::Avx512 => {
                let (load, upper) = (Code::EVEX_Vmovupd_zmm_k1z_zmmm512, Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8);
                self.emit(valid(Instruction::with2(load, Register::ZMM0, total.operand())));
                self.emit(valid(Instruction::with3(upper, wide_y, Register::ZMM0, 1)));
                self.emit(valid(Instruction::with3(Code::VEX_Vaddpd_ymm_ymm_ymmm256, wide_x, wide_x, wide_y)));
            }
            Instructions::Avx2 => {
                self.emit(valid(Instruction::with2(Code::VEX_Vmovupd_ymm_ymmm256, wide_x, total.operand())));
            }
        }
        self.emit(valid(Instruction::with3(Code::VEX_Vextractf128_xmmm128_ymm_imm8, y, wide_x, 1)));
        self.emit(valid(Instruction::with3(Code::VEX_Vaddpd_xmm_xmm_xmmm128, x, x, y)));
        self.emit(valid(Instruction::with3(Code::VEX_Vunpckhpd_xmm_xmm_xmmm128, y, x, x)));
        self.emit(valid(Instruction::with3(Code::VEX_Vaddsd_xmm_xmm_xmmm64, x, x, y)));
        let into = MemoryOperand::with_base_displ(TOTALS, 8 * (number * MOST_ROWS) as i64);
        self.emit(valid(Instruction::with2(Code::VEX_Vmovsd_m64_xmm, into, x)));
    }

    /// The lower half of a vector.
    fn half(&self, vector: Vector) -> Register {
        match self.instructions {
            Instructions::Avx2 => Register::XMM0 + u32::from(vector),
            Instructions::Avx512 => Register::YMM0 + u32::from(vector),
        }
    }

    /// Begins the loop over groups of so many numbers, at most `most` of them before [`Self::begin_groups`]
    /// is returned to: gives where both start.
    pub(super) fn begin_groups(&mut self, numbers: usize, most: Option<usize>) -> Loop {
        let bytes = 4 * numbers as i32;
        let outer = self.length;
        self.emit(valid(Instruction::with2(Code::Mov_r64_rm64, LAST, END)));
        self.emit(valid(Instruction::with2(Code::Sub_rm64_imm32, LAST, bytes)));
        self.emit(valid(Instruction::with2(Code::Cmp_r64_rm64, AT, LAST)));
        self.jump(Code::Jg_rel32_64, Label::Rest);
        if let Some(most) = most {
            let last = MemoryOperand::with_base_displ(AT, i64::from(bytes) * (most as i64 - 1));
            self.emit(valid(Instruction::with2(Code::Lea_r64_m, ADDRESS, last)));
            self.emit(valid(Instruction::with2(Code::Cmp_r64_rm64, ADDRESS, LAST)));
            self.emit(valid(Instruction::with2(Code::Cmovl_r64_rm64, LAST, ADDRESS)));
        }
        self.addressed = None;
        Loop { outer, inner: self.length, bytes }
    }

    /// Ends the inner loop.
    pub(super) fn end_groups(&mut self, begun: Loop) {
        self.emit(valid(Instruction::with2(Code::Add_rm64_imm32, AT, begun.bytes)));
        self.emit(valid(Instruction::with2(Code::Cmp_r64_rm64, AT, LAST)));
        self.emit(valid(Instruction::with_branch(Code::Jle_rel32_64, begun.inner as u64)));
    }

    /// Goes on with the next groups.
    pub(super) fn more_groups(&mut self, begun: Loop) {
        self.emit(valid(Instruction::with_branch(Code::Jmp_rel32_64, begun.outer as u64)));
    }

    /// Begins the loop over the vectors that are left, of which the last may not be full: gives where it
    /// starts. `counting` are numbers that count up from zero.
    pub(super) fn begin_rest(&mut self, counting: Memory) -> usize {
        self.labels.push((Label::Rest, self.length));
        self.emit(valid(Instruction::with2(Code::Cmp_r64_rm64, AT, END)));
        self.jump(Code::Jge_rel32_64, Label::End);
        self.addressed = None;
        let start = self.length;
        let (left, all) = (Register::EAX, Register::R11D);
        self.emit(valid(Instruction::with2(Code::Mov_r32_rm32, left, Register::R9D)));
        self.emit(valid(Instruction::with2(Code::Sub_r32_rm32, left, Register::R10D)));
        self.emit(valid(Instruction::with2(Code::Shr_rm32_imm8, left, 2)));
        match self.instructions {
            Instructions::Avx512 => {
                self.emit(valid(Instruction::with2(Code::Mov_r32_imm32, all, -1)));
                self.emit(valid(Instruction::with3(Code::VEX_Bzhi_r32_rm32_r32, all, all, left)));
                self.emit(valid(Instruction::with2(Code::VEX_Kmovw_kr_r32, LEFT, all)));
            }
            Instructions::Avx2 => {
                let counting = counting.operand();
                self.emit(valid(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, Register::XMM14, left)));
                self.emit(valid(Instruction::with2(Code::VEX_Vpbroadcastd_ymm_xmmm32, MASK, Register::XMM14)));
                self.emit(valid(Instruction::with3(Code::VEX_Vpcmpgtd_ymm_ymm_ymmm256, MASK, MASK, counting)));
            }
        }
        start
    }

    /// Ends it.
    pub(super) fn end_rest(&mut self, start: usize) {
        let bytes = 4 * self.instructions.lanes() as i32;
        self.emit(valid(Instruction::with2(Code::Add_rm64_imm32, AT, bytes)));
        self.emit(valid(Instruction::with2(Code::Cmp_r64_rm64, AT, END)));
        self.emit(valid(Instruction::with_branch(Code::Jl_rel32_64, start as u64)));
    }

    /// Where the code goes on if there is no rest.
    pub(super) fn end_of_rest(&mut self) {
        self.labels.push((Label::End, self.length));
    }

    pub(super) fn end(&mut self) {
        // Without it, the instructions of other code would wait for the upper halves of the registers.
        self.emit(Instruction::with(Code::VEX_Vzeroupper));
        self.emit(Instruction::with(Code::Retnq));
    }

    fn jump(&mut self, code: Code, label: Label) {
        self.emit(valid(Instruction::with_branch(code, self.length as u64)));
        self.jumps.push((self.length, label));
    }
}

fn valid(instruction: Result<Instruction, iced_x86::IcedError>) -> Instruction {
    instruction.expect("the instruction has these operands")
}
