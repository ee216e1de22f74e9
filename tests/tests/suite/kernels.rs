//! How many kernels a layer is, counted from the log of the runtime.
//!
//! The log is set up once per process, so each layer is run by a process of its own: this test program
//! again, with the name of the layer in the environment.

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use normact::ir::{Builder, Extent, Layer, Op, Operands, Param, Prim, Scalar};
use normact::{NormAct, built_in_module, upstream};

use crate::support::{alone, devices};

const LAYER: &str = "NORMACT_TEST_LAYER";

/// A layer that does not read its input, nor a parameter: what is not read gets no gradient, and no kernel fills
/// zeros for it.
const UNREAD: &str = "unread";

#[test]
fn a_layer_is_at_most_two_kernels_forward_and_three_backward() {
    for name in ["evonorm_s0", "evonorm_b0", "bn_relu", "gn_silu", UNREAD] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = "[profiling]\nlogger = { level = \"minimal\", file = \"kernels.log\" }\n";
        std::fs::write(folder.path().join("cubecl.toml"), config).expect("a file");
        let text = alone("kernels::the_kernels_of_one_layer", |command| {
            command.env(LAYER, name).current_dir(folder.path());
        });
        let line = text.lines().find_map(|line| line.strip_prefix("kernels ")).expect("a line of counts");
        let counts: Vec<usize> = line.split(' ').map(|count| count.parse().expect("a number")).collect();
        let [forward, backward, said_forward, said_backward, op_by_op] = counts[..] else {
            panic!("five counts: {line}")
        };
        assert!((1..=2).contains(&forward) && (1..=3).contains(&backward), "{name}: {forward} + {backward}");
        assert_eq!([forward, backward], [said_forward, said_backward], "{name}: the log and `NormAct::kernels`");
        assert!(op_by_op > 2 * (forward + backward), "{name}: {op_by_op} operation by operation");
    }
}

#[test]
#[ignore = "run by the test above, with a log"]
fn the_kernels_of_one_layer() {
    let Ok(name) = std::env::var(LAYER) else { return };
    let [_, (_, wgpu)] = devices();
    let device = wgpu.autodiff();
    let module = if name == UNREAD {
        NormAct::new(&unread(), 32, &device).expect("the layer fits")
    } else {
        built_in_module(&name, 32, &device).expect("the layer fits")
    };
    let numbers = |seed: f32| -> Vec<f32> { (0..4 * 32 * 64).map(|i| (i as f32 * seed).sin()).collect() };
    let tensor = |seed| Tensor::<4>::from_data(TensorData::new(numbers(seed), [4, 32, 8, 8]), &device);
    let (x, dy) = (tensor(0.7).require_grad(), tensor(1.3));
    let count = |run: &mut dyn FnMut()| {
        let before = logged(&device);
        run();
        logged(&device) - before
    };
    // What starts a backward pass, without any layer; the product is a kernel forward and one backward.
    let start = count(&mut || drop(upstream(x.clone() * 1.0, dy.clone()).backward())) - 2;
    let mut y = None;
    let forward = count(&mut || y = Some(module.forward(x.clone())));
    let mut y = || y.take().expect("the forward pass ran");
    let backward = count(&mut || drop(upstream(y(), dy.clone()).backward())) - start;
    let [said_forward, said_backward] = module.kernels(&x).expect("it is fused");
    let module = module.op_by_op();
    let op_by_op = count(&mut || drop(upstream(module.forward(x.clone()), dy.clone()).backward())) - start;
    println!("kernels {forward} {backward} {said_forward} {said_backward} {op_by_op}");
}

/// `square(gamma) + beta`, and a parameter besides. Such layers come from a search; the language has none.
fn unread() -> Layer {
    let mut builder = Builder::new();
    let [gamma, beta, _idle] = ["gamma", "beta", "idle"].map(|name| {
        let init = Scalar::new(1.0).expect("a finite number");
        let param = Param { name: name.to_owned(), extent: Extent::PerChannel, init };
        let param = builder.declare(param).expect("the names are distinct");
        builder.intern(Op::Param(param), Operands::None)
    });
    let square = builder.unary(Prim::Square, gamma);
    let output = builder.binary(Prim::Add, square, beta);
    Layer { name: UNREAD.to_owned(), dag: builder.finish(output) }
}

/// The lines of the log when it has stopped to grow: it is written by a thread of its own.
fn logged(device: &Device) -> usize {
    device.sync().expect("the device works");
    let lines = || std::fs::read_to_string(Path::new("kernels.log")).map_or(0, |text| text.lines().count());
    let (mut count, mut since) = (lines(), Instant::now());
    while since.elapsed() < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(20));
        let now = lines();
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    count
}
