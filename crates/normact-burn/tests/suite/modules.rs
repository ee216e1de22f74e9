//! What Burn does with the module around the forward pass: nesting, training, freezing, records.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Device, FloatDType, Tensor, TensorData, Tolerance};
use expect_test::expect;
use normact_burn::{NormAct, Path};
use normact_ir::{Extent, Groups, IndexSet, Inputs, Layer, Mode, Moment, Prim, Running, Shape};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::devices::devices;
use crate::layers::{affine, evonorm_b0, layer, moment, param, tracked_moment};
use crate::reference::{self, Subject, numbers};
use crate::ways::ways;

/// A small network with the layer in it.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    norm: NormAct,
    head: Linear,
}

impl Net {
    fn new(layer: &Layer, device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 4], [3, 3]).init(device),
            norm: NormAct::new(layer, 4, device).expect("the layer fits 4 channels"),
            head: LinearConfig::new(4, 2).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let features = self.norm.forward(self.conv.forward(images));
        let [samples, channels, height, width] = features.dims();
        self.head
            .forward(features.reshape([samples, channels, height * width]).mean_dim(2).reshape([samples, channels]))
    }
}

/// Takes so many steps of gradient descent towards a fixed target.
fn train(mut net: Net, steps: usize, device: &Device) -> Net {
    let mut optimizer = SgdConfig::new().init();
    let device = device.clone().autodiff();
    let target = Tensor::<2>::ones([5, 2], &device);
    for _ in 0..steps {
        let error = net.forward(images(&device)) - target.clone();
        let gradients = GradientsParams::from_grads((error.clone() * error).mean().backward(), &net);
        net = optimizer.step(0.05, net, gradients);
    }
    net
}

fn images(device: &Device) -> Tensor<4> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let values: Vec<f32> = (0..5 * 3 * 6 * 6).map(|_| rng.random_range(-2.0..3.0)).collect();
    Tensor::from_data(TensorData::new(values, [5, 3, 6, 6]), device)
}

/// The path and values of everything a visitor sees.
fn contents(module: &impl Module) -> Vec<(String, Vec<f64>)> {
    #[derive(Default)]
    struct Contents {
        path: Vec<String>,
        found: Vec<(String, Vec<f64>)>,
    }
    impl ModuleVisitor for Contents {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.join("."), numbers(param.val())));
        }
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
    }
    let mut contents = Contents::default();
    module.visit(&mut contents);
    contents.found
}

fn values(net: &Net, name: &str) -> Vec<f64> {
    net.norm.values(name).expect("a name of the layer")
}

#[test]
fn the_layer_prints_what_it_holds() {
    let net = Net::new(&evonorm_b0(), &Device::flex());
    expect![[r#"
        NormAct {
          layer: evonorm_b0
          channels: 4
          parameters: v [4], gamma [4], beta [4]
          buffers: running_var [4]
          params: 16
        }"#]]
    .assert_eq(&net.norm.to_string());
    expect![[r#"
        Net {
          conv: Conv2d {ch_in: 3, ch_out: 4, stride: [1, 1], kernel_size: [3, 3], dilation: [1, 1], groups: 1, padding: Valid, params: 112}
          norm: NormAct {
            layer: evonorm_b0
            channels: 4
            parameters: v [4], gamma [4], beta [4]
            buffers: running_var [4]
            params: 16
          }
          head: Linear {d_input: 4, d_output: 2, bias: true, params: 10}
          params: 138
        }"#]].assert_eq(&net.to_string());
    assert_eq!(net.norm.num_params(), 4 * 4);
}

#[test]
fn training_changes_parameters_and_running_statistics() {
    for device in devices() {
        let initial = contents(&Net::new(&evonorm_b0(), &device).norm);
        let trained = train(trainable(&device), 2, &device);
        for ((name, before), (_, after)) in initial.iter().zip(contents(&trained.norm)) {
            assert_ne!(*before, after, "{name} on {device:?}");
        }
    }
}

#[test]
fn records_use_the_names_of_the_formula() {
    let net = Net::new(&evonorm_b0(), &Device::flex());
    let mut names: Vec<String> = contents(&net).into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name.starts_with("norm"));
    expect![[r#"
        [
            "norm.v",
            "norm.gamma",
            "norm.beta",
            "norm.running_var",
        ]
    "#]]
    .assert_debug_eq(&names);
}

#[test]
fn safetensors_and_burnpack_bring_everything_back() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    for device in devices() {
        let net = train(trainable(&device), 3, &device).valid();
        let images = images(&device);
        let expected = numbers(net.forward(images.clone()));

        let file = folder.path().join("net.safetensors");
        net.save_into(&mut SafetensorsStore::from_file(&file).overwrite(true)).expect("the file can be written");
        let bytes = std::fs::read(&file).expect("the file is there");
        let stored = safetensors::SafeTensors::deserialize(&bytes).expect("the file is well-formed");
        let mut stored: Vec<&str> = stored.names().into_iter().filter(|name| name.starts_with("norm")).collect();
        stored.sort_unstable();
        assert_eq!(stored, ["norm.beta", "norm.gamma", "norm.running_var", "norm.v"]);
        let mut loaded = Net::new(&evonorm_b0(), &device);
        loaded.load_from(&mut SafetensorsStore::from_file(&file)).expect("the file fits");
        assert_eq!(numbers(loaded.forward(images.clone())), expected, "safetensors on {device:?}");

        let file = folder.path().join("net.bpk");
        net.clone().save_file(&file).expect("the file can be written");
        let loaded = Net::new(&evonorm_b0(), &device).try_load_file(&file).expect("the file fits");
        assert_eq!(numbers(loaded.forward(images)), expected, "burnpack on {device:?}");
    }
}

#[test]
fn a_record_holds_the_last_update_and_loading_replaces_it() {
    let device = Device::flex();
    let net = trainable(&device);
    net.forward(images(&device.clone().autodiff()));
    let record = net.clone().into_record();
    let recorded = values(&net, "running_var");
    assert_ne!(recorded, [1.0; 4]);

    let other = trainable(&device);
    other.forward(images(&device.clone().autodiff()));
    let loaded = other.try_load_record(record).expect("the record fits");
    assert_eq!(values(&loaded, "running_var"), recorded);
}

#[test]
fn a_file_of_another_shape_is_an_error() {
    let device = Device::flex();
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let wide = NormAct::new(&evonorm_b0(), 8, &device).expect("the layer fits");
    let mut narrow = NormAct::new(&evonorm_b0(), 4, &device).expect("the layer fits");

    let file = folder.path().join("wide.safetensors");
    wide.save_into(&mut SafetensorsStore::from_file(&file)).expect("the file can be written");
    let error = narrow.load_from(&mut SafetensorsStore::from_file(&file)).expect_err("the shapes differ");
    assert!(error.to_string().contains("gamma"), "{error}");
    assert_eq!(narrow.values("gamma").expect("a name of the layer"), [1.0; 4]);

    let file = folder.path().join("wide.bpk");
    wide.save_file(&file).expect("the file can be written");
    assert!(narrow.try_load_file(&file).is_err());
}

#[test]
fn a_frozen_layer_keeps_its_running_statistics() {
    for device in devices() {
        let net = train(trainable(&device), 1, &device);
        let before = contents(&net.norm);
        let frozen = train(net.freeze_group(ParamGroup::from_predicate("norm")), 2, &device);
        assert_eq!(contents(&frozen.norm), before, "{device:?}");
        assert!(frozen.norm.to_string().contains("training: disabled"));

        let moving = train(Net { norm: frozen.norm.unfreeze(), ..frozen }, 1, &device);
        assert_ne!(contents(&moving.norm), before, "{device:?}");
    }
}

#[test]
fn no_grad_keeps_parameters_but_not_running_statistics() {
    let device = Device::flex();
    let net = trainable(&device);
    let net = train(Net { norm: net.norm.no_grad(), ..net }, 2, &device);
    assert_eq!(values(&net, "gamma"), [1.0; 4]);
    assert_ne!(values(&net, "running_var"), [1.0; 4]);
}

#[test]
fn validation_reads_the_running_statistics_and_leaves_them() {
    for device in devices() {
        let net = train(trainable(&device), 2, &device);
        let valid = net.valid();
        let before = contents(&valid);
        let images = images(&device);
        let whole = numbers(valid.forward(images.clone()));
        let first = numbers(valid.forward(images.narrow(0, 0, 1)));
        // A sample's result does not depend on the others.
        whole.iter().zip(&first).for_each(|(whole, first)| assert!((whole - first).abs() < 1e-5, "{device:?}"));
        assert_eq!(contents(&valid), before);
        // It is a snapshot: training goes on without it, and from it.
        train(net, 1, &device);
        assert_eq!(contents(&valid), before);
        assert_ne!(contents(&train(valid.train(), 1, &device)), before);
    }
}

#[test]
fn a_module_moves_between_devices() {
    let [cpu, gpu] = devices();
    let images = images(&cpu);
    let net = train(trainable(&cpu), 1, &cpu).valid();
    let expected = numbers(net.forward(images.clone()));
    let there = net.to_device(&gpu);
    assert_eq!(there.devices(), std::slice::from_ref(&gpu));
    let found = numbers(there.forward(images.to_device(&gpu)));
    found.iter().zip(&expected).for_each(|(found, expected)| assert!((found - expected).abs() < 1e-4));
    let forked = there.train().fork(&cpu);
    assert_ne!(contents(&train(forked.clone(), 1, &cpu).norm), contents(&trainable(&cpu).norm));
    assert_eq!(forked.devices(), [cpu]);
}

#[test]
fn a_layer_trains_under_gradient_checkpointing() {
    for device in devices() {
        let device = device.autodiff().gradient_checkpointing();
        let net = train(Net::new(&evonorm_b0(), &device), 2, &device);
        assert_ne!(values(&net, "v"), [1.0; 4], "{device:?}");
    }
}

#[test]
fn gradients_that_nobody_wants_leave_the_others_as_they_are() {
    for device in devices() {
        let device = device.autodiff();
        let plain = images(&device).narrow(1, 0, 2);
        let net = NormAct::new(&evonorm_b0(), 2, &device).expect("the layer fits");
        let of_params = |x: Tensor<4>, net: &NormAct| {
            let gradients = net.forward(x).powi_scalar(3).sum().backward();
            ["v", "gamma", "beta"].map(|name| net.gradient(name, &gradients).expect("a parameter"))
        };
        let x = plain.clone().require_grad();
        let gradients = net.forward(x.clone()).powi_scalar(3).sum().backward();
        let dx = x.grad(&gradients).expect("x has a gradient").into_data();
        // The first layer of a network: nobody asks for the gradient of its input.
        let expected = ["v", "gamma", "beta"].map(|name| net.gradient(name, &gradients).expect("a parameter"));
        assert!(expected.iter().flatten().all(|gradient| gradient.is_finite() && *gradient != 0.0));
        assert_eq!(of_params(plain.clone(), &net), expected, "{device:?}");
        // Frozen parameters; batch statistics go on.
        let parts = FreezeParams::freeze(net);
        let gradients = parts.forward(x.clone()).powi_scalar(3).sum().backward();
        x.grad(&gradients).expect("x has a gradient").into_data().assert_eq(&dx, true);
        assert_eq!(of_params(x, &parts), [[0.0; 2]; 3].map(Vec::from), "{device:?}");
    }
}

/// Makes parameters constants, and leaves the mode as it is.
struct FreezeParams;

impl FreezeParams {
    fn freeze(module: NormAct) -> NormAct {
        module.map(&mut Self)
    }
}

impl ModuleMapper for FreezeParams {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(false)
    }
}

#[test]
fn long_training_does_not_grow_the_state() {
    for device in devices() {
        let net = trainable(&device);
        let sizes =
            |net: &Net| contents(net).into_iter().map(|(name, values)| (name, values.len())).collect::<Vec<_>>();
        let before = sizes(&net);
        let net = train(net, 300, &device);
        assert_eq!(sizes(&net), before);
        for (name, values) in contents(&net) {
            assert!(values.iter().all(|value| value.is_finite()), "{name} on {device:?}");
        }
        assert!(!has_tracked_buffers(&net.norm), "a buffer holds on to the graph of a pass");
    }
}

#[test]
fn statistics_of_one_value_share_a_buffer() {
    let both = layer("both", |builder| {
        let x = builder.input();
        let over = IndexSet::Batch;
        let std = tracked_moment(builder, Moment::Std, over, 1e-5, Running::Unbiased, x);
        let wide = tracked_moment(builder, Moment::Std, over, 0.5, Running::Unbiased, x);
        let var = tracked_moment(builder, Moment::Var, over, 0.0, Running::Biased, x);
        let all = moment(builder, Moment::Rms, IndexSet::All, 1e-5, x);
        let alpha = param(builder, "alpha", Extent::Scalar, 0.5);
        let scaled = builder.binary(Prim::Mul, alpha, all);
        let product = builder.binary(Prim::Mul, std, wide);
        let sum = builder.binary(Prim::Add, product, var);
        builder.binary(Prim::Mul, sum, scaled)
    });
    let shape = Shape::new(&[3, 4, 2]).expect("the shape is valid");
    let x = (0..24).map(|index| f64::from(index * index % 17)).collect();
    let inputs = Inputs::initial(&both.dag, shape, x);
    for way in ways() {
        let module = way.module(&both, 4);
        assert_eq!(module.buffer_names().collect::<Vec<_>>(), ["running_var", "running_var_2", "running_mean_square"]);
        let expected = reference::expected(&both.dag, &inputs, Mode::Training, &[1.0; 24]);
        let subject = Subject::new(&both, &inputs, &way, FloatDType::F32);
        let found = subject.pass(&inputs.x, Mode::Training, &[1.0; 24]);
        for ((name, found), (_, expected)) in found.lists().zip(expected.lists()) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{name}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
fn an_input_on_which_a_driver_would_end_loops_early_runs_operation_by_operation() {
    let [_, wgpu] = devices();
    let device = wgpu.autodiff();
    let module = NormAct::new(&evonorm_b0(), 4, &device).expect("the layer fits");
    let path = |dims: [usize; 4]| module.path(&Tensor::<4>::empty(dims, &device));
    assert_eq!(path([2, 4, 512, 512]), Path::Fused);
    let Path::OpByOp(reason) = path([128, 4, 512, 512]) else { panic!("2^25 elements for each statistic") };
    assert!(reason.contains("drivers for CPUs end them after 65,535"), "{reason}");
}

#[test]
fn values_are_read_and_written_by_name() {
    for device in devices() {
        let mut norm = trainable(&device).norm;
        for name in ["gamma", "running_var"] {
            norm.set_values(name, &[1.0, 2.0, 3.0, 4.0]).expect("four values for four channels");
            assert_eq!(norm.values(name).expect("a name of the layer"), [1.0, 2.0, 3.0, 4.0]);
        }
        // A parameter that was set still trains.
        let net = Net { norm, ..trainable(&device) };
        assert_ne!(values(&train(net, 1, &device), "gamma"), [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn a_wrong_name_or_length_is_an_error() {
    let mut norm = Net::new(&evonorm_b0(), &Device::flex()).norm;
    let error = norm.set_values("gamma", &[1.0]).expect_err("too few values");
    expect!["`gamma` has 4 value(s), found 1"].assert_eq(&error.to_string());
    let error = norm.values("gama").expect_err("no such name");
    expect!["the layer has no `gama`; it has v, gamma, beta, running_var"].assert_eq(&error.to_string());
    let gradients = Tensor::<1>::ones([1], &Device::flex().autodiff()).require_grad().backward();
    let error = norm.gradient("running_var", &gradients).expect_err("a buffer has no gradient");
    expect!["the layer has no `running_var`; it has v, gamma, beta"].assert_eq(&error.to_string());
}

#[test]
fn a_layer_that_does_not_fit_is_an_error() {
    let grouped = layer("grouped", |builder| {
        let x = builder.input();
        let groups = IndexSet::Group(Groups::Exactly(5.try_into().expect("5 is not 0")));
        let mean = moment(builder, Moment::Mean, groups, 0.0, x);
        affine(builder, mean)
    });
    let error = NormAct::new(&grouped, 12, &Device::flex()).expect_err("5 does not divide 12");
    expect!["layer `grouped` does not fit 12 channel(s): group(5) does not divide the channels: channels % groups == 0 does not hold for channels = 12, groups = 5; use a number of groups that divides 12 (1, 2, 3, 4, 6, 12), or `group` without a number, which is lowered until it does"].assert_eq(&error.to_string());
    assert_eq!(error.errors.len(), 1);
    let error = NormAct::new(&grouped, 0, &Device::flex()).expect_err("no channels");
    expect!["layer `grouped` does not fit 0 channel(s): axis 1 of the input is empty: size of axis 1 >= 1 does not hold for size of axis 1 = 0; give a tensor with at least one element along every axis"].assert_eq(&error.to_string());
}

#[test]
#[should_panic(expected = "size of axis 1 == channels does not hold for size of axis 1 = 5, channels = 4")]
fn an_input_of_another_width_is_a_panic() {
    let norm = Net::new(&evonorm_b0(), &Device::flex()).norm;
    assert!(norm.check(&[2, 4, 3]).is_ok());
    norm.forward(Tensor::<3>::zeros([2, 5, 3], &Device::flex()));
}

#[test]
#[should_panic(expected = "2 <= rank <= 5 does not hold for rank = 1")]
fn an_input_of_rank_one_is_a_panic() {
    Net::new(&evonorm_b0(), &Device::flex()).norm.forward(Tensor::<1>::zeros([4], &Device::flex()));
}

fn trainable(device: &Device) -> Net {
    Net::new(&evonorm_b0(), &device.clone().autodiff())
}

/// Whether any value without a gradient of its own is part of a recorded graph.
fn has_tracked_buffers(module: &impl Module) -> bool {
    struct Tracked(bool);
    impl ModuleVisitor for Tracked {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= !param.is_require_grad() && param.val().is_tracked();
        }
    }
    let mut tracked = Tracked(false);
    module.visit(&mut tracked);
    tracked.0
}

#[test]
fn the_module_explains_how_it_runs() {
    let device = Device::flex().autodiff();
    let module = NormAct::new(&evonorm_b0(), 8, &device).expect("the layer fits");
    let x = Tensor::<4>::ones([4, 8, 16, 16], &device);
    expect![[r#"
        evonorm_b0, training: fused, one operation forward and one backward
        full-size reads and writes: 3 forward, 5 backward; 2 and 3 where blocks stay in the cache
        kept for the backward pass: the input (32768 bytes) and 88 statistics (704 bytes)"#]]
    .assert_eq(&module.explain(&x).expect("the shape fits"));
    expect![[r#"
        evonorm_b0, training: fused, one operation forward and one backward
        full-size reads and writes: 3 forward, 5 backward; 2 and 3 where blocks stay in the cache
        kept for the backward pass: the input, converted to f32, (32768 bytes) and 88 statistics (704 bytes)"#]]
    .assert_eq(&module.explain(&x.clone().cast(FloatDType::F16)).expect("the shape fits"));
    let x = x.cast(FloatDType::F64);
    expect!["evonorm_b0, training: operation by operation, since the fused path computes in f32, and the input is f64"]
        .assert_eq(&module.explain(&x).expect("the shape fits"));
}

#[test]
fn a_backward_pass_starts_from_a_given_gradient() {
    for device in devices() {
        let device = device.autodiff();
        let numbers = |seed: f32| -> Vec<f32> { (0..60).map(|i| (i as f32 * seed).sin()).collect() };
        let tensor = |seed| Tensor::<4>::from_data(TensorData::new(numbers(seed), [1, 3, 4, 5]), &device);
        let module = NormAct::new(&evonorm_b0(), 3, &device).expect("the layer fits");
        let (x, dy) = (tensor(0.7).require_grad(), tensor(1.3));
        let given = normact_burn::upstream(module.forward(x.clone()), dy.clone()).backward();
        let summed = (module.forward(x.clone()) * dy).sum().backward();
        let gradient = |gradients| x.grad(gradients).expect("x has a gradient").into_data();
        gradient(&given).assert_approx_eq::<f32>(&gradient(&summed), Tolerance::absolute(1e-6));
    }
}
